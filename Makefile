# Each target makes .venv when it is missing and installs what the target needs. An installation is
# repeated only when the metadata or the tested versions change; otherwise pip is not called at all.

PYTHON ?= python3
# The versions to install: those tested, or CONSTRAINTS=constraints-lowest.txt, or the newest with
# CONSTRAINTS= and nothing behind it. Each has an environment of its own.
CONSTRAINTS ?= constraints.txt
VENV := .venv$(if $(CONSTRAINTS),$(patsubst constraints%.txt,%,$(notdir $(CONSTRAINTS))),-highest)
ifeq ($(OS),Windows_NT)
  BIN := $(VENV)/Scripts
  PIP := $(BIN)/pip.exe
else
  BIN := $(VENV)/bin
  PIP := $(BIN)/pip
endif
WORKERS ?= auto
OUT ?= bench_output

.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help demo test test-slow smoke audit lint docs linkcheck bench clean

help:
	@echo "make demo       fit the four models to simulated mice: a first table after half a minute of"
	@echo "                processor time, all after two, and a figure in demo_output/; FULL=1 takes more"
	@echo "                neurons, trials and epochs"
	@echo "make test       the test suite, one process per core"
	@echo "make test-slow  the tests that take minutes"
	@echo "make smoke      builds what is released, installs it in an empty environment, uses it there"
	@echo "make audit      known vulnerabilities of the tested versions; needs a network"
	@echo "make lint       ruff, import layers, docstrings, types"
	@echo "make docs       the site, in docs/_build/html; QUICK=1 does not run the gallery's examples"
	@echo "make linkcheck  asks for every address that the site links to; needs a network"
	@echo "make bench      speed, as ratios against plain implementations: JSON, table, figures in"
	@echo "                bench_output/; QUICK=1 only shows, at tiny sizes, that everything runs"

demo: $(VENV)/.installed-plot
	@$(BIN)/python examples/demo.py $(if $(FULL),--full)

# One thread per worker: the workers fill the cores.
test: $(VENV)/.installed-test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(WORKERS) --maxprocesses 4 --dist worksteal

test-slow: $(VENV)/.installed-test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m "slow and not gpu" --timeout 2400 \
	  -n $(WORKERS) --maxprocesses 4 --dist worksteal

smoke: $(VENV)/.installed-test
	$(BIN)/python -m tests.smoke

# Strictly: a version that could not be looked up counts as not known to be safe.
audit: $(VENV)/.audit
	$(VENV)/.audit/bin/pip-audit --strict --no-deps --disable-pip -r constraints.txt

$(VENV)/.audit: | $(PIP)
	$(BIN)/python -m venv $@
	$@/bin/pip install --quiet pip-audit

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache
	$(BIN)/numpydoc lint $$(git ls-files 'v1tlearn/*.py')
	$(BIN)/mypy --no-incremental

docs: $(VENV)/.installed-docs
	$(BIN)/python -m sphinx -W --keep-going -b html $(if $(QUICK),-t quick) docs docs/_build/html

linkcheck: $(VENV)/.installed-docs
	$(BIN)/python -m sphinx -q -b linkcheck -t quick docs docs/_build/linkcheck

bench: $(VENV)/.installed-plot
	for script in benchmarks/bench_*.py; do \
	  echo; echo "$$script"; $(BIN)/python $$script --out $(OUT) $(if $(QUICK),--quick) || exit 1; done
	$(BIN)/python benchmarks/gpu.py --if-present --out $(OUT) $(if $(QUICK),--quick)
	$(BIN)/python benchmarks/plots.py --out $(OUT)

clean:
	rm -rf docs/_build docs/auto_examples docs/generated demo_output bench_output

# The dots tell that pip, which is quiet for minutes, is at work. They end with this shell.
$(VENV)/.installed-%: setup.py pyproject.toml $(CONSTRAINTS) $(wildcard v1tlearn/nn/*.[ch]) | $(PIP)
	@echo "Installing v1tlearn[$*] and what it needs in $(VENV). This happens once, and takes minutes"
	@echo "where PyTorch, the largest part, comes over a slow network."
	@(while sleep 1 && kill -0 $$$$ 2> /dev/null; do printf .; done) & dots=$$!; \
	  $(BIN)/python -m pip install --quiet $(CONSTRAINTS:%=-c %) -e ".[$*]"; status=$$?; \
	  kill $$dots 2> /dev/null; echo; exit $$status
	@touch $@

$(PIP):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "v1tlearn needs Python 3.11 or newer, but '$(PYTHON)' is $$($(PYTHON) --version 2>&1)." \
	       "Name another interpreter: make PYTHON=/path/to/python3.11 ..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }
