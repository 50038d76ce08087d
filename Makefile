# make demo: train on the CMS open data in workflows/heptutorial and print the result
# make test: everything that the tests need, then the tests
# make servers: the servers of Rucio and S3 for tests that are skipped without them
# make root: ROOT itself, for tests that write and read files with it, skipped without it
PYTHON ?= python3
VENV ?= .venv
# Extra arguments for pip, such as --extra-index-url https://download.pytorch.org/whl/cpu
PIP_ARGS ?=
OUTPUT ?= runs/single-top

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: demo test servers root lint clean
.DELETE_ON_ERROR:

demo: $(VENV)/.demo
	$(BIN)/python -m mlaas4hep_dask.run workflows/heptutorial/dataset.yaml --output $(OUTPUT)

test: $(VENV)/.test
	$(BIN)/python -m pytest

servers: .venv-servers/.done

root: .venv-root/.done

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info[:2] <= (3, 13) else "Python 3.11, 3.12 or 3.13 is needed, this is " + sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV) || { echo "the venv module is missing; on Debian and Ubuntu: apt-get install python3-venv"; rm -rf $(VENV); exit 1; }

$(VENV)/.demo: $(BIN)/python pyproject.toml constraints.txt
	$(PIP) install $(PIP_ARGS) -c constraints.txt -e '.[serve]'
	touch $@

$(VENV)/.test: $(BIN)/python pyproject.toml constraints.txt
	$(PIP) install $(PIP_ARGS) -c constraints.txt -e '.[all]'
	touch $@ $(VENV)/.demo

.venv-servers/.done: tests/servers.txt
	$(PYTHON) -m venv .venv-servers
	.venv-servers/bin/python -m pip --disable-pip-version-check --quiet install $(PIP_ARGS) -r tests/servers.txt
	touch $@

.venv-root/.done: tests/root.txt
	$(PYTHON) -m venv .venv-root
	.venv-root/bin/python -m pip --disable-pip-version-check --quiet install $(PIP_ARGS) -r tests/root.txt
	touch $@

clean:
	rm -rf $(VENV) .venv-servers .venv-root runs build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
