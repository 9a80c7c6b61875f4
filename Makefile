# Two commands: `make run` and `make test`. Each does all of its own set-up in .venv; the rest are for daily work.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
MADE_FROM := setup.cfg pyproject.toml constraints.txt

.PHONY: run test quick lint types wheel bench clean help
.DEFAULT_GOAL := help

help: ## this list
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

run: $(VENV)/made-run ## everything in one process on the embedded log; prints what to type next
	@$(BIN)/twistd --nodaemon --pidfile= towerbus $(OPTIONS)

test: $(VENV)/made-test lint types ## all tests, against the wheel as it would be installed
	@scripts/test-wheel $(BIN)

quick: $(VENV)/made-test ## the tests, against the working tree
	$(BIN)/pytest -x -q

lint: $(VENV)/made-test
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(VENV)/made-test
	$(BIN)/mypy

bench: $(VENV)/made-test ## CPU per delivery beside other servers (bench/README.md)
	$(BIN)/python bench/run.py $(OPTIONS)

clean: ## remove what make has made
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage*

$(BIN)/python:
	@scripts/system-packages venv
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --upgrade pip setuptools wheel

$(VENV)/made-run: $(BIN)/python $(MADE_FROM)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable .
	@touch $@

$(VENV)/made-test: $(BIN)/python $(MADE_FROM)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[test]'
	@touch $@ $(VENV)/made-run
