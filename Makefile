# Two commands do everything on a fresh machine: `make demo` and `make test`.
# They need Python 3.11 or newer and nothing else; what they install goes into .venv.

PYTHON ?= $(shell for name in python3.13 python3.12 python3.11 python3; do \
	$$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$name && break; done)
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test torture lint types layers check bench clean help

help: ## Show the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 16

demo: $(READY) ## Run a real workload and watch the balancer, under a minute
	$(BIN)/jobsched -c categories.toml demo

test: $(READY) ## Run the tests
	$(BIN)/python -m pytest -q -n auto --dist loadfile

torture: $(READY) ## Kill, stop and starve it for an hour; one JSON line per scenario
	$(BIN)/python tests/torture all --full

lint: $(READY) ## Check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY) ## Check types
	$(BIN)/mypy

layers: $(READY) ## Check that imports go down only
	$(BIN)/lint-imports

check: lint types layers test ## All of these: what CI runs

bench: $(READY) ## Measure drain rate and dispatch latency
	$(BIN)/jobsched bench drain
	$(BIN)/jobsched bench latency

$(READY): pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed: put it on the PATH, or say make PYTHON=/path/to/python"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

clean: ## Remove what was installed and built
	rm -rf $(VENV) dist build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
