# Two commands: `make run` and `make test`. Each does all of its own set-up in .venv; the rest are for daily work.
PYTHON ?= python3
PREFIX ?= /usr/local
DESTDIR ?=
VENV := .venv
BIN := $(VENV)/bin
MADE_FROM := setup.cfg setup.py pyproject.toml constraints.txt towerbus/wire/_eager.c

.PHONY: run dev test coverage quick long soak lint types servers wheel bench install uninstall clean help
.DEFAULT_GOAL := help

help: ## this list
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

run: $(VENV)/made-run ## everything in one process on the embedded log; prints what to type next
	@$(BIN)/twistd --nodaemon --pidfile= towerbus $(OPTIONS)

dev: $(VENV)/made-dev ## the same for work on it: restarts when a file changes, nginx on 8013 and 8043; BUS=amqp://... for RabbitMQ
	@$(if $(BUS),TOWERBUS_BUS='$(BUS)') $(BIN)/python -m towerbus.dev $(OPTIONS)

test: servers $(VENV)/made-test lint types ## all tests, against the wheel as it would be installed
	@scripts/test-wheel $(BIN)

coverage: servers $(VENV)/made-test ## the same tests, counting the lines and branches that they run: twice as long
	@COVERAGE=yes scripts/test-wheel $(BIN)

quick: servers $(VENV)/made-test ## the tests, against the working tree
	$(BIN)/pytest -x -q

long: servers $(VENV)/made-test ## the tests that take minutes: bridges, systemd, nginx, make dev, the load generators
	$(BIN)/pytest -q -m long tests $(OPTIONS)

# Faulthandler would dump all stacks of a test that takes two minutes, which is usual here: it reads running threads, and may crash.
soak: servers $(VENV)/made-test ## minutes of load while everything is killed and cut; every event is accounted for
	$(BIN)/pytest -q -s -m soak -o faulthandler_timeout=0 tests/soak $(OPTIONS)

lint: $(VENV)/made-test
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(VENV)/made-test
	$(BIN)/mypy

servers: ## the Debian packages of the servers that tests start
	@scripts/system-packages rabbitmq postgresql nginx

bench: $(VENV)/made-test ## CPU per delivery beside other servers (bench/README.md)
	@scripts/system-packages --peers cc zlib rabbitmq redis-server nats-server nchan mosquitto node npm
	$(BIN)/python bench/run.py $(OPTIONS)

install: ## into PREFIX (/usr/local) with systemd units; as root, or with DESTDIR for packages (docs/operations.md)
	@PYTHON="$(PYTHON)" PREFIX="$(PREFIX)" DESTDIR="$(DESTDIR)" scripts/install

uninstall: ## what install has put in place; configuration and data stay
	@PREFIX="$(PREFIX)" DESTDIR="$(DESTDIR)" scripts/uninstall

clean: ## remove what make has made
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage*

$(BIN)/python:
	@scripts/system-packages venv
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --upgrade pip setuptools wheel

$(VENV)/made-run: $(BIN)/python $(MADE_FROM)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable .
	@touch $@

$(VENV)/made-dev: $(BIN)/python $(MADE_FROM)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@ $(VENV)/made-run

$(VENV)/made-test: $(BIN)/python $(MADE_FROM)
	@PYTHON=$(BIN)/python scripts/system-packages --optional cc headers
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[test]'
	@touch $@ $(VENV)/made-run $(VENV)/made-dev
