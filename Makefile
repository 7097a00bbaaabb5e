# Two commands do everything: `make run` (train the main job on embedded data) and `make test`. For every edit there is
# `make quick`, the tests that take a second or so.
PYTHON ?= python3
BIN := .venv/bin

# Tests start some hundred processes, each of which would compile our modules anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: env run test quick lint clean

env: .venv/ready

# Done again whenever the dependencies change.
.venv/ready: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
	  || { echo "make env: Python 3.11 to 3.13 is needed; name one with: make env PYTHON=python3.11" >&2; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -e '.[dev]'
	$(BIN)/python -m compileall -qq -j 0 .venv/lib || true # on all cores; pip takes one, a minute long
	touch $@

run: env
	$(BIN)/python cluster/train.py
	@echo "open runs/blocks/report.html"

test: env
	$(BIN)/python -m pytest -n 3

quick: env
	$(BIN)/python -m pytest -n 2 -m "not slow and not ray and not ranks and not slurm"

lint: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf data runs
