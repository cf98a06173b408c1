.PHONY: setup demo test lint clean

PYTHON := .venv/bin/python

setup:
	@bash scripts/setup.sh

demo: setup
	.venv/bin/sphere_reg demo --out demo

lint: setup
	.venv/bin/ruff check .
	.venv/bin/mypy

# Workers share the cores: one thread each, or they fight over them.
test: lint
	OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 $(PYTHON) -m pytest -n 2 --dist loadfile

clean:
	rm -rf .venv demo build install log .pytest_cache .mypy_cache .ruff_cache .hypothesis
