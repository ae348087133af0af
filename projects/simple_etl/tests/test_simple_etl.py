"""simple_etl loads Alice and Bob once."""

from pathlib import Path

import dagster as dg
import pytest

from shared import warehouse
from simple_etl.definitions import defs


def load(instance: dg.DagsterInstance) -> dg.ExecuteInProcessResult:
    job = defs.resolve_implicit_global_asset_job_def()
    return job.execute_in_process(instance=instance)


@pytest.mark.usefixtures("tmp_warehouse")
def test_two_people_are_loaded_and_a_rerun_has_the_same_rows(instance: dg.DagsterInstance) -> None:
    for _ in range(3):
        assert load(instance).success
        rows = warehouse.query("SELECT id, name FROM simple.load_dict ORDER BY id")
        assert rows == [{"id": 1, "name": "Alice"}, {"id": 2, "name": "Bob"}]


def test_the_asset_is_named_after_its_table(
    tmp_warehouse: Path, instance: dg.DagsterInstance
) -> None:
    (event,) = load(instance).get_asset_materialization_events()
    assert event.asset_key == dg.AssetKey(["simple", "load_dict"])
    assert (
        event.materialization.metadata["dagster/table_name"].value == "warehouse.simple.load_dict"
    )
    (spec,) = defs.resolve_all_asset_specs()
    assert spec.group_name == "simple"
    assert spec.owners == ["team:simple"]
    assert spec.kinds == {"dlt", "duckdb"}
    assert not list(spec.deps)
