# Needs Python 3.11 or newer, git, make and a package index; everything else goes into $(VENV).

VENV ?= .venv
BIN = $(VENV)/bin
FIND_PYTHON = for p in python3 python3.13 python3.12 python3.11 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done
PYTHON ?= $(shell $(FIND_PYTHON))
PIP = $(BIN)/python -m pip --disable-pip-version-check install --constraint constraints.txt
# One worker more than there are cores: some tests wait for processes, timers and sockets.
WORKERS ?= $(shell echo $$(($$(env -u OMP_NUM_THREADS nproc 2>/dev/null || echo 2) + 1)))
SIDE_BY_SIDE = --numprocesses $(WORKERS) --maxprocesses 8 --dist loadgroup --no-loadscope-reorder
# Every worker and every process that a test starts reads what the first of them has compiled.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo test lint bench docs

help: ## Show what can be made
	@echo "make TARGET [PYTHON=python3.12] [VENV=.venv] [WORKERS=3]"
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  \1\t\2/p' Makefile | expand -t 10

demo: $(VENV)/.installed ## Run the main experiment on embedded data and say where its report lies
	$(BIN)/fedunlearn compare experiments/configs/digits_client.toml

test: $(VENV)/.tools ## Run all tests on all cores, the slow ones first
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) -m "not nightly"

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
