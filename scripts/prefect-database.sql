-- Prefect keeps its rows apart from the ledger's; run once, when the cluster of docker-compose.yml is made.
CREATE DATABASE prefect OWNER fpga;
