# Needs Python 3.11 or newer, git, make and a package index; everything else goes into $(VENV).

VENV ?= .venv
BIN = $(VENV)/bin
FIND_PYTHON = for p in python3 python3.13 python3.12 python3.11 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done
PYTHON ?= $(shell $(FIND_PYTHON))
PIP = $(BIN)/python -m pip --disable-pip-version-check install --constraint constraints.txt
WORKERS ?= $(shell env -u OMP_NUM_THREADS nproc 2>/dev/null || echo 2)
SIDE_BY_SIDE = --numprocesses $(WORKERS) --maxprocesses 8 --dist loadgroup
# Every worker reads all files it is given before it runs one test: not those without a slow test.
SLOW = $(shell grep -rlE --include='test_*.py' 'mark\.slow' tests)

.DEFAULT_GOAL := help
.PHONY: help demo test lint bench docs

help: ## Show what can be made
	@echo "make TARGET [PYTHON=python3.12] [VENV=.venv] [WORKERS=2]"
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  \1\t\2/p' Makefile | expand -t 10

demo: $(VENV)/.installed ## Run the main experiment on embedded data and say where its report lies
	$(BIN)/fedunlearn compare experiments/configs/digits_client.toml

test: $(VENV)/.tools ## Run the fast tests, then the slow ones, on all cores
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) -m "not slow"
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) -m "slow and not nightly" $(SLOW)

lint: $(VENV)/.tools ## Check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.installed ## Measure training, messages, history and memory
	$(BIN)/python -m experiments.benchmarks.machinery

docs: $(VENV)/.installed ## Build the documentation, with warnings as errors
	$(PIP) --editable '.[docs]'
	$(BIN)/python -m sphinx -q -W --keep-going docs docs/_build
	@echo docs/_build/index.html

$(VENV)/.installed: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11 or newer found; name one: make PYTHON=/path/to/python" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) --editable .
	@touch $@

$(VENV)/.tools: $(VENV)/.installed
	$(PIP) --editable '.[test]'
	@touch $@
