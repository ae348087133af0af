"""Private names of Dagster are used in one module only, and a missing one is reported by name."""

import ast
import importlib
import inspect
import re
from importlib.metadata import version
from pathlib import Path

import dagster as dg
import pytest

from shared.orchestration import dagster_internals, dagster_tables

ROOT = Path(__file__).parents[2]
MODULES = [Path(dagster_internals.__file__), Path(dagster_tables.__file__)]
ASSET_GRAPH = "dagster._core.definitions.assets.graph.asset_graph:AssetGraph"
NODES = "dagster._core.definitions.assets.graph.base_asset_graph:"
EVENTS = "dagster._core.events:"
INSTIGATION = "dagster._core.scheduler.instigation:"
STORAGE = "dagster._core.storage."
CHECK_RECORD = "dagster._core.storage.asset_check_execution_record:"

PRIVATE_NAMES = {
    # name: the function of dagster_internals.py that uses it
    "dagster:Definitions.resolve_asset_graph": "asset_graph",
    "dagster:Definitions.resolve_implicit_global_asset_job_def": "build_global_job",
    "dagster:AssetSelection.resolve": "select_assets",
    f"{ASSET_GRAPH}.get": "asset_node",
    f"{ASSET_GRAPH}.has": "asset_owners",
    f"{ASSET_GRAPH}.asset_nodes": "freshness",
    f"{ASSET_GRAPH}.toposorted_asset_keys": "materializable_keys",
    f"{ASSET_GRAPH}.materializable_asset_keys": "materializable_keys",
    f"{NODES}BaseAssetNode.partitions_def": "asset_node",
    f"{NODES}BaseAssetNode.backfill_policy": "asset_node",
    f"{NODES}BaseAssetNode.metadata": "asset_node",
    f"{NODES}BaseAssetNode.owners": "asset_owners",
    f"{NODES}BaseAssetNode.check_keys": "blocking_parents",
    f"{NODES}BaseAssetNode.freshness_policy_or_from_metadata": "freshness",
    "dagster._core.definitions.freshness:FreshnessState.FAIL": "freshness",
    "dagster._core.definitions.freshness:FreshnessState.PASS": "freshness",
    "dagster._core.definitions.freshness:FreshnessState.WARN": "freshness",
    "dagster_dbt.asset_utils:get_manifest_and_translator_from_dbt_assets": "declared_dbt",
    "dagster:RepositoryDefinition.asset_graph": "asset_owners",
    "dagster:DagsterInstance.get_records_for_run": "run_records",
    "dagster:DagsterInstance.event_log_storage": "last_check_metadata",
    "dagster._core.storage.event_log:EventLogStorage.get_asset_check_execution_history": "last_check_metadata",
    f"{CHECK_RECORD}AssetCheckExecutionRecord.evaluation": "last_check_metadata",
    f"{CHECK_RECORD}AssetCheckExecutionRecordStatus.SUCCEEDED": "last_check_metadata",
    f"{CHECK_RECORD}AssetCheckExecutionRecordStatus.FAILED": "last_check_metadata",
    f"{CHECK_RECORD}AssetCheckExecutionRecordStatus.PLANNED": "earlier_check_results",
    "dagster:DagsterInstance.get_freshness_state_records": "freshness",
    "dagster:DagsterInstance.get_materialized_partitions": "materialized_partitions",
    f"{EVENTS}DagsterEvent.step_failure_data": "failure_message",
    f"{EVENTS}DagsterEvent.job_failure_data": "failure_message",
    f"{EVENTS}DagsterEvent.step_success_data": "step_seconds",
    f"{EVENTS}DagsterEvent.asset_check_evaluation_data": "check_evaluation",
    "dagster._core.launcher:CheckRunHealthResult": "run_worker_health",
    "dagster._core.launcher:WorkerStatus.RUNNING": "run_worker_health",
    "dagster._core.launcher:WorkerStatus.NOT_FOUND": "run_worker_health",
    "dagster:DagsterRun.remote_job_origin": "is_run_of_location",
    "dagster:SensorEvaluationContext.code_location_origin": "is_run_of_location",
    "dagster._core.definitions.partitions.partitioned_schedule:UnresolvedPartitionedAssetScheduleDefinition": (
        "running_by_default"
    ),
    "dagster_shared.record:copy": "running_by_default",
    "dagster:AssetsDefinition.is_executable": "assets_of_steps",
    "dagster:AssetsDefinition.check_keys": "defined_keys",
    "dagster:AssetsDefinition.metadata_by_key": "declared_load",
    "dagster._record:replace": "replace_assets",
    "dagster:AssetExecutionContext.is_subset": "is_subset",
    "dagster:AssetExecutionContext.retry_number": "retry_number",
    "dagster:DagsterInstance.all_instigator_state": "instigators",
    "dagster:DagsterInstance.get_ticks": "ticks",
    "dagster:DagsterInstance.purge_ticks": "purge_ticks",
    "dagster:DagsterInstance.get_daemon_heartbeats": "daemon_heartbeats",
    "dagster:DagsterInstance.run_launcher": "is_process_gone",
    "dagster:DagsterInstance.run_storage": "runs_connection",
    "dagster:DagsterInstance.schedule_storage": "ticks_connection",
    "dagster:DagsterInstance.compute_log_manager": "delete_compute_logs",
    "dagster:DagsterInstance.storage_directory": "run_artifacts",
    f"{INSTIGATION}TickStatus": "ticks",
    f"{INSTIGATION}InstigatorTick": "ticks",
    f"{INSTIGATION}InstigatorState.is_running": "instigators",
    f"{INSTIGATION}InstigatorState.instigator_origin_id": "ticks",
    f"{INSTIGATION}InstigatorState.selector_id": "ticks",
    f"{INSTIGATION}InstigatorState.repository_selector": "location_of_instigator",
    f"{STORAGE}event_log:SqlEventLogStorage.index_connection": "events_connection",
    f"{STORAGE}event_log:SqliteEventLogStorage.is_run_sharded": "run_file",
    f"{STORAGE}event_log:SqliteEventLogStorage.path_for_shard": "run_file",
    f"{STORAGE}event_log.schema:SqlEventLogStorageTable": "EVENTS",
    f"{STORAGE}event_log.schema:AssetEventTagsTable": "EVENT_TAGS",
    f"{STORAGE}event_log.schema:AssetKeyTable": "ASSETS",
    f"{STORAGE}event_log.schema:AssetCheckExecutionsTable": "CHECK_RESULTS",
    f"{STORAGE}runs.schema:RunsTable": "RUNS",
    f"{STORAGE}runs.schema:RunTagsTable": "RUN_TAGS",
    f"{STORAGE}runs:SqlRunStorage.connect": "runs_connection",
    f"{STORAGE}schedules:SqlScheduleStorage.connect": "ticks_connection",
    f"{STORAGE}compute_log_manager:ComputeLogManager.delete_logs": "delete_compute_logs",
    f"{STORAGE}tags:REPOSITORY_LABEL_TAG": "",
    "dagster._serdes:deserialize_value": "stored_event",
    "dagster_dlt.constants:META_KEY_SOURCE": "declared_load",
    "dagster_dlt.constants:META_KEY_PIPELINE": "declared_load",
    "dagster_dlt.constants:META_KEY_TRANSLATOR": "declared_load",
    "dagster_dlt.dlt_event_iterator:DltEventIterator": "",
    "dagster_dlt.dlt_event_iterator:DltEventType": "",
    "dagster_dlt.translator:DltResourceTranslatorData": "",
    "dagster_celery.make_app:make_app": "build_celery_app",
    "dagster_celery.tasks:create_task": "build_celery_app",
}

AMBIGUOUS = {"get", "has", "resolve", "metadata", "owners", "partitions_def", "backfill_policy"}
AMBIGUOUS |= {"FAIL", "PASS", "WARN", "RUNNING", "NOT_FOUND"}
AMBIGUOUS |= {"connect", "is_running"}
# Our own functions have these names as well.
AMBIGUOUS |= {"purge_ticks"}
"""Attributes that other, public classes have as well."""

PRIVATE_ATTRIBUTES = {
    name.rpartition(".")[2] for name in PRIVATE_NAMES if "." in name.partition(":")[2]
} - AMBIGUOUS
PRIVATE_MODULES = {"dagster_celery.make_app", "dagster_celery.tasks", "dagster_dlt.constants"} | {
    "dagster_dlt.dlt_event_iterator",
    "dagster_dlt.translator",
}


@pytest.mark.parametrize("name", PRIVATE_NAMES)
def test_a_private_name_exists(name: str) -> None:
    module, _, path = name.partition(":")
    function = PRIVATE_NAMES[name] or path
    package = module.partition(".")[0]
    message = (
        f"{package} {version(package.replace('_', '-'))} changed {name}, "
        f"see {function} in {' or '.join(str(file.relative_to(ROOT)) for file in MODULES)}"
    )
    modules = (dagster_internals, dagster_tables)
    assert any(hasattr(own, function) for own in modules), f"remove {name} from this table"
    try:
        value = importlib.import_module(module)
        for part in path.split("."):
            fields = getattr(value, "__annotations__", {})
            value = fields[part] if part in fields else inspect.getattr_static(value, part)
    except (ImportError, AttributeError) as error:
        pytest.fail(f"{message} ({error})")


def private_names(source: str) -> list[str]:
    """Return the private names that a module's code uses, with their lines."""
    used = []
    for node in ast.walk(ast.parse(source)):
        modules = []
        if isinstance(node, ast.ImportFrom):
            modules = [node.module or ""]
        elif isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        used += [
            f"{node.lineno}: {module}"  # type: ignore[attr-defined]
            for module in modules
            if module in PRIVATE_MODULES
            or (module.startswith("dagster") and any(p[0] == "_" for p in module.split(".")))
        ]
        if isinstance(node, ast.Attribute):
            is_own = isinstance(node.value, ast.Name) and node.value.id in {"self", "cls", "os"}
            hidden = node.attr.startswith("_") and not node.attr.startswith("__")
            if node.attr in PRIVATE_ATTRIBUTES or (
                hidden and not is_own and node.attr not in {"_replace", "_asdict"}
            ):
                used.append(f"{node.lineno}: .{node.attr}")
    return used


def test_the_scan_recognizes_private_names() -> None:
    assert private_names("from dagster._core.events import X") == ["1: dagster._core.events"]
    assert private_names("import dagster._core.events") == ["1: dagster._core.events"]
    assert private_names("from dagster_celery.tasks import create_task") == [
        "1: dagster_celery.tasks"
    ]
    assert private_names("a.asset_graph") == ["1: .asset_graph"]
    assert private_names("a._pool") == ["1: ._pool"]
    assert private_names("self._pool; a.run; a._replace(b=1); import dagster as dg") == []
    for module in MODULES:
        assert private_names(module.read_text())


FOLDERS = ("shared/src/shared/orchestration", "shared/src/shared/cli", "projects")


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_other_module_uses_a_private_name(folder: str) -> None:
    files = [
        file
        for file in (ROOT / folder).rglob("*.py")
        if file not in MODULES
        and "tests" not in file.relative_to(ROOT).parts
        and "{" not in str(file)
    ]
    assert files
    used = {str(file.relative_to(ROOT)): private_names(file.read_text()) for file in files}
    assert {file: names for file, names in used.items() if names} == {}


def test_the_templates_use_no_private_name() -> None:
    templates = ROOT / "shared/src/shared/cli/templates"
    files = [file for file in templates.rglob("*.jinja") if ".py" in file.name]
    assert files
    for file in files:
        words = set(re.findall(r"\.(\w+)", file.read_text()))
        assert words & PRIVATE_ATTRIBUTES <= {"resolve_implicit_global_asset_job_def"}, file
        assert "dagster._" not in file.read_text()


def test_run_records_reads_all_pages(instance: dg.DagsterInstance) -> None:
    @dg.asset
    def numbers() -> None: ...

    result = dg.materialize([numbers], instance=instance)
    kind = dg.DagsterEventType.ASSET_MATERIALIZATION
    (record,) = dagster_internals.run_records(instance, result.run_id, kind)
    assert record.asset_materialization
    assert record.asset_materialization.asset_key == numbers.key
