# Every path here is relative, so that a checkout in a folder with a space in its name works too,
# and tools are run as modules: pip's scripts carry absolute paths, `python -m` does not.

PYTHON ?= python3
PIP_VERBOSITY ?= --quiet
BENCH_ARGS ?= --quick

VENV := .venv
VENV_PYTHON := $(VENV)/bin/python
# Written last, so an interrupted install leaves none and is taken up again by the next `make`.
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help demo test lint bench kernels gpu clean

help: ## list what make can do here
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-7s %s\n", $$1, $$2}' Makefile

demo: $(STAMP) ## fit both heads on bundled real data, print tables, draw plots
	@$(VENV_PYTHON) examples/demo.py
	@$(VENV_PYTHON) examples/demo_dna.py

test: $(STAMP) ## run all tests
	@OMP_NUM_THREADS=1 $(VENV_PYTHON) -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

lint: $(STAMP) ## ruff (rules and format), mypy
	@$(VENV_PYTHON) -m ruff check
	@$(VENV_PYTHON) -m ruff format --check
	@$(VENV_PYTHON) -m mypy

bench: $(STAMP) ## run every benchmark; BENCH_ARGS= for the full length instead of --quick
	@set -e; for script in benchmarks/[!_]*.py; do \
		echo "== $$script $(BENCH_ARGS)"; $(VENV_PYTHON) "$$script" $(BENCH_ARGS); done
	@$(VENV_PYTHON) benchmarks/_tables.py

kernels: $(STAMP) ## compile every Triton kernel for A100 and H100, without either; writes docs/kernels.md
	@$(VENV_PYTHON) benchmarks/kernel_resources.py

gpu: $(STAMP) ## on a machine with a GPU: are the kernels right, and how fast
	@$(VENV_PYTHON) -m pytest -m gpu
	@$(VENV_PYTHON) benchmarks/kernel_roofline.py

clean: ## remove the environment and every cache
	@rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A working environment is kept and only brought up to date; a half-made one (no pip) is made anew.
# Python's own pip is often too old for `--group` (PEP 735, pip 25.1), hence the upgrade. The
# constraints turn `torch>=2.6` into exactly the version named there: see constraints.txt.
$(STAMP): pyproject.toml constraints.txt
	@$(VENV_PYTHON) -m pip --version >/dev/null 2>&1 || { \
		command -v "$(PYTHON)" >/dev/null 2>&1 || { \
			echo "make: '$(PYTHON)' was not found; name a Python >= 3.10, as in: make PYTHON=python3.12 test" >&2; \
			exit 1; }; \
		"$(PYTHON)" -c 'import sys; sys.version_info >= (3, 10) or sys.exit("make: titans-stream needs Python >= 3.10, but $(PYTHON) is " + sys.version.split()[0] + "; name a newer one, as in: make PYTHON=python3.12 test")' && \
		echo "Creating $(VENV) with $$("$(PYTHON)" --version)" && \
		"$(PYTHON)" -m venv --clear $(VENV); }
	@echo "Installing into $(VENV): minutes the first time, PyTorch is large (PIP_VERBOSITY= shows progress)"
	@$(VENV_PYTHON) -m pip install $(PIP_VERBOSITY) --disable-pip-version-check "pip>=25.1"
	@$(VENV_PYTHON) -m pip install $(PIP_VERBOSITY) --disable-pip-version-check \
		--constraint constraints.txt --group dev --editable ".[plot]"
	@touch $(STAMP)
