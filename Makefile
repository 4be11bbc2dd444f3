# `make` lists what there is. Everything installs what it needs; the first run of anything takes a few minutes.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STATE ?= var/demo
SEED ?= 1

.DEFAULT_GOAL := help
.PHONY: help setup demo up check format test test-slow chaos torture reliability services services-all services-up weights clean

help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.installed ## create .venv and install everything at the versions of constraints.txt

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(f"Python 3.11 or 3.12 is wanted, this is {v.major}.{v.minor}; set PYTHON=") if v[:2] not in ((3, 11), (3, 12)) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: setup ## make fourteen portraits of eight people on this machine and show the contact sheet
	$(BIN)/fpga demo --state-dir $(STATE)

up: setup ## start the embedded system and keep it running
	$(BIN)/fpga up

check: setup ## formatting, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: setup ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

test: setup services check ## checks and all quick tests (under ten minutes on two cores)
	OMP_NUM_THREADS=1 $(BIN)/pytest -m "not slow and not gpu" --numprocesses 2 --dist worksteal

test-slow: setup services-all ## chaos, real object store, browser with tutorials, long numerics (under forty minutes with make test)
	OMP_NUM_THREADS=1 $(BIN)/pytest -m "slow and not gpu" --numprocesses 2 --dist loadfile --durations 20

chaos: setup services-all ## real services under fire, replayed from a seed: make chaos SEED=7
	FPGA_TEST_SEED=$(SEED) $(BIN)/pytest -m chaos -s

torture: setup services-all ## the same at full size, with records for docs/reliability.md (over an hour)
	$(BIN)/python -m tests.chaos --full --record --seed $(SEED)

reliability: setup ## make docs/reliability.md of the records
	$(BIN)/python -m tests.chaos.table

services: ## install PostgreSQL from Debian's packages, for the tests
	scripts/install-services.sh core || test "$$CI" != true

services-all: ## install PostgreSQL, Redis, RabbitMQ, OpenStack Swift and Chromium from Debian's packages, for the slow tests
	scripts/install-services.sh all || test "$$CI" != true

services-up: setup services-all ## start PostgreSQL, Redis and Swift for a scaled-out system here and print its settings
	$(BIN)/python -m tests.services up

weights: setup ## train a preset again, from rendering to export (hours): PRESET=mini or mini256
	$(BIN)/python -m fpga_models.lab.mini --preset $(or $(PRESET),mini)

clean: ## remove the virtual environment and all caches; var/ is left alone
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
