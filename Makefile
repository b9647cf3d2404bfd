# Two commands on a fresh machine: `make demo` and `make test`. They need Python 3.11 or later, pip, git and gcc.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
ASPIRIN := CC(=O)Oc1ccccc1C(=O)O
DEMO_ARGS ?= --budget 5m -o results/aspirin

# The CPU build is asked for by its full version, so that no index can answer with gigabytes of CUDA. macOS has no other.
TORCH ?= $(if $(filter Darwin,$(shell uname -s)),torch==2.13.0,torch==2.13.0+cpu)
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu

.PHONY: demo test test-all lint docs coverage bench clean

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --retries 1 --no-deps --extra-index-url $(TORCH_INDEX) "$(TORCH)"
	$(BIN)/pip install --quiet -c constraints.txt -e ".[dev]"
	touch $@

# The same command again takes up what is there, so a second run only writes the files once more.
demo: .venv/.installed
	$(BIN)/nucleate predict "$(ASPIRIN)" --name aspirin $(DEMO_ARGS)

test: .venv/.installed
	$(BIN)/pytest -n auto

test-all: .venv/.installed
	$(BIN)/pytest -n auto -m ""

lint: .venv/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# A site in site/ that works from file://, without a network; a warning is an error (not with --quiet, which drops them).
docs: .venv/.installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# The numbers of the README: BENCH_ARGS='--cifs FOLDER --index CSV ...' for those that need data (benchmarks/claims.py).
bench: .venv/.installed
	$(BIN)/python benchmarks/claims.py all --readme $(BENCH_ARGS)

coverage: .venv/.installed
	$(BIN)/pytest -n auto --cov=nucleate --cov-report=term:skip-covered

clean:
	rm -rf .venv results site
