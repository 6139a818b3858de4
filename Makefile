# Needs a Python 3.11 or newer with its venv module; everything else goes into .venv.
# PYTHON=python3.12 chooses an interpreter, ARGS="..." is passed on by demo, test and bench.

BIN := .venv/bin
ARGS ?=

export PYTHON

.PHONY: help demo example cut silence away back test bench simulate lint generate clean

help:  ## Show this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## */  make \1|/' | \
	    while IFS='|' read -r name text; do printf '%-16s %s\n' "$$name" "$$text"; done

demo:  ## See the problem and the cure, on this machine
	@tools/bootstrap.sh demo
	@$(BIN)/everpool demo $(ARGS)

example:  ## Start a service that stays up, and watch it (see examples/service)
	@tools/bootstrap.sh dev
	@$(BIN)/python examples/service/start.py $(ARGS)

cut:  ## Cut the connections of the example; also: make silence, away, back
cut silence away back:
	@$(BIN)/python examples/service/faults.py $@

test: lint  ## Run every check and every test
	@tools/test.sh $(ARGS)

bench:  ## Measure everpool beside psycopg_pool
	@tools/bootstrap.sh dev
	@$(BIN)/python -m bench $(ARGS)

simulate:  ## Judge what pools learn on 10,000 random paths (an hour on two cores)
	@tools/bootstrap.sh dev
	@$(BIN)/python -m tests.core.random_paths $(or $(ARGS),10000)

lint:  ## Check generated files, style, types and imports
	@tools/bootstrap.sh dev
	$(BIN)/python tools/async_to_sync.py --check
	$(BIN)/python -m ruff check
	$(BIN)/python -m ruff format --check
	$(BIN)/python -m mypy
	$(BIN)/lint-imports --no-logo

generate:  ## Write the sync side, the dashboard and docs/environments.md, and format
	@tools/bootstrap.sh dev
	$(BIN)/python -m ruff format --quiet
	$(BIN)/python tools/async_to_sync.py
	$(BIN)/python tools/dashboard.py
	$(BIN)/python tools/environments_page.py

clean:  ## Remove the environment, caches and build results
	rm -rf .venv build dist .coverage htmlcov
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .benchmarks
	find bench examples src tests tools -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true
