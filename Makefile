# Two commands on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3.11
BIN := .venv/bin
ASPIRIN := CC(=O)Oc1ccccc1C(=O)O
DEMO_ARGS ?= --budget 5m -o results/aspirin

.PHONY: demo test lint clean

# torch first, so that pip does not fetch a CUDA build for a CPU machine.
.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet -c constraints.txt torch==2.13.0 || $(BIN)/pip install --quiet -c constraints.txt torch
	$(BIN)/pip install --quiet -c constraints.txt -e ".[dev]"
	touch $@

demo: .venv/.installed
	$(BIN)/nucleate predict "$(ASPIRIN)" $(DEMO_ARGS)

test: .venv/.installed
	$(BIN)/pytest

lint: .venv/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf .venv results
