"""The asset check that watches the replication slot of a table with the mode `changes`."""

import dagster as dg

from shared.orchestration.failures import as_dagster_failure
from shared.sources.database.connection import database_configuration, open_database
from shared.sources.database.table import Table
from shared.warehouse import PipelineSpec, stored_dataset


def build_slot_lag_check(
    asset: dg.AssetKey,
    table: Table,
    source_name: str,
    pipeline: PipelineSpec,
    max_bytes: int = 1 << 30,
) -> dg.AssetChecksDefinition:
    """Return the check that the server need not keep much of its log for a table.

    It warns if more than `max_bytes` were logged since the changes that the last load has, and fails if the
    slot is lost or missing. A slot that nobody reads fills the disk of the server.

    Args:
        asset: the table's key, `[dataset, table]`.
        table: the table, with the mode `changes`.
        source_name: the name of the source.
        pipeline: the pipeline that loads it.
        max_bytes: how much the server may keep.

    Raises:
        DagsterInvalidDefinitionError: the table has another mode, and so no slot.
    """
    if table.mode != "changes":
        raise dg.DagsterInvalidDefinitionError(
            f"{table.full_name} has the mode {table.mode}, which has no replication slot."
        )

    @dg.asset_check(
        asset=asset,
        name="slot_is_read",
        description=f"The server keeps less than {max_bytes >> 20:,} MB of its log for the table.",
    )
    def slot_is_read() -> dg.AssetCheckResult:
        with as_dagster_failure():
            return _evaluate(table, source_name, pipeline, max_bytes)

    return slot_is_read


def _evaluate(
    table: Table, source_name: str, pipeline: PipelineSpec, max_bytes: int
) -> dg.AssetCheckResult:
    from shared.sources.database.postgres.changes import slot_lag, slot_name  # needs a driver
    from shared.sources.database.postgres.snapshot import PostgresDatabase

    with open_database(database_configuration(source_name)) as database:
        assert isinstance(database, PostgresDatabase)  # no other database has the mode
        dataset = stored_dataset(pipeline.dataset_name)
        names = (pipeline.pipeline_name, dataset, database.name, table.full_name)
        slot = slot_name(*names)
        lag = slot_lag(database, slot)
    if lag is None:
        return dg.AssetCheckResult(
            passed=False,
            description=f"There is no replication slot {slot}: load {table.full_name} once, or, if it was "
            "loaded, run it with the tag etl/full_refresh.",
        )
    is_lost = lag.wal_status == "lost"
    advice = (
        "Run the table with the tag etl/full_refresh" if is_lost else "Load the table more often"
    )
    passed = not is_lost and lag.bytes_behind <= max_bytes
    text = f"{lag.bytes_behind >> 20:,} MB of the log are kept for {table.full_name}"
    return dg.AssetCheckResult(
        passed=passed,
        severity=dg.AssetCheckSeverity.ERROR if is_lost else dg.AssetCheckSeverity.WARN,
        description=text
        if passed
        else f"{text}, and the slot {slot} is {lag.wal_status}. {advice}.",
        metadata={
            "slot": slot,
            "bytes_behind": lag.bytes_behind,
            "wal_status": lag.wal_status,
            **({} if lag.bytes_left is None else {"bytes_left": lag.bytes_left}),
        },
    )
