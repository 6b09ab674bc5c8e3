# The task list is the manual: `make` alone prints it.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help install demo test lint format types audit generated secrets lock kafka-test clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*?## ' $(MAKEFILE_LIST) | awk -F ':.*?## ' '{printf "  make %-12s %s\n", $$1, $$2}'
	@echo '  ARGS="…" is passed on: make demo ARGS="--transactions 20000 --json"'

install: $(STAMP)  ## create .venv and install the locked dependencies and the project

$(STAMP): requirements.lock pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "error: $(PYTHON) not found; install Python 3.11 or newer, or say make PYTHON=/path/to/python" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: Python 3.11 or newer is needed, $(PYTHON) is $$($(PYTHON) -V 2>&1); say make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "error: $(PYTHON) has no working venv module; on Debian or Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@test -x $(BIN)/python && $(BIN)/python -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || $(PYTHON) -m venv --clear $(VENV)
	@echo "installing the locked dependencies into $(VENV), a minute or two on a first run"
	$(BIN)/python -m pip install --quiet --require-hashes --requirement requirements.lock
	$(BIN)/python -m pip install -qq --no-deps --no-build-isolation --editable .
	@touch $@

demo: install  ## the whole system with an embedded broker, then a summary
	@$(BIN)/fraudstream demo $(ARGS)

test: install  ## the test suite
	@$(BIN)/python -m pytest -m "not chaos" $(ARGS)

lint: install  ## ruff: rules and format of imports
	$(BIN)/ruff check .

format: install  ## apply ruff's safe fixes
	$(BIN)/ruff check --fix .

types: install  ## mypy, strict
	$(BIN)/mypy

audit: install  ## known vulnerabilities among the locked dependencies
	@$(BIN)/python .ci/audit.py requirements.lock

generated: install  ## write dashboards and docs/metrics.md anew
	@$(BIN)/python -m monitoring.dashboards

secrets:  ## what docker-compose.yml reads from ./secrets, where it is missing
	@mkdir -p -m 700 secrets
	@test -s secrets/grafana_admin_password || $(PYTHON) -c 'import secrets; print(secrets.token_urlsafe(24), end="")' > secrets/grafana_admin_password
	@test -s secrets/alert_webhook_url || printf 'http://localhost:9/' > secrets/alert_webhook_url
	@chmod 644 secrets/*
	@echo "Grafana: user operator, password in secrets/grafana_admin_password; alerts go to the address in secrets/alert_webhook_url"

kafka-test: install  ## the broker tests on real Apache Kafka (needs Java 17 and Maven)
	$(BIN)/python -m tests.kafka.run $(ARGS)

lock:  ## resolve requirements.lock and requirements-runtime.lock anew (needs uv)
	@command -v uv >/dev/null || { echo "error: uv not found; pip install uv" >&2; exit 1; }
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header \
		--no-annotate --no-strip-markers --extra test --output-file requirements.lock pyproject.toml
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header \
		--no-annotate --no-strip-markers --constraint requirements.lock --output-file requirements-runtime.lock pyproject.toml

clean:  ## remove .venv and everything built
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +
