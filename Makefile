# Everything a person or CI runs. The set-up is the same for all: .venv from the hashed lock.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
TESTS := OMP_NUM_THREADS=1 POLARS_MAX_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile \
	--no-loadscope-reorder

.PHONY: demo test test-slow thorough lint types architecture look-ahead audit setup lock clean help
.DEFAULT_GOAL := help

help: ## show the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

setup: $(READY) ## create .venv from requirements.lock

$(READY): requirements.lock pyproject.toml
	PYTHON=$(PYTHON) sh .ci/system-packages
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

demo: $(READY) ## the main job on the embedded simulated market
	$(BIN)/margincast demo

test: $(READY) lint types architecture ## linters, types, architecture and the test suite
	sh .ci/test-packages
	$(TESTS) -m "not slow"

test-slow: $(READY) ## tests with real browsers, servers, clusters, killed processes and whole archives
	sh .ci/test-packages
	$(TESTS) -m slow

thorough: $(READY) ## the same properties on ten times as many random cases, other ones every time
	HYPOTHESIS_PROFILE=thorough $(TESTS) -m "not slow"

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

architecture: $(READY)
	$(BIN)/lint-imports

audit: $(READY) ## known weaknesses of the locked packages; skipped, with the reason, where offline
	$(BIN)/python .ci/audit.py

look-ahead: $(READY) ## 100,000 random cases of changed futures (a quarter of an hour and more)
	OMP_NUM_THREADS=1 POLARS_MAX_THREADS=1 $(BIN)/python -m benchmarks.look_ahead_long --cases 100000

lock: ## renew requirements.lock (hashes, no addresses)
	$(PYTHON) -m piptools compile --quiet --generate-hashes --no-emit-index-url --no-emit-trusted-host \
		--no-emit-find-links --allow-unsafe --strip-extras --no-annotate --no-header --all-extras \
		-o requirements.lock pyproject.toml

clean: ## remove what the targets above made
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
