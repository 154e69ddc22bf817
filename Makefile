# Each target sets up what it needs in .venv, on a machine with Python >= 3.11, pip and make, and nothing else prepared.
# A second run skips what is set up already.
#
#   make demo PYTHON=python3.12            another interpreter
#   make demo TORCH_INDEX=URL              take torch from another package index first (a CPU or CUDA build), see the README
#   make test PYTEST="-x tests/kernels"    arguments for pytest

PYTHON ?= python3
TORCH_INDEX ?=
PYTEST ?=
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
INSTALL := $(PIP) install --quiet -c constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo test test-fast test-oldest lint types rooms floors docs bench check-all tinyworld-model clean

help:
	@echo "make demo             trace, attribute and balance one prompt with the bundled model; writes demo-output/"
	@echo "make test             run every test and docstring example"
	@echo "make test-oldest      run the contract of tracing and balancing with the oldest diffusers that is supported"
	@echo "make lint types rooms     ruff, mypy, import-linter"
	@echo "make docs bench       build the documentation into site/; run the benchmarks"
	@echo "make check-all        test, test-oldest, lint, types, rooms, docs"
	@echo "make tinyworld-model  train a bundled model again, MODEL=unet, joint or cosmos (hours; resumes from runs/)"
	@echo "make clean            remove .venv, caches and build outputs"

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "vico-lens needs Python >= 3.11, $(PYTHON) is $$($(PYTHON) --version 2>&1): make $(MAKECMDGOALS) PYTHON=/path/to/python3.11" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# torch comes first and alone only when an index is named, so that the choice of build cannot be undone by the second command.
$(VENV)/.runtime: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(if $(TORCH_INDEX),$(INSTALL) --index-url $(TORCH_INDEX) torch)
	$(INSTALL) editables hatchling
	$(INSTALL) --no-build-isolation -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime
	$(INSTALL) --no-build-isolation -e ".[dev]"
	@touch $@

$(VENV)/.docs: $(VENV)/.runtime
	$(INSTALL) --no-build-isolation -e ".[docs]"
	@touch $@

demo: $(VENV)/.runtime
	$(BIN)/vico-lens demo --out demo-output --overwrite

test: $(VENV)/.dev
	$(BIN)/python -m pytest $(PYTEST)

$(VENV)/.oldest: constraints-oldest.txt $(VENV)/.dev
	rm -rf $(VENV)/oldest
	$(PIP) install --quiet --no-deps --target $(VENV)/oldest -r constraints-oldest.txt
	@touch $@

test-oldest: $(VENV)/.oldest
	PYTHONPATH=$(CURDIR)/$(VENV)/oldest $(BIN)/python -m pytest -rs tests/tracing tests/testing tests/intervention/balancing/test_balancing_families.py

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy

rooms: $(VENV)/.dev
	$(BIN)/lint-imports

# The name of this target before the rooms.
floors: rooms

# The tutorials' pages are made from the committed notebooks; nothing is run.
docs: $(VENV)/.docs
	$(BIN)/python -m tutorials.tools pages
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	$(BIN)/python -m tools.check_site site

bench: $(VENV)/.dev
	$(BIN)/python -m benchmarks

# The judge is checked on 2,000 clips here, on 240 in `make test`.
check-all: export VICO_LENS_JUDGE_CLIPS = 2000
check-all: test test-oldest lint types rooms docs

MODEL ?= unet
tinyworld-model: $(VENV)/.runtime
	$(BIN)/python -m vico_lens.tinyworld.training --model $(MODEL)

clean:
	rm -rf $(VENV) demo-output site build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
