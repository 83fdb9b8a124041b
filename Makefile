# One command each: the study, the tests, the checks.

VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
PIP := PIP_CONSTRAINT=constraints.txt PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/pip install --quiet

# How many processes run tests; with JOBS=0 none but the first, as a debugger needs it.
JOBS ?= logical

.PHONY: study test check clean

study: $(VENV)/.run
	$(BIN)/fairtrial run quick
	$(BIN)/fairtrial plot quick

test: $(VENV)/.dev
	$(BIN)/python -m pytest -n $(JOBS) --maxprocesses 8 --cov --cov-report=
	$(BIN)/coverage report --skip-covered | grep TOTAL
	$(BIN)/coverage report --include='*/stats/*,*/store/*' --fail-under=95

check: $(VENV)/.dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache .coverage*

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) --editable .
	touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) --editable '.[dev]'
	touch $@ $(VENV)/.run
