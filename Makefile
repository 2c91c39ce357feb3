# Each target makes .venv when it is missing and installs what the target needs. An installation is
# repeated only when the metadata or the tested versions change; otherwise pip is not called at all.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
WORKERS ?= auto
OUT ?= bench_output

.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help demo test test-slow lint docs bench clean

help:
	@echo "make demo       fit the four models to simulated mice: a table and a figure in demo_output/"
	@echo "make test       the test suite, one process per core"
	@echo "make test-slow  the tests that take minutes"
	@echo "make lint       ruff, import layers, docstrings"
	@echo "make docs       the site, in docs/_build/html; QUICK=1 does not run the gallery's examples"
	@echo "make bench      speed, as ratios against plain implementations: JSON, table, figures in"
	@echo "                bench_output/; QUICK=1 only shows, at tiny sizes, that everything runs"

demo: $(VENV)/.installed-plot
	$(BIN)/python examples/demo.py

# One thread per worker: the workers fill the cores.
test: $(VENV)/.installed-test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(WORKERS) --maxprocesses 4

test-slow: $(VENV)/.installed-test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m "slow and not gpu" -n $(WORKERS) --maxprocesses 4

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache
	$(BIN)/numpydoc lint $$(git ls-files 'v1tlearn/*.py')

docs: $(VENV)/.installed-docs
	$(BIN)/python -m sphinx -W --keep-going -b html $(if $(QUICK),-t quick) docs docs/_build/html

bench: $(VENV)/.installed-plot
	for script in benchmarks/bench_*.py; do \
	  echo; echo "$$script"; $(BIN)/python $$script --out $(OUT) $(if $(QUICK),--quick) || exit 1; done
	$(BIN)/python benchmarks/gpu.py --if-present --out $(OUT) $(if $(QUICK),--quick)
	$(BIN)/python benchmarks/plots.py --out $(OUT)

clean:
	rm -rf docs/_build docs/auto_examples docs/generated demo_output bench_output

$(VENV)/.installed-%: setup.py pyproject.toml constraints.txt $(wildcard v1tlearn/nn/*.[ch]) | $(BIN)/pip
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[$*]"
	@touch $@

$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "v1tlearn needs Python 3.11 or newer, but '$(PYTHON)' is $$($(PYTHON) --version 2>&1)." \
	       "Name another interpreter: make PYTHON=/path/to/python3.11 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }
