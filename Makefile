# Each command runs through uv. If uv is not installed, it is installed into .uv/ in this folder.
UV := $(or $(shell command -v uv),.uv/bin/uv)
export UV_COMPILE_BYTECODE := 1
# Otherwise each process of the tests and of `etl run` compiles the workspace's modules again.
unexport PYTHONDONTWRITEBYTECODE

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

run: $(UV) ## install the dependencies and load the bundled sample data through every pipeline
	$(UV) sync --quiet --locked
	$(UV) run --no-sync etl run

test: $(UV) ## run the tests that end within minutes
	$(UV) sync --quiet --locked
	$(UV) run --no-sync pytest -m "not slow"

test-all: $(UV) ## run the slow tests: browser, containers, documents, other environments, stress
	$(UV) sync --quiet --locked
	$(UV) run --no-sync pytest -m slow

stress: $(UV) ## stress tests: kill loads and run many of them concurrently; prints a table of the results
	$(UV) sync --quiet --locked
	$(UV) run --no-sync pytest tests/stress --trials 100

bench: $(UV) ## measure loading speed and compare it with DuckDB and other tools; takes about an hour
	$(UV) sync --quiet --locked
	UV=$(UV) $(UV) run --no-sync python benchmarks/run.py

dev: $(UV) ## start Dagster with its UI on http://localhost:3000
	$(UV) sync --quiet --locked
	DAGSTER_HOME=$(CURDIR) $(UV) run --no-sync dagster dev -w workspace.yaml

docs: $(UV) ## build the web page of the documents into site/
	$(UV) sync --quiet --locked
	NO_MKDOCS_2_WARNING=1 $(UV) run --no-sync mkdocs build --strict
	@echo 'Open site/index.html, or run: uv run mkdocs serve'

lint: $(UV) ## check code style, formatting and types (ruff, mypy)
	$(UV) sync --quiet --locked
	$(UV) run --no-sync ruff check
	$(UV) run --no-sync ruff format --check
	$(UV) run --no-sync mypy

.uv/bin/uv:
	python3 -m venv .uv
	.uv/bin/pip install --quiet 'uv>=0.7'
	@echo 'uv is in .uv/bin; for the commands of the README: export PATH="$$PWD/.uv/bin:$$PATH"'

.PHONY: help run test test-all stress bench dev docs lint
