.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help demo test check format chaos bench clean

help: ## Show this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: $(READY) ## Simulated sensors, a broker, a Redis, a worker and a live view; Ctrl-C ends all
	$(BIN)/stream-gru demo $(ARGS)

test: $(READY) check ## All checks and tests but the chaos run; KAFKA_HOME=DIR tests against Apache Kafka
	$(BIN)/pytest -m 'not chaos' $(ARGS)

check: $(READY) ## Lint, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY) ## Format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

chaos: $(READY) ## 30 SIGKILLs of a worker under load
	$(BIN)/pytest -m chaos $(ARGS)

bench: $(READY) ## Throughput and latency beside two yardsticks
	$(BIN)/stream-gru bench throughput $(ARGS)

clean: ## Remove the virtual environment and caches
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
