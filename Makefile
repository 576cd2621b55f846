# Every target works from a fresh clone. `make` alone lists them.
#
# make run needs Python 3.11 or newer with venv, and a package index; nothing else.
# make test needs Java and Maven too, for the real Kafka and Elasticsearch: as root on Debian it installs what is missing.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

VENV := .venv
PYTHON := $(VENV)/bin/python
ARGS ?=

.PHONY: help run test proof torture services services-down lint format lock clean

help: ## list the targets
	@echo "make TARGET, one of:"
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  \1\t\2/' | expand -t 18

run: $(VENV)/.server ## run logweir on this machine, with the embedded queue and store; ARGS="..." are passed on
	@exec $(VENV)/bin/logweir up --die-with-parent $(ARGS)

test: ## everything that CI checks, against real servers; the first failing stage ends it
	@bash tests/services/stages.sh

proof: $(VENV)/.dev ## what takes an hour: 200 kills, three brokers, thousands of random examples; prints its seed; ARGS="-k outage"
	@bash tests/services/proof.sh $(ARGS)

torture: $(VENV)/.dev ## kill parts at random under load and audit; ARGS="--minutes 30 --kafka"
	@$(PYTHON) -m tests.tools.torture $(ARGS)

services: $(VENV)/.dev ## start a real Kafka and Elasticsearch that stay; eval "$(make services)" sets their addresses
	@$(PYTHON) -m tests.services up

services-down: ## stop them and remove their data (KEEP=1 keeps it)
	@if [ ! -x $(PYTHON) ]; then echo "  no services here"; else $(PYTHON) -m tests.services down; fi

lint: $(VENV)/.dev ## style, types and import rules
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

format: $(VENV)/.dev ## put the code into the one format, and mend what ruff can mend
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

# uv, because it writes one file that is right for every Python and platform (environment markers); pip installs from it.
lock: ## make requirements/*.lock anew from pyproject.toml
	@python=$$(bash tests/services/python.sh); "$$python" -m venv $(VENV)-lock
	@$(VENV)-lock/bin/pip install --quiet uv
	@compile() { $(VENV)-lock/bin/uv pip compile --quiet --upgrade --universal --python-version 3.11 \
		--no-header --no-annotate --generate-hashes "$$@" pyproject.toml; }; \
	{ echo '# What `make run` installs, exactly. Made by `make lock` from pyproject.toml.'; compile --extra server; } \
		> requirements/server.lock.new; mv requirements/server.lock.new requirements/server.lock; \
	{ echo '# What the image of deploy/Dockerfile has, exactly. Made by `make lock` from pyproject.toml.'; \
		compile --extra server --extra geo --extra useragent --extra notify --extra mozdef --extra sigma \
			--constraint requirements/server.lock; } \
		> requirements/image.lock.new; mv requirements/image.lock.new requirements/image.lock; \
	{ echo '# What `make test` installs, exactly. Made by `make lock` from pyproject.toml.'; \
		compile --extra dev --constraint requirements/server.lock; } \
		> requirements/dev.lock.new; mv requirements/dev.lock.new requirements/dev.lock
	@rm -rf $(VENV)-lock

clean: services-down ## remove what make made: the environment, the services' data, caches
	rm -rf $(VENV) $(VENV)-lock build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +

$(VENV)/bin/python:
	@python=$$(bash tests/services/python.sh); rm -rf $(VENV); \
		"$$python" -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

# The lock says what is installed; the project itself comes last, editable, and brings nothing of its own.
$(VENV)/.server: requirements/server.lock pyproject.toml | $(VENV)/bin/python
	@echo "  installing requirements/server.lock into $(VENV)" >&2
	@$(PYTHON) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/server.lock
	@$(PYTHON) -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

$(VENV)/.dev: requirements/dev.lock pyproject.toml | $(VENV)/bin/python
	@echo "  installing requirements/dev.lock into $(VENV)" >&2
	@$(PYTHON) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.lock
	@$(PYTHON) -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@
