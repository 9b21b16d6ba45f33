# Everything that is done to this project, from nothing but Python 3.11 or later.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
.DEFAULT_GOAL := help

.PHONY: help install demo test format lint types contracts docs-check docs pytest coverage soak nights bench clean

help: ## Show what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(INSTALLED) ## Make .venv with everything that is needed

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or later is needed: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints.txt --editable . --group dev
	@touch $@

demo: install ## Run the main job on a sample export, against the local sandbox
	@# Some rows of the sample fail on purpose: exit code 1 is how this run is meant to end.
	$(BIN)/bulk-updater run samples/salesforce_voice_calls.yaml \
		samples/salesforce_voice_calls.csv --sandbox --fresh || [ $$? -eq 1 ]

test: lint types contracts docs-check pytest ## Run every check and every test

lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: install
	$(BIN)/mypy

contracts: install
	$(BIN)/lint-imports

docs-check: install
	$(BIN)/cog --check --diff README.md

pytest: install
	$(BIN)/pytest

coverage: install ## Line and branch coverage of the rooms that must lose nothing
	$(BIN)/pytest --cov --cov-report= tests/ledger tests/pacing tests/pipeline \
		tests/test_retry.py tests/test_outlast.py --ignore tests/pacing/test_scenarios.py
	for room in 'ledger/*' 'pacing/*' 'pipeline/*' retry.py; do \
		$(BIN)/coverage report --include "bulk_updater/$$room" || exit 1; done

format: install ## Format the code and mend what ruff can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: install ## Write the generated parts of the README anew
	$(BIN)/cog -r README.md

SEEDS ?= 1000
soak: install ## Simulate SEEDS=N runs with crashes and faults, over all cores
	$(BIN)/python -m tests.simulation --seeds $(SEEDS)

nights: install ## Simulate a year of nights for each of SEEDS=N seeds, over all cores
	$(BIN)/python -m tests.nights --seeds $(if $(filter file,$(origin SEEDS)),10,$(SEEDS))

bench: install ## Measure speed and memory, beside named yardsticks
	$(BIN)/python -m tests.benchmarks

clean: ## Remove what was made, runs excepted
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis .coverage
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
