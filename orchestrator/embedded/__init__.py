"""The whole system on one machine under one parent: private Prefect server, workers, sweeper; `fpga up`."""
