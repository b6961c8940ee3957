# make demo: set up, train AEGAN on a built-in data set, and show what it makes. make test: set up and run the tests. make mutants: whether
# the tests notice small faults, see docs/reliability.md.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
READY = $(VENV)/.ready
MUTANTS ?= '*__mutmut_*3' '*__mutmut_*7'  # a fifth of them; make mutants MUTANTS= tries all

.PHONY: setup demo test lint mutants benchmark clean

setup: $(READY)

$(READY): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -c "import uv" 2>/dev/null || $(BIN)/python -m pip install --quiet uv
	$(BIN)/python -m uv pip install --quiet --python $(BIN)/python -e ".[dev]"
	touch $(READY)

demo: setup
	@set -e; \
	run=$$($(BIN)/lgm train aegan --data glyphs --preset small --out $$(n=1; while [ -e runs/demo-$$n ]; do n=$$((n+1)); done; echo runs/demo-$$n)); \
	$(BIN)/lgm sample $$run -n 64 -o $$run/demo-samples.png --force; \
	$(BIN)/lgm reconstruct $$run glyphs:test -n 32 -o $$run/demo-reconstructions.png --force | tail -n 2; \
	$(BIN)/lgm interpolate $$run glyphs:test:3 glyphs:test:8 -o $$run/demo-interpolation.png --force; \
	echo; echo "the pictures lie in $$run: demo-samples.png, demo-reconstructions.png, demo-interpolation.png"

test: setup
	$(BIN)/python -m pytest

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

mutants: setup
	$(BIN)/python -m uv pip install --quiet --python $(BIN)/python -e ".[mutants]"
	OMP_NUM_THREADS=1 nice $(BIN)/python -m mutmut run --max-children 2 $(MUTANTS)
	$(BIN)/python -m mutmut results

benchmark: setup
	$(BIN)/python tests/benchmarks/speed.py

clean:
	rm -rf $(VENV)
