"""A run of dbt under the warehouse's lock: models become materializations, and tests become checks."""

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import dagster as dg
from dagster_dbt import DbtCliInvocation, DbtCliResource, DbtProject

from shared import warehouse
from shared.orchestration.column_lineage import with_upstream_columns
from shared.orchestration.dagster_internals import declared_dbt
from shared.orchestration.dbt.connection import connection_variables, environment
from shared.orchestration.dbt.names import RunTables, declared_tables, node, tables_of_run
from shared.orchestration.dbt.project import EXECUTABLE, QUIET
from shared.orchestration.dbt_process import PARENT_VARIABLE
from shared.orchestration.failures import as_dagster_failure
from shared.orchestration.resource import FULL_REFRESH
from shared.warehouse.working_dirs import create_working_dir

PARSED = "partial_parse.msgpack"
"""dbt's own file of a parsed project. dbt parses again what has changed since."""


class ModelError(Exception):
    """dbt could not build a model, or a unit test failed; the message is dbt's."""


def build_models(
    context: dg.AssetExecutionContext,
    project: DbtProject,
    *,
    variables: Mapping[str, object] | None = None,
) -> Iterator[Any]:
    """Build the models of a run and run their tests, and yield what dagster-dbt's `stream()` yields.

    Each model's materialization has its columns, their lineage and, of a table, its number of rows. Loads
    wait while dbt writes, and the run waits for loads. The run tag `etl/full_refresh: true` builds
    incremental models from scratch.

    Args:
        context: of the `@dbt_assets` that runs.
        project: its project.
        variables: variables of dbt for this run, such as the bounds of its partitions.

    Raises:
        Failure: a table that a model reads is not loaded, dbt cannot build a model, or a unit test failed.
    """
    with as_dagster_failure():
        manifest, translator = declared_dbt(context)
        built = {
            unique_id
            for unique_id in declared_tables(manifest)
            if translator.get_asset_key(node(manifest, unique_id)) in context.selected_asset_keys
        }
        tables = tables_of_run(manifest, translator, built)
        connection = connection_variables()
        arguments = ["build", "--vars", json.dumps({**tables.variables, **(variables or {})})]
        if context.run.tags.get(FULL_REFRESH) == "true":
            arguments.append("--full-refresh")
        folder = Path(create_working_dir(context.run.run_id))
        parsed = folder.with_name(f"dbt-{project.name}.msgpack")
        with suppress(FileNotFoundError):  # what dbt parsed in the last run saves seconds
            shutil.copy(parsed, folder / PARSED)
        with warehouse.write_lock(tables.datasets, context.log.info):
            invocation = _start(context, project, arguments, connection, folder)
            try:
                yield from _events(context, invocation, tables)
            finally:
                _close(invocation)
        with suppress(FileNotFoundError):  # dbt could not parse the project
            (folder / PARSED).replace(parsed)
        _require_success(invocation, folder)
        shutil.rmtree(folder, ignore_errors=True)


def _start(
    context: dg.AssetExecutionContext,
    project: DbtProject,
    arguments: Sequence[str],
    connection: Mapping[str, str],
    folder: Path,
) -> DbtCliInvocation:
    """Start dbt for the selected models and tests."""
    dbt = DbtCliResource(project_dir=project, dbt_executable=EXECUTABLE)
    parent = {PARENT_VARIABLE: str(os.getpid())}
    with environment({**QUIET, **connection, **parent}):
        return dbt.cli(
            arguments,
            context=context.op_execution_context,
            target_path=folder,
            raise_on_error=False,
        )


def _events(
    context: dg.AssetExecutionContext, invocation: DbtCliInvocation, tables: RunTables
) -> Iterator[Any]:
    """Yield the events of dbt, with what the warehouse knows about each table."""
    invocation.manifest = tables.stored_manifest()
    for event in invocation.stream().fetch_row_counts().fetch_column_metadata():
        if not isinstance(event, dg.Output):
            yield event
            continue
        spec = context.assets_def.specs_by_key[context.asset_key_for_output(event.output_name)]
        table = {"dagster/table_name": f"{tables.database}.{spec.metadata['dagster/table_name']}"}
        yield event.with_metadata(with_upstream_columns({**event.metadata, **table}))


def _close(invocation: DbtCliInvocation) -> None:
    """End dbt if it still runs, and close the connection that read metadata, before the lock is free."""
    if invocation.process.poll() is None:
        invocation.process.terminate()
        invocation.process.wait()
    if invocation.adapter is not None:
        invocation.adapter.cleanup_connections()
        if close_all := getattr(invocation.adapter.connections, "close_all_connections", None):
            close_all()  # the adapter of DuckDB keeps its file open otherwise


def _require_success(invocation: DbtCliInvocation, folder: Path) -> None:
    """Check that dbt built the models; a test that failed is a check, which Dagster reports.

    Raises:
        ModelError: it did not.
    """
    if invocation.process.returncode == 0:
        return
    if not (folder / "run_results.json").exists():
        raise ModelError(" ".join(str(invocation.get_error()).split()))
    results = invocation.get_artifact("run_results.json")["results"]
    failures = [
        f"{result['unique_id']}: {' '.join(str(result['message']).split())}"
        for result in results
        if result["status"] in ("error", "runtime error")
        or (result["status"] == "fail" and result["unique_id"].startswith("unit_test."))
    ]
    if failures:
        raise ModelError("; ".join(failures))
