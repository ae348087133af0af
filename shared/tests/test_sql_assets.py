"""A `.sql` file is an asset: its table has exactly the rows of its SELECT, whatever happens meanwhile."""

import multiprocessing
import signal
import warnings
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from types import ModuleType
from typing import Any

import dagster as dg
import dlt
import psycopg2
import pytest
from dagster_dlt import dlt_assets
from dlt.extract import DltResource, DltSource

from shared import warehouse
from shared.orchestration.asset_references import missing_assets, upstream_assets
from shared.orchestration.checks import build_unique_rows_check
from shared.orchestration.dataset_owners import find_conflicts, table_owners
from shared.orchestration.definitions import build_definitions
from shared.orchestration.sql_assets import build_sql_assets
from shared.orchestration.translator import WarehouseTranslator
from shared.testing.killed_loads import in_forked_process, kill
from shared.warehouse.errors import (
    LoadPlanError,
    MissingTableError,
    SelectError,
)
from shared.warehouse.lineage import ColumnSource, column_lineage
from shared.warehouse.locks.file import FileLockManager
from shared.warehouse.locks.postgres import PostgresLockManager
from shared.warehouse.select import parse_select
from shared.warehouse.transform import ReplacedTable, replace_table

ORDERS = warehouse.pipeline("shop_pipeline", "shop")
ORDERS_KEY = dg.AssetKey(["shop", "orders"])

PER_CUSTOMER = """
-- Orders of each customer.
-- One row per customer.
WITH paid AS (SELECT * FROM shop.orders WHERE amount > 0)
SELECT
    customer AS buyer,
    'Größe "x"' AS "Größe ""x"" m", -- A text
    -- How many orders.
    count(*) AS orders,
    sum(paid.amount)::DOUBLE AS total
FROM paid
GROUP BY customer;
"""


def load(rows: list[dict[str, Any]]) -> None:
    orders: DltResource = dlt.resource(rows, name="orders", write_disposition="replace")
    source = DltSource(dlt.Schema("shop"), "shop", [orders])
    warehouse.load(warehouse.plan_load(ORDERS, source))


ROWS = [
    {"id": 1, "customer": "Ann", "amount": 2.5},
    {"id": 2, "customer": "Ann", "amount": 1.5},
    {"id": 3, "customer": "Bob", "amount": 3.0},
]


def replace(sql: str, table: str = "report", **options: Any) -> ReplacedTable:
    return replace_table("marts", table, parse_select(sql, f"{table}.sql"), **options)


def rows(sql: str = "SELECT * FROM marts.report ORDER BY 1") -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in warehouse.query(sql)]


def folder(path: Path, **files: str) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    for name, sql in files.items():
        (path / f"{name}.sql").write_text(sql, encoding="utf-8")
    return path


def test_a_run_replaces_the_table_and_shows_its_columns_and_their_lineage(
    any_warehouse: str, tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    load(ROWS)
    sql = folder(
        tmp_path / "sql",
        per_customer=PER_CUSTOMER,
        best="SELECT buyer AS name, total FROM marts.per_customer ORDER BY total DESC LIMIT 1",
        nobody="SELECT id FROM shop.orders WHERE customer = 'Nobody'",
    )
    assets = build_sql_assets(sql, "marts", "team:mart")
    key = dg.AssetKey(["marts", "per_customer"])
    check = build_unique_rows_check(key, ["buyer"])
    defs = dg.Definitions(assets, asset_checks=[check])
    job = defs.resolve_implicit_global_asset_job_def()
    for _ in range(2):
        result = job.execute_in_process(instance=instance)
        per_customer = rows("SELECT * FROM marts.per_customer ORDER BY 1")
        assert per_customer == [("Ann", 'Größe "x"', 2, 4.0), ("Bob", 'Größe "x"', 1, 3.0)]
        assert rows("SELECT * FROM marts.best") == [("Ann", 4.0)]
        assert rows("SELECT * FROM marts.nobody") == []
        assert [check.passed for check in result.get_asset_check_evaluations()] == [True]

    of_asset = {
        event.asset_key: event.materialization.metadata
        for event in result.get_asset_materialization_events()
    }
    shown = of_asset[key]
    assert shown["dagster/row_count"].value == 2
    assert str(shown["dagster/table_name"].value).endswith(".marts.per_customer")
    preview = shown["preview"]
    assert isinstance(preview, dg.TableMetadataValue)
    assert {record.data["buyer"] for record in preview.records} == {"Ann", "Bob"}
    columns = {column.name: column for column in shown["dagster/column_schema"].value.columns}  # type: ignore[union-attr]
    assert list(columns) == ["buyer", 'Größe "x" m', "orders", "total"]
    assert columns["orders"].description == "How many orders."
    assert "- `buyer`: `shop/orders.customer`" in str(shown["upstream_columns"].value)
    lineage = shown["dagster/column_lineage"].value.deps_by_column  # type: ignore[union-attr]
    assert lineage["buyer"] == [dg.TableColumnDep(ORDERS_KEY, "customer")]
    assert lineage["total"] == [dg.TableColumnDep(ORDERS_KEY, "amount")]
    assert lineage["orders"] == lineage['Größe "x" m'] == []
    of_best = of_asset[dg.AssetKey(["marts", "best"])]["dagster/column_lineage"].value
    assert of_best.deps_by_column["name"] == [dg.TableColumnDep(key, "buyer")]  # type: ignore[union-attr]

    spec = next(asset for asset in assets if asset.key == key).get_asset_spec()
    assert spec.description == "Orders of each customer. One row per customer."
    assert spec.kinds == {"sql", any_warehouse}
    declared = spec.metadata["dagster/column_schema"].columns
    assert [column.name for column in declared] == list(columns)
    assert (spec.group_name, spec.owners) == ("marts", ["team:mart"])
    assert [dep.asset_key for dep in spec.deps] == [ORDERS_KEY]
    assert spec.code_version


def test_an_error_leaves_the_table_and_names_what_to_do(any_warehouse: str) -> None:
    load(ROWS)
    replace("SELECT id, customer FROM shop.orders")
    before = rows()
    with pytest.raises(MissingTableError, match=r"uv run etl run shop/customers$") as missing:
        replace("SELECT id FROM shop.customers")
    assert missing.value.permanent
    for sql, reason in {
        "SELECT buyer FROM shop.orders": "marts.report is unchanged.*column.*buyer",
        "SELECT id::INT AS id, customer::INT AS n FROM shop.orders": "Ann",
    }.items():
        with pytest.raises(SelectError, match=reason):
            replace(sql)
    with pytest.raises(LoadPlanError, match=r"shop\.orders is loaded by a pipeline"):
        replace_table("shop", "orders", parse_select("SELECT 1 AS id", "orders.sql"))
    with pytest.raises(LoadPlanError, match=r"reads marts\.report itself"):
        replace("SELECT id FROM Marts.Report")
    assert rows() == before
    assert rows("SELECT count(*) AS n FROM shop.orders") == [(3,)]


def test_a_kill_before_the_commit_leaves_the_old_table(
    any_warehouse: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(ROWS)
    replace("SELECT id FROM shop.orders")

    def killed() -> None:
        # The last step before the commit.
        for manager in (FileLockManager, PostgresLockManager):
            monkeypatch.setattr(manager, "verify_held", lambda _: kill())
        replace("SELECT id + 10 AS id, customer FROM shop.orders")

    assert in_forked_process(killed) == -signal.SIGKILL
    assert rows() == [(1,), (2,), (3,)]
    replace("SELECT id + 10 AS id FROM shop.orders")
    assert rows() == [(11,), (12,), (13,)]


def test_each_replacement_sees_whole_loads_that_run_at_the_same_time(any_warehouse: str) -> None:
    def load_versions(*versions: int) -> None:
        for version in versions:
            load([{"id": number, "version": version} for number in range(50)])

    load_versions(0)
    loads = multiprocessing.get_context("fork").Process(target=load_versions, args=(1, 2, 3))
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        loads.start()  # nothing else runs yet
    seen: list[tuple[Any, ...]] = []
    for _ in range(4):
        made = replace(
            "SELECT count(*) AS n, min(version) AS first, max(version) AS last FROM shop.orders",
            preview_rows=1,
        )
        seen += [tuple(row.values()) for row in made.preview]
    loads.join()
    assert loads.exitcode == 0
    assert {(n, last - first) for n, first, last in seen} == {(50, 0)}
    assert rows("SELECT count(*) AS n, min(version) AS a FROM shop.orders") == [(50, 3)]


def test_a_preview_reads_what_production_has_and_writes_only_its_own_tables(
    any_warehouse: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ETL_ENVIRONMENT", "production")
    load(ROWS)
    monkeypatch.setenv("ETL_ENVIRONMENT", "pr-123")
    made = replace("SELECT shop.orders.id, customer FROM shop.orders")
    assert made.lineage["id"].sources == (ColumnSource("shop", "orders", "id"),)
    assert len(rows()) == 3
    replace("SELECT id FROM marts.report", "second")
    monkeypatch.setenv("ETL_ENVIRONMENT", "production")
    assert warehouse.find_tables([("marts", "report")]) == {("marts", "report"): None}
    assert len(warehouse.drop_environment("pr-123")) == 1
    assert warehouse.list_environments() == []


def test_postgres_keeps_views_and_grants_or_names_the_view(postgres_warehouse: str) -> None:
    load(ROWS)
    replace("SELECT id, customer FROM shop.orders")
    with closing(psycopg2.connect(postgres_warehouse)) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        cursor.execute("CREATE VIEW marts.ids AS SELECT id FROM marts.report")
        cursor.execute("GRANT SELECT ON marts.report TO PUBLIC")
        cursor.execute("CREATE INDEX of_ids ON marts.report (id)")
        replace("SELECT id, amount::TEXT AS customer, 7 AS added FROM shop.orders WHERE id > 1")
        assert rows("SELECT * FROM marts.ids ORDER BY 1") == [(2,), (3,)]
        assert rows()[0] == (2, "1.5", 7)
        cursor.execute(
            "SELECT has_table_privilege('public', 'marts.report', 'SELECT'), to_regclass('marts.of_ids')"
        )
        assert cursor.fetchall() == [(True, "marts.of_ids")]
        with pytest.raises(SelectError, match="view ids depends on column id"):
            replace("SELECT customer FROM shop.orders")
        assert len(rows()) == 2

        # A reader with an older snapshot sees the old rows.
        cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM shop.orders")
        replace("SELECT id, 'x' AS customer, 7 AS added FROM shop.orders WHERE id > 2")
        cursor.execute("SELECT count(*) FROM marts.report")
        assert cursor.fetchall() == [(2,)]
        cursor.execute("COMMIT; SELECT count(*) FROM marts.report")
        assert cursor.fetchall() == [(1,)]


@pytest.mark.usefixtures("tmp_warehouse")
def test_duckdb_keeps_views_and_copied_columns_keep_their_descriptions() -> None:
    load(ROWS)
    with warehouse.exclusive_connection() as connection:
        connection.execute("COMMENT ON COLUMN shop.orders.customer IS 'Who''s buying.'")
    replace("-- All buyers\nSELECT customer AS buyer, upper(customer) AS loud FROM shop.orders")
    with warehouse.exclusive_connection() as connection:
        connection.execute("CREATE VIEW marts.buyers AS SELECT buyer FROM marts.report")
    made = replace(
        "-- All buyers\nSELECT customer AS buyer, upper(customer) AS loud FROM shop.orders"
    )
    assert [column.description for column in made.columns] == ["Who's buying.", ""]
    assert len(rows("SELECT * FROM marts.buyers")) == 3
    stored = "SELECT comment FROM duckdb_{} WHERE schema_name = 'marts' AND comment IS NOT NULL"
    with warehouse.read_only_connection() as connection:
        assert connection.execute(stored.format("tables()")).fetchall() == [("All buyers",)]
        assert connection.execute(stored.format("columns()")).fetchall()[0] == ("Who's buying.",)


@pytest.mark.usefixtures("tmp_warehouse")
def test_other_warehouses_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WAREHOUSE_TYPE", "filesystem")
    with pytest.raises(LoadPlanError, match="SQL assets need duckdb or postgres"):
        replace("SELECT 1 AS id")


@pytest.mark.parametrize(
    ("sql", "reason"),
    [
        ("SELECT a\nFROM a.b WHERE", r"\.sql, line 2, column \d+, near "),
        ("SELECT 'a AS b FROM c.d", r"\.sql: "),
        ("SELECT 1 AS a; SELECT 2 AS a", "has 2 statements"),
        ("", "has 0 statements"),
        ("-- only a comment", "has 0 statements"),
        ("CREATE TABLE a.b AS SELECT 1 AS a", "has CREATE, and must be one SELECT"),
        ("DELETE FROM a.b", "has DELETE"),
        ("WITH x AS (INSERT INTO a.b SELECT 1) SELECT 1 AS a", "has INSERT"),
        ("SELECT a INTO b FROM a.c", "has INTO"),
        ("COPY a.b TO 'x.csv'", "has COPY"),
        ("SELECT\n {{ ref('x') }} AS a", "line 2, column 2: templates"),
        ("{% if x %} SELECT 1 AS a", "line 1, column 2: templates"),
        ("SELECT ? AS a", r"\? is a parameter"),
        ("SELECT $day AS a", r"\$ is a parameter"),
        ("SELECT a\nFROM b", r"line 2: the table b must be named dataset\.table"),
        ("SELECT a FROM x.a.b", r"the table x\.a\.b must be named"),
        ("FROM 'orders.csv'", "must be named dataset"),
        ("SELECT a FROM read_csv('orders.csv')", "reads READ_CSV.*with a pipeline"),
        ("SELECT count(*) FROM a.b", r"column 1, COUNT\(\*\), has no name"),
        ("SELECT a, b AS A FROM a.b", "column 2, b AS A, is a second A"),
        (f"SELECT a AS {'ä' * 32} FROM a.b", "column 1, ä+, is longer than the 63 bytes"),
        ("SELECT table_name FROM Information_Schema.tables", "which engines fill differently"),
    ],
)
def test_a_file_that_is_not_one_select_is_refused_where_it_is_wrong(
    sql: str, reason: str, tmp_path: Path
) -> None:
    with pytest.raises(dg.DagsterInvalidDefinitionError, match=reason) as error:
        build_sql_assets(folder(tmp_path, wrong=sql), "marts", "team:mart")
    assert "wrong.sql" in str(error.value)


def test_a_folder_without_files_and_a_file_without_the_name_of_a_table_are_refused(
    tmp_path: Path,
) -> None:
    with pytest.raises(dg.DagsterInvalidDefinitionError, match=r"has no \.sql file"):
        build_sql_assets(tmp_path / "none", "marts", "team:mart")
    for name in ("per-week", "Week", "größe"):
        sql = folder(tmp_path / name, **{name: "SELECT 1 AS a"})
        with pytest.raises(dg.DagsterInvalidDefinitionError, match=rf"{name}\.sql: the table has"):
            build_sql_assets(sql, "marts", "team:mart")
    (tmp_path / "latin.sql").write_bytes("SELECT 'größe' AS a".encode("latin-1"))
    with pytest.raises(dg.DagsterInvalidDefinitionError, match=r"latin\.sql: .*utf-8"):
        build_sql_assets(tmp_path, "marts", "team:mart")


def test_what_dagster_cannot_name_is_read_and_is_no_dependency(tmp_path: Path) -> None:
    sql = folder(
        tmp_path,
        a='SELECT 1 AS a FROM shop._dlt_loads, Shop.Orders, shop."Größe ""x", range(3), marts.b',
        b="WITH b AS (SELECT 1 AS b) SELECT b, '{{' AS c, '? ; $x' AS d FROM b; -- ; the end",
    )
    first, second = build_sql_assets(sql, "marts", "team:mart")
    assert first.dependency_keys == {ORDERS_KEY, dg.AssetKey(["marts", "b"])}
    assert second.dependency_keys == set()


COLUMNS = {("shop", "orders"): ["id", "customer", "amount"], ("crm", "people"): ["id", "name"]}


@pytest.mark.parametrize(
    ("sql", "lineage"),
    [
        ("SELECT * FROM crm.people", {"id": "=p.id", "name": "=p.name"}),
        ("SELECT * EXCLUDE (id) FROM crm.people", {"name": "=p.name"}),
        ("SELECT o.* FROM shop.orders AS o", {k: f"=o.{k}" for k in ("id", "customer", "amount")}),
        (
            """WITH a AS (SELECT id AS i, amount * 2 AS twice FROM shop.orders), b AS (SELECT * FROM a)
            SELECT i AS "Ä b", twice, name FROM b JOIN crm.people AS p ON p.id = i""",
            {"ä b": "=o.id", "twice": "o.amount", "name": "=p.name"},
        ),
        (
            "SELECT id FROM shop.orders UNION ALL SELECT id FROM crm.people",
            {"id": "p.id o.id"},
        ),
        ("SELECT (SELECT max(name) FROM crm.people) AS m, 1 AS one", {"m": "p.name", "one": ""}),
        (
            "SELECT CASE WHEN amount > 0 THEN customer END AS c, count(*) AS n FROM Shop.Orders GROUP BY 1",
            {"c": "o.amount o.customer", "n": ""},
        ),
        (
            "SELECT row_number() OVER (PARTITION BY customer ORDER BY amount) AS rn FROM shop.orders",
            {"rn": "o.amount o.customer"},
        ),
        ("FROM shop.orders SELECT coalesce(id, 0) AS id", {"id": "o.id"}),
    ],
)
def test_the_lineage_of_a_column_goes_to_the_tables(sql: str, lineage: Mapping[str, str]) -> None:
    computed = column_lineage(parse_select(sql, "x.sql"), COLUMNS)
    assert lineage == {
        column: ("=" if of.is_copy else "")
        + " ".join(f"{source.table[0]}.{source.column}" for source in of.sources)
        for column, of in computed.items()
    }


@pytest.mark.usefixtures("tmp_warehouse")
def test_a_lineage_that_cannot_be_computed_is_a_warning() -> None:
    load(ROWS)
    lines: list[str] = []
    made = replace("SELECT COLUMNS('^id$'), customer FROM shop.orders", log=lines.append)
    assert [column.name for column in made.columns] == ["id", "customer"]
    assert "id" not in made.lineage


def test_a_table_that_a_pipeline_loads_too_is_refused(tmp_path: Path) -> None:
    @dlt_assets(
        dlt_source=DltSource(dlt.Schema("shop"), "shop", [dlt.resource(ROWS, name="orders")]),
        dlt_pipeline=ORDERS,
        dagster_dlt_translator=WarehouseTranslator("team:shop"),
        name="shop",
    )
    def loaded(context: dg.AssetExecutionContext) -> None: ...

    sql = build_sql_assets(
        folder(tmp_path, orders="SELECT 1 AS a", b="SELECT 1 AS a"), "shop", "team:a"
    )
    same = build_sql_assets(tmp_path, "shop", "team:b")
    owners = table_owners("shop_etl", [loaded, *sql])
    (conflict,) = find_conflicts(owners)
    assert "shop.orders is loaded by shop_etl.shop" in conflict
    assert "and by shop_etl.orders.sql" in conflict
    assert len(find_conflicts([*owners, *table_owners("other_etl", same)])) == 4


def test_a_dependency_that_no_location_has_is_named(tmp_path: Path) -> None:
    sql = folder(tmp_path, a="SELECT id FROM shop.order", b="SELECT a FROM marts.a, shop.declared")
    marts = dg.Definitions(
        [*build_sql_assets(sql, "marts", "team:mart"), dg.AssetSpec(["shop", "declared"])]
    )
    shop = dg.Definitions([dg.AssetSpec(ORDERS_KEY)])
    (message,) = missing_assets({"mart": upstream_assets(marts), "shop": upstream_assets(shop)})
    assert message == (
        "marts/a of mart reads shop/order, which is an asset of no location. Did you mean shop/orders?"
    )


def test_the_code_of_the_asset_is_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "mart_etl"
    (package / "defs").mkdir(parents=True)
    for path in (package, package / "defs"):
        (path / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    module: Any = ModuleType("mart_etl.assets")
    module.marts = build_sql_assets(
        folder(package / "sql", a="SELECT 1 AS a"), "marts", "team:mart"
    )
    (spec,) = build_definitions("mart_etl", module).resolve_all_asset_specs()
    reference = spec.metadata["dagster/code_references"].code_references[0]
    assert reference.file_path == str(package / "sql" / "a.sql")
