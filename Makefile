# uv does the work; where the machine has none it is put into .uv/ here, and nothing else changes.
UV := $(or $(shell command -v uv),.uv/bin/uv)
export UV_COMPILE_BYTECODE := 1

run: $(UV) ## install what is needed and load the bundled sample through every pipeline
	$(UV) sync --quiet --locked
	$(UV) run --no-sync etl run

test: $(UV) ## run every test
	$(UV) sync --quiet --locked
	$(UV) run --no-sync pytest

torture: $(UV) ## kill, starve and race the loads, at length; ends with a table
	$(UV) sync --quiet --locked
	$(UV) run --no-sync pytest tests/torture --trials 100

bench: $(UV) ## time loads against DuckDB alone and against others; takes an hour
	$(UV) sync --quiet --locked
	UV=$(UV) $(UV) run --no-sync python benchmarks/run.py

dev: $(UV) ## open the UI on http://localhost:3000
	$(UV) sync --quiet --locked
	DAGSTER_HOME=$(CURDIR) $(UV) run --no-sync dagster dev -w workspace.yaml

lint: $(UV) ## ruff, format and types
	$(UV) sync --quiet --locked
	$(UV) run --no-sync ruff check
	$(UV) run --no-sync ruff format --check
	$(UV) run --no-sync mypy

.uv/bin/uv:
	python3 -m venv .uv
	.uv/bin/pip install --quiet 'uv>=0.7'
	@echo 'uv is in .uv/bin; for the commands of the README: export PATH="$$PWD/.uv/bin:$$PATH"'

.PHONY: run test torture bench dev lint
