"""Names survive in every script, and two names of one row never become one column in silence."""

import random
import string
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import dlt
import pyarrow as pa
import pytest
from dagster_dlt import dlt_assets
from dlt.common.normalizers.naming.snake_case import NamingConvention as SnakeCase
from dlt.extract import DltResource, DltSource
from dlt.pipeline.exceptions import PipelineStepFailed

from shared import warehouse
from shared.orchestration.checks import build_unique_rows_check
from shared.orchestration.resource import WarehouseDltResource
from shared.orchestration.translator import WarehouseTranslator, asset_key
from shared.warehouse.rows.naming import NamingConvention

SLOW_ON_SERVERS = True

PIPELINE = warehouse.pipeline("names_pipeline", dataset_name="names")


def source_of(rows: Any, name: str = "items", **hints: Any) -> DltSource:
    hints = {"write_disposition": "replace", **hints}

    @dlt.source(name="names")
    def names() -> DltResource:
        resource: DltResource = dlt.resource([rows], name=name, **hints)
        return resource

    return names()


def load(source: DltSource) -> warehouse.LoadResult:
    return warehouse.load(warehouse.plan_load(PIPELINE, source))


def columns(table: str = "items") -> dict[str, Any]:
    (row,) = warehouse.query(f'SELECT * FROM names."{table}"')
    return {name: value for name, value in row.items() if not name.startswith("_dlt")}


@pytest.mark.parametrize("max_length", [200, 63, 20])
def test_ascii_names_are_written_as_dlt_writes_them(max_length: int) -> None:
    ours, theirs = NamingConvention(max_length), SnakeCase(max_length)
    choose = random.Random(1)  # the same names each time
    for _ in range(5000):
        name = choose.choice(string.ascii_letters) + "".join(
            choose.choices(string.printable, k=choose.randint(1, 30))
        )
        name = name.replace("__", "")
        assert ours.normalize_identifier(name) == theirs.normalize_identifier(name)
        assert ours.normalize_path(name) == theirs.normalize_path(name)


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("名前", "名前"),
        ("größe", "größe"),
        ("gro\u0308ße", "größe"),  # the same letters, decomposed
        ("GRÖSSE", "grösse"),
        ("größeWert", "größe_wert"),
        ("नाम", "नाम"),
        ("ชื่อ", "ชื่อ"),
        ("ИмяПользователя", "имяпользователя"),
        ("m²", "m²"),
        ("temp °C", "temp_c"),
        ("😀", "grinning_face"),
        ("%", "percent_sign"),
        ("$", "dollar_sign"),
        ("１番", "_１番"),
        ("日本__東京", "日本__東京"),
    ],
)
def test_letters_digits_and_accents_of_each_script_survive(name: str, written: str) -> None:
    convention = NamingConvention(63)
    assert convention.normalize_path(name) == written
    assert convention.normalize_path(written) == written


def test_a_long_name_is_shortened_by_its_bytes_and_stays_unique() -> None:
    convention = NamingConvention(63)
    names = ["名" * 30 + end for end in ("a", "b")]
    written = [convention.normalize_identifier(name) for name in names]
    assert len(set(written)) == 2
    assert all(len(name.encode()) <= 63 for name in written)
    assert [convention.normalize_identifier(name) for name in written] == written


ROW = {"名前": "山田", "年齢": 30, "größe": 1.8, "Имя": "Оля", "😀": 1, "%": 2, "名" * 30: 3}


def test_a_warehouse_has_the_names_of_every_script(any_warehouse: str) -> None:
    assert any_warehouse
    row = {**ROW, "住所": [{"都市": "東京"}]}
    results = [load(source_of([row], "顧客", primary_key="年齢", write_disposition="merge"))] * 2
    found = columns("顧客")
    assert list(found.values()) == list(ROW.values())
    assert list(found)[:6] == ["名前", "年齢", "größe", "имя", "grinning_face", "percent_sign"]
    assert columns("顧客__住所") == {"都市": "東京"}
    for result in results:
        assert result.tables["顧客"].row_count == 1
    tables = {table.name for table in warehouse.list_tables()}
    assert {"顧客", "顧客__住所"} <= tables


def test_files_have_the_names_of_every_script(
    tmp_warehouse: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WAREHOUSE_TYPE", "filesystem")
    monkeypatch.setenv("ETL_ENVIRONMENT", "production")
    monkeypatch.setenv("DESTINATION__WAREHOUSE__BUCKET_URL", (tmp_warehouse / "lake").as_uri())
    for _ in range(2):
        load(source_of([ROW], "顧客"))
    assert list(columns("顧客").values()) == list(ROW.values())


@dlt_assets(
    dlt_source=source_of([ROW, ROW]),
    dlt_pipeline=PIPELINE,
    dagster_dlt_translator=WarehouseTranslator("team:test"),
    name="items",
)
def items(context: dg.AssetExecutionContext, dlt: WarehouseDltResource) -> Iterator[object]:
    yield from dlt.run(context=context)


@pytest.mark.usefixtures("tmp_warehouse")
def test_reports_and_checks_have_the_names_of_every_script() -> None:
    unique = build_unique_rows_check(asset_key("names", "items"), ["名前", "größe"])
    result = dg.materialize([items, unique], resources={"dlt": WarehouseDltResource()})
    (check,) = result.get_asset_check_evaluations()
    assert check.description == "山田, 1.8: 2 times"
    (event,) = result.asset_materializations_for_node("items")
    schema: Any = event.metadata["dagster/column_schema"]
    assert {"名前", "年齢", "größe", "имя"} <= {column.name for column in schema.value.columns}


COLLISIONS: dict[str, tuple[dict[str, Any], tuple[str, str]]] = {
    "case": ({"userId": 1, "user_id": 2}, ("userId", "user_id")),
    "hyphen": ({"user_id": 1, "user-id": 2}, ("user_id", "user-id")),
    "times": ({"createdAt": 1, "created_at": 2}, ("createdAt", "created_at")),
    "symbols": ({"a.b": 1, "a;b": 2}, ("a.b", "a;b")),
    "quote": ({'a"b': 1, "a b": 2}, ('a"b', "a b")),
    "accents": ({"größe": 1, "gro\u0308ße": 2}, ("größe", "gro\u0308ße")),
    "flattened": ({"address__city": 1, "address": {"city": 2}}, ("address__city", "address.city")),
    "inner": ({"a": {"userId": 1, "user_id": 2}}, ("a.userId", "a.user_id")),
    "nested rows": ({"kids": [{"userId": 1, "user_id": 2}]}, ("userId", "user_id")),
    "lists": ({"Kids": [1], "kids": [2]}, ("Kids", "kids")),
}


@pytest.mark.usefixtures("tmp_warehouse")
@pytest.mark.parametrize("kind", COLLISIONS)
def test_two_names_of_a_row_that_are_one_column_are_named(kind: str) -> None:
    row, raw = COLLISIONS[kind]
    with pytest.raises(warehouse.RowValueError) as caught:
        load(source_of([{"n": 1}, row]))
    text = str(caught.value)
    assert all(repr(name) in text for name in raw)
    assert text.startswith("names.items")
    assert "nothing was loaded" in text
    assert "add_map" in text


@pytest.mark.usefixtures("tmp_warehouse")
def test_names_inside_a_json_column_and_of_different_rows_do_not_collide() -> None:
    row = {"payload": {"userId": 1, "user_id": 2}, "empty": {}, "a": {"b": 1}}
    load(source_of([row], columns={"payload": {"data_type": "json"}}))
    assert columns()["payload"] == '{"userId":1,"user_id":2}'
    load(source_of([{"user_id": 1}, {"userId": 2}], "others"))
    rows = warehouse.query("SELECT user_id FROM names.others ORDER BY 1")
    assert [row["user_id"] for row in rows] == [1, 2]


@pytest.mark.usefixtures("tmp_warehouse")
def test_two_names_of_an_arrow_table_that_are_one_column_are_named() -> None:
    with pytest.raises(PipelineStepFailed, match=r"userId.*user_id"):
        load(source_of(pa.table({"userId": [1], "user_id": [2]})))


def test_names_that_are_declared_and_are_one_column_or_table_are_refused_before_the_load() -> None:
    hints: Any = {name: {"data_type": "bigint"} for name in ("userId", "user-id")}
    with pytest.raises(
        warehouse.LoadPlanError, match=r"items declares 'userId' and 'user-id', .* column user_id"
    ):
        warehouse.plan_load(PIPELINE, source_of([], columns=hints))

    @dlt.source(name="names")
    def two() -> Any:
        return [dlt.resource([{"n": 1}], name=name) for name in ("OrderItems", "order_items")]

    with pytest.raises(warehouse.LoadPlanError, match="'OrderItems' and 'order_items'"):
        warehouse.plan_load(PIPELINE, two())


def test_a_table_of_dlts_naming_keeps_its_columns_and_its_nesting(tmp_warehouse: Path) -> None:
    row = {"id": 1, "userId": 1, "größe": 1.8, "kids": [{"a": {"b": 1}}]}
    file = tmp_warehouse / "warehouse.duckdb"
    plain = dlt.pipeline(
        "names_pipeline",
        destination=dlt.destinations.duckdb(str(file)),
        dataset_name="names",
        pipelines_dir=str(tmp_warehouse / "plain"),
    )
    source = source_of([row], primary_key="id", write_disposition="merge")
    source.max_table_nesting = 1
    plain.run(source)
    load(source)
    assert columns() == {"id": 1, "user_id": 1, "gr_e": None, "größe": 1.8}
    assert columns("items__kids") == {"a": '{"b":1}'}
    load(source)
    (versions,) = warehouse.query("SELECT count(*) AS n FROM names._dlt_version")
    assert versions["n"] == 2


@pytest.mark.usefixtures("tmp_warehouse")
def test_a_naming_convention_that_a_setting_names_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCHEMA__NAMING", "sql_cs_v1")
    load(source_of([{"userId": 1}]))
    assert columns() == {"userId": 1}
