.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
MINUTES ?= 60
SEED ?= 1

.PHONY: help demo test test-fast coverage check docs format chaos nemesis bench clean

help: ## Show this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: $(READY) ## Simulated sensors, a broker, a Redis, a worker and a live view; Ctrl-C ends all
	$(BIN)/stream-gru demo $(ARGS)

test: $(READY) check ## All checks and tests but the long faults; KAFKA_HOME=DIR tests against Apache Kafka
	OMP_NUM_THREADS=1 $(BIN)/pytest -m 'not chaos' -n 3 --dist worksteal $(ARGS)

test-fast: $(READY) ## The tests that need no server and are quick: a minute and a half on two cores
	OMP_NUM_THREADS=1 $(BIN)/pytest -m 'not (integration or chaos or slow)' -n 2 --dist worksteal $(ARGS)

coverage: ## The same, and which lines and branches they reach; fails below what was reached before
	$(MAKE) test-fast ARGS='--cov --cov-report=term $(ARGS)'

check: $(READY) ## Lint, format, types, which room may import which, and whether the docs build
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

docs: $(READY) ## Build the documentation into build/site; ARGS=--help says what else
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict $(ARGS)

format: $(READY) ## Format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

chaos: $(READY) ## The faults of docs/reliability.md in full, one after the other; needs KAFKA_HOME, takes an hour
	$(BIN)/pytest -m 'chaos and not long' $(ARGS)

nemesis: $(READY) ## Faults at random under load, then a CHECK: MINUTES=60 SEED=1; needs KAFKA_HOME
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.chaos.nemesis --minutes $(MINUTES) --seed $(SEED) $(ARGS)

bench: $(READY) ## Throughput and latency beside two yardsticks
	$(BIN)/stream-gru bench throughput $(ARGS)

clean: ## Remove the virtual environment and caches
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
