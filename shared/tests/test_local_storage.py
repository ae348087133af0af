"""What a run costs in the storage of a local instance: a constant, and two events for each partition."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from sqlalchemy import Engine, event, select

from shared.orchestration.dagster_tables import (
    ASSETS,
    EVENT_TAGS,
    EVENTS,
    events_connection,
)

OURS = {"module": "shared.orchestration.local_storage", "class": "LocalStorage"}
KEYS = [f"p{number:03}" for number in range(100)]
ITEMS = dg.AssetKey("items")


@dg.multi_asset(
    specs=[dg.AssetSpec("items"), dg.AssetSpec("nested", deps=["items"])],
    partitions_def=dg.StaticPartitionsDefinition(KEYS),
    check_specs=[dg.AssetCheckSpec("no_gaps", asset="items")],
    backfill_policy=dg.BackfillPolicy.single_run(),  # ty: ignore
)
def load(context: dg.AssetExecutionContext) -> Iterator[Any]:
    if context.run.tags.get("fails"):
        raise ValueError("upstream is gone")
    context.add_asset_metadata({"rows": 7}, ITEMS, context.partition_keys[-1])
    passed = dg.AssetCheckResult(passed=True, check_name="no_gaps", asset_key=ITEMS)
    yield dg.MaterializeResult("items", metadata={"load": "1"}, check_results=[passed])
    yield dg.MaterializeResult("nested", metadata={"load": "1"})


def run(instance: dg.DagsterInstance, keys: Sequence[str], **tags: str) -> bool:
    ranged = {
        "dagster/asset_partition_range_start": keys[0],
        "dagster/asset_partition_range_end": keys[-1],
    }
    return dg.materialize(
        [load], instance=instance, tags={**ranged, **tags}, raise_on_error=False
    ).success


@contextmanager
def opened(
    folder: Path, storage: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> Iterator[dg.DagsterInstance]:
    monkeypatch.delenv("DAGSTER_EVENT_BATCH_SIZE", raising=False)
    folder.mkdir(exist_ok=True)
    base = {"base_dir": str(folder / "storage")}
    config = {"custom": {**OURS, "config": base}} if storage == OURS else {"sqlite": base}
    with dg.instance_for_test({"storage": config}, temp_dir=str(folder)) as instance:
        yield instance
    monkeypatch.delenv("DAGSTER_EVENT_BATCH_SIZE", raising=False)


@contextmanager
def counted() -> Iterator[dict[str, int]]:
    """Count what all connections of SQLAlchemy send."""
    counts = {"commits": 0, "statements": 0}

    def commit(_: Any) -> None:
        counts["commits"] += 1

    def statement(*_: Any) -> None:
        counts["statements"] += 1

    event.listen(Engine, "commit", commit)
    event.listen(Engine, "before_cursor_execute", statement)
    try:
        yield counts
    finally:
        event.remove(Engine, "commit", commit)
        event.remove(Engine, "before_cursor_execute", statement)


def known(instance: dg.DagsterInstance) -> dict[str, Any]:
    """What Dagster knows of the assets, and what its UI shows, without times and ids."""
    storage = instance.event_log_storage
    definition = dg.StaticPartitionsDefinition(KEYS)
    records = storage.get_asset_records([ITEMS, dg.AssetKey("nested")])
    fetched = instance.fetch_materializations(ITEMS, limit=200).records
    with events_connection(instance) as connection:
        tags = connection.execute(select(EVENT_TAGS.c.asset_key, EVENT_TAGS.c.key)).all()
        kinds = connection.execute(
            select(EVENTS.c.dagster_event_type, EVENTS.c.asset_key, EVENTS.c.partition)
        ).all()
        assets = connection.execute(select(ASSETS.c.asset_key)).all()
    return {
        "statuses": instance.get_status_by_partition(ITEMS, KEYS, definition),
        "materialized": instance.get_materialized_partitions(dg.AssetKey("nested")),
        "latest": {
            str(record.asset_entry.asset_key): (
                last.partition,
                {name: value.value for name, value in last.metadata.items()},
                record.asset_entry.last_run_id == record.asset_entry.last_materialization.run_id,
            )
            for record in records
            if record.asset_entry.last_materialization
            and (last := record.asset_entry.last_materialization.asset_materialization)
        },
        "metadata": {
            event.partition: {name: value.value for name, value in event.metadata.items()}
            for record in fetched
            if (event := record.asset_materialization)
        },
        "tags": sorted(map(tuple, tags)),
        "events": sorted(map(str, kinds)),
        "assets": sorted(map(str, assets)),
        "runs": [
            sorted(str(entry.dagster_event_type) for entry in instance.all_logs(each.run_id))
            for each in instance.get_runs()
        ],
        "checks": [
            record.status
            for record in storage.get_asset_check_execution_history(
                dg.AssetCheckKey(ITEMS, "no_gaps"), limit=9
            )
        ],
    }


def test_ten_times_as_many_partitions_need_no_more_statements_and_commits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored, costs = [], []
    for partitions in (1, 10, 100):
        with opened(tmp_path / str(partitions), OURS, monkeypatch) as instance:
            assert run(instance, KEYS[:1]) if partitions == 1 else True
            with counted() as counts:
                assert run(instance, KEYS[:partitions])
            with events_connection(instance) as connection:
                query = select(EVENTS.c.id).where(EVENTS.c.asset_key == ITEMS.to_string())
                stored.append(len(connection.execute(query).all()))
        costs.append(dict(counts))
    assert stored[1:] == [2 * 10, 2 * 100]  # planned, and materialized
    assert costs[1] == costs[2]


def test_dagster_knows_the_same_as_with_its_own_storage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    for storage in ({}, OURS):
        with opened(tmp_path / str(bool(storage)), storage, monkeypatch) as instance:
            assert run(instance, KEYS[:4])
            assert not run(instance, KEYS[2:6], fails="true")
            assert run(instance, KEYS[7:8])
            seen.append(known(instance))
    assert seen[0] == seen[1]
    statuses = seen[1]["statuses"]
    assert statuses["p005"].value == "FAILED"
    assert statuses["p001"].value == "MATERIALIZED"
    assert seen[1]["metadata"]["p003"] == {"load": "1", "rows": 7}


def test_an_instance_with_dagsters_own_storage_is_taken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(tmp_path, {}, monkeypatch) as instance:
        assert run(instance, KEYS[:3])
    with opened(tmp_path, OURS, monkeypatch) as instance:
        assert instance.get_materialized_partitions(ITEMS) == set(KEYS[:3])
        assert run(instance, KEYS[3:5])
    with opened(tmp_path, {}, monkeypatch) as instance:
        assert instance.get_materialized_partitions(ITEMS) == set(KEYS[:5])
