"""A check warns of a replication slot that makes the server keep its log."""

from collections.abc import Iterator
from typing import Any

import dagster as dg
import psycopg2
import pytest

from shared import warehouse
from shared.orchestration.replication_slots import build_slot_lag_check
from shared.sources.database import Table, database_source
from shared.testing.postgres_server import PostgresServer

SPEC = warehouse.pipeline("shop_pipeline", "shop")
ORDERS = Table("orders", mode="changes", key="id")


@pytest.fixture
def connection(
    warehouse_server: PostgresServer, monkeypatch: pytest.MonkeyPatch, tmp_warehouse: Any
) -> Iterator[Any]:
    """Yield a connection to the database of the source, with a table."""
    url = warehouse_server.database().replace("+psycopg2", "")
    monkeypatch.setenv("SOURCES__SHOP__CREDENTIALS", url)
    connected = psycopg2.connect(url)
    connected.autocommit = True
    with connected.cursor() as cursor:
        cursor.execute("CREATE TABLE orders (id int PRIMARY KEY, name text)")
        yield connected
        cursor.execute(
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots "
            "WHERE database = current_database()"
        )
    connected.close()


def evaluate(max_bytes: int) -> Any:
    check = build_slot_lag_check(dg.AssetKey(["shop", "orders"]), ORDERS, "shop", SPEC, max_bytes)
    asset = dg.AssetSpec(dg.AssetKey(["shop", "orders"]))
    defs = dg.Definitions(assets=[asset], asset_checks=[check])
    job = defs.resolve_implicit_global_asset_job_def()
    (evaluation,) = job.execute_in_process().get_asset_check_evaluations()
    return evaluation


def test_a_slot_that_is_not_read_is_a_warning(connection: Any) -> None:
    assert "There is no replication slot" in evaluate(0).description
    warehouse.load(warehouse.plan_load(SPEC, database_source([ORDERS], name="shop")))
    assert evaluate(1 << 30).passed
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO orders SELECT n, 'x' FROM generate_series(1, 100) AS n")
    late = evaluate(100)
    assert not late.passed
    assert late.severity == dg.AssetCheckSeverity.WARN
    assert "Load the table more often" in late.description


def test_only_the_mode_changes_has_a_slot() -> None:
    with pytest.raises(dg.DagsterInvalidDefinitionError, match="has no replication slot"):
        build_slot_lag_check(dg.AssetKey(["shop", "orders"]), Table("orders"), "shop", SPEC)
