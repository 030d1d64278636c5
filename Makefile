# One environment in .venv; every target makes what it needs, so a fresh clone needs nothing installed but Python >= 3.11.
PYTHON ?= python3
BIN := .venv/bin
# Threads that spin only briefly leave a shared machine usable; see src/fairway/base/threads.py.
export GOMP_SPINCOUNT ?= 10000
INSTALLED := .venv/.installed

.PHONY: install demo test quick long lint bench matrix clean

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"
	touch $@

demo: install
	$(BIN)/fairway run tiny --out runs/demo --overwrite

lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright

test: lint
	$(BIN)/python -m pytest -q -n 2 --dist loadfile --durations 15

quick: install
	$(BIN)/python -m pytest -q -n 2 --dist loadfile -m "not slow and not long"

long: install
	$(BIN)/python -m pytest -q -n 2 --dist loadfile -m long

bench: install
	for file in benchmarks/bench_*.py; do $(BIN)/python $$file || exit 1; done

matrix: install
	cd tests && ../$(BIN)/python -m mutants.matrix --write ../docs/validity.md

clean:
	rm -rf .venv runs build dist
