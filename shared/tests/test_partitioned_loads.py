"""Loading a partition again is exact, whatever its kind, its column and the declared disposition."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import dlt
import pyarrow as pa
import pytest
from dlt.extract import DltSource
from pydantic import BaseModel

from shared import warehouse
from shared.sources.partitions import PartitionKey, TimeWindow
from shared.warehouse import LoadPlanError

SLOW_ON_SERVERS = True

UTC, NEW_YORK, TOKYO = map(ZoneInfo, ("UTC", "America/New_York", "Asia/Tokyo"))
SPEC = warehouse.pipeline("shop_pipeline", "shop")
Row = Mapping[str, object]


def window(start: datetime, length: timedelta) -> PartitionKey:
    """Return the partition of a time window, whose length is counted in real hours."""
    end = (start.astimezone(UTC) + length).astimezone(start.tzinfo)
    return PartitionKey(f"{start:%Y-%m-%d-%H:%M%z}", TimeWindow(start, end))


def day(number: int, zone: ZoneInfo = UTC) -> PartitionKey:
    start, end = (datetime(2025, 3, number + days, tzinfo=zone) for days in (0, 1))
    return PartitionKey(f"{start:%Y-%m-%d}", TimeWindow(start, end))


def region(number: int, name: str) -> PartitionKey:
    dimensions = {"day": day(number), "region": PartitionKey(name)}
    return PartitionKey(f"2025-03-{number}|{name}", dimensions=dimensions)


@dataclass(frozen=True)
class Kind:
    """Two partitions, a row of each, and what marks its partition."""

    partitions: tuple[PartitionKey, PartitionKey]
    values: tuple[Row, Row]
    marked: Mapping[str, str] = field(default_factory=dict)
    cursor: Any = None
    timezone: bool = True

    def source(self, rows: list[Row], disposition: Any = None, **hints: Any) -> DltSource:
        """Return a source with the one resource `orders`."""
        columns: Any = {
            name: {"data_type": data_type, "partition": True, "timezone": self.timezone}
            for name, data_type in self.marked.items()
        }
        orders = dlt.resource(
            rows,
            name="orders",
            write_disposition=disposition,
            columns=columns,
            incremental=self.cursor,
            **hints,
        )
        return DltSource(dlt.Schema("shop"), "shop", [orders])


SPRING = datetime(2025, 3, 9, 1, tzinfo=NEW_YORK), datetime(2025, 3, 9, 3, tzinfo=NEW_YORK)
AUTUMN = (
    datetime(2025, 11, 2, 1, tzinfo=NEW_YORK),
    datetime(2025, 11, 2, 1, tzinfo=NEW_YORK, fold=1),
)
HOUR = timedelta(hours=1)


def hours(starts: tuple[datetime, datetime]) -> Kind:
    first, second = (window(start, HOUR) for start in starts)
    values = ({"at": start.astimezone(UTC) + timedelta(minutes=59)} for start in starts)
    return Kind((first, second), tuple(values), {"at": "timestamp"})  # type: ignore[arg-type]


KINDS = {
    "text": Kind(
        (PartitionKey("a;b'{c}"), PartitionKey("ALTER SCHEMA é/..")),
        ({"d": "a;b'{c}"}, {"d": "ALTER SCHEMA é/.."}),
        {"d": "text"},
    ),
    "integer": Kind((PartitionKey("03"), PartitionKey("4")), ({"n": 3}, {"n": 4}), {"n": "bigint"}),
    "date in Tokyo": Kind(
        (day(9, TOKYO), day(10, TOKYO)),
        ({"d": date(2025, 3, 9)}, {"d": date(2025, 3, 10)}),
        {"d": "date"},
    ),
    "day of a timestamp in Tokyo": Kind(
        (day(9, TOKYO), day(10, TOKYO)),
        (
            {"at": datetime(2025, 3, 9, tzinfo=TOKYO)},
            {"at": datetime(2025, 3, 10, 23, 59, 59, 999_999, tzinfo=TOKYO)},
        ),
        {"at": "timestamp"},
    ),
    "day of a naive timestamp": Kind(
        (day(9), day(10)),
        ({"at": datetime(2025, 3, 9, 23)}, {"at": datetime(2025, 3, 10)}),  # noqa: DTZ001
        {"at": "timestamp"},
        timezone=False,
    ),
    "hour before and after summer time begins": hours(SPRING),
    "hour that comes twice": hours(AUTUMN),
    "two dimensions": Kind(
        (region(9, "eu"), region(9, "us")),
        ({"d": date(2025, 3, 9), "region": "eu"}, {"d": date(2025, 3, 9), "region": "us"}),
        {"d": "date", "region": "text"},
    ),
    "cursor": Kind(
        (day(9), day(10)),
        ({"at": datetime(2025, 3, 9, 5, tzinfo=UTC)}, {"at": datetime(2025, 3, 10, tzinfo=UTC)}),
        cursor=dlt.sources.incremental("at", initial_value=datetime(2025, 1, 1, tzinfo=UTC)),
    ),
    "nothing marked": Kind((PartitionKey("mon"), PartitionKey("tue")), ({"v": 1}, {"v": 1})),
}


@pytest.fixture
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Make the warehouse an empty one of a type."""
    folder: Path = request.getfixturevalue("tmp_warehouse")
    if request.param == "postgres":
        request.getfixturevalue("postgres_warehouse")
    if request.param == "filesystem":
        monkeypatch.setenv("WAREHOUSE_TYPE", "filesystem")
        monkeypatch.setenv("ETL_ENVIRONMENT", "production")
        monkeypatch.setenv("DESTINATION__WAREHOUSE__BUCKET_URL", str(folder / "lake"))
    return str(request.param)


def load(source: DltSource, *partitions: PartitionKey) -> warehouse.LoadResult:
    return warehouse.load(warehouse.plan_load(SPEC, source, partitions))


def stored(table: str = "orders") -> list[int]:
    return [row["id"] for row in warehouse.query(f"SELECT id FROM shop.{table} ORDER BY 1")]


ON_FILES = ("text", "date in Tokyo", "hour that comes twice", "two dimensions", "cursor")


@pytest.mark.parametrize(
    ("kind", "engine"),
    [
        pytest.param(name, engine, marks=[pytest.mark.slow] if engine != "duckdb" else [])
        for name in KINDS
        for engine in ("duckdb", "postgres", *["filesystem"] * (name in ON_FILES))
    ],
    indirect=["engine"],
)
def test_a_partition_loads_again_exactly(kind: str, engine: str) -> None:
    assert engine
    load_again(KINDS[kind])


def load_again(kind: Kind) -> None:
    first, second = kind.partitions
    of_first, of_second = kind.values
    # Out of order, each partition before it and after it.
    load(kind.source([{"id": 3, **of_second}]), second)
    load(kind.source([{"id": 1, **of_first}, {"id": 2, **of_first}]), first)
    assert stored() == [1, 2, 3]
    # Revised: row 1 has gone, and row 4 is new.
    result = load(kind.source([{"id": 2, **of_first}, {"id": 4, **of_first}]), first)
    assert stored() == [2, 3, 4]
    assert result.tables["orders"].partition_row_counts == {str(first): 2}
    # Empty.
    load(kind.source([]), first)
    assert stored() == [3]
    # A backfill of both in one load.
    if kind.marked or kind.cursor:
        load(kind.source([{"id": 1, **of_first}, {"id": 5, **of_second}]), first, second)
        assert stored() == [1, 5]
    # A row of another partition.
    if kind.marked:
        with pytest.raises(warehouse.OutOfPartitionError, match="orders: 1 row with"):
            load(kind.source([{"id": 6, **of_second}]), first)
        assert stored() == [1, 5]


@pytest.mark.parametrize("disposition", ["append", "replace", "merge"])
def test_the_declared_disposition_does_not_change_what_a_partition_replaces(
    disposition: str, any_warehouse: str
) -> None:
    kind = KINDS["text"]
    (first, second), (of_first, of_second) = kind.partitions, kind.values
    for key, row in ((first, of_first), (second, of_second), (first, of_first)):
        load(kind.source([{"id": 1, **row}], disposition), key)
    assert stored() == [1, 1]


class Order(BaseModel):
    """A row that is a model."""

    id: int


@pytest.mark.parametrize("rows", ["dicts", "arrow", "models"])
def test_rows_without_a_partition_column_get_one(rows: str, any_warehouse: str) -> None:
    def source(values: list[int]) -> DltSource:
        table = pa.table({"id": values})
        models = [Order(id=value) for value in values]
        items: Any = {"dicts": table.to_pylist(), "arrow": [table], "models": models}
        return KINDS["nothing marked"].source(items[rows], "append")

    mon, tue = map(PartitionKey, ("mon", "tue"))
    for key, values in ((mon, [1, 2]), (tue, [3]), (mon, [2])):
        load(source(values), key)
    keys = warehouse.query("SELECT id, _partition FROM shop.orders ORDER BY 1")
    assert keys == [{"id": 2, "_partition": "mon"}, {"id": 3, "_partition": "tue"}]
    with pytest.raises(LoadPlanError, match=r"2 partitions .* partitions_per_batch=1"):
        load(source([1]), mon, tue)


def test_rows_of_loads_without_partitions_do_not_stay_beside_those_of_partitions(
    any_warehouse: str,
) -> None:
    kind = KINDS["nothing marked"]
    load(kind.source([{"id": 1}]))
    with pytest.raises(LoadPlanError, match=r"shop\.orders has 1 row of loads without partitions"):
        load(kind.source([{"id": 1}]), PartitionKey("mon"))
    assert stored() == [1]


def test_nested_rows_and_other_tables_of_an_empty_partition_are_deleted(any_warehouse: str) -> None:
    mon, tue = map(PartitionKey, ("mon", "tue"))

    def source(rows: list[Row]) -> DltSource:
        def items() -> Any:
            yield rows
            yield from (dlt.mark.with_table_name(row, "returns") for row in rows)

        return Kind((mon, tue), ({}, {}), {"d": "text"}).source(items)  # type: ignore[arg-type]

    for key in (mon, tue):
        load(source([{"id": 1, "d": key, "lines": [{"n": 1}, {"n": 2}]}]), key)
    load(source([]), mon)
    for table, rows in (("orders", 1), ("orders__lines", 2), ("returns", 1), ("returns__lines", 2)):
        assert warehouse.query(f"SELECT count(*) AS n FROM shop.{table}") == [{"n": rows}]


def test_a_table_of_two_resources_is_replaced_with_the_rows_of_both(any_warehouse: str) -> None:
    def source(*ids: int) -> DltSource:
        columns: Any = {"d": {"data_type": "text", "partition": True}}
        resources = [
            dlt.resource(
                [{"id": n, "d": "mon"}], name=f"of_{n}", table_name="orders", columns=columns
            )
            for n in ids
        ]
        return DltSource(dlt.Schema("shop"), "shop", resources)

    for _ in range(2):
        load(source(1, 2), PartitionKey("mon"))
        assert stored() == [1, 2]
    options = warehouse.LoadOptions(resources=["of_1"])
    with pytest.raises(LoadPlanError, match=r"of_2 .* orders"):
        warehouse.plan_load(SPEC, source(1, 2), ["mon"], options)


def test_a_key_that_each_partition_has_keeps_its_row_in_each(any_warehouse: str) -> None:
    kind = KINDS["text"]
    first, second = kind.values
    rows: list[Row] = [{"id": 1, **of, "k": [{"x": 1}]} for of in (first, second, second)]
    load(kind.source(rows, "merge", primary_key="id"), *kind.partitions)
    assert stored() == [1, 1]
    assert warehouse.query("SELECT count(*) AS n FROM shop.orders__k") == [{"n": 2}]


def test_one_row_of_each_key_is_loaded_on_every_warehouse(any_warehouse: str) -> None:
    kind = KINDS["text"]
    rows: list[Row] = [{"id": 1, **kind.values[0]}] * 2
    for _ in range(2):
        load(kind.source(rows, {"disposition": "merge"}, primary_key="id"), kind.partitions[0])
    assert stored() == [1]


@pytest.mark.parametrize("engine", ["filesystem"], indirect=True)
def test_a_directory_keeps_all_rows_of_a_key(engine: str) -> None:
    assert engine
    kind = KINDS["text"]
    rows: list[Row] = [{"id": 1, **kind.values[0]}] * 2
    for _ in range(2):
        load(kind.source(rows, {"disposition": "merge"}, primary_key="id"), kind.partitions[0])
    assert stored() == [1, 1]


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (
            Kind((window(SPRING[0], HOUR),) * 2, ({}, {}), {"d": "date"}),
            "its window has the time 01:00",
        ),
        (Kind((day(9),) * 2, ({}, {}), {"d": "bigint"}), "d is bigint"),
        (Kind((day(9),) * 2, ({}, {}), {"d": "json"}), "d is json"),
        (Kind((day(9),) * 2, ({}, {}), {"d": "date", "e": "text"}), r"marks d, e .* one dimension"),
        (
            Kind((region(9, "eu"),) * 2, ({}, {}), {"region": "text"}),
            "marks no column for the dimension day",
        ),
    ],
)
def test_a_column_that_does_not_fit_the_partitions_is_refused_before_a_request(
    kind: Kind, reason: str
) -> None:
    with pytest.raises(LoadPlanError, match=reason):
        warehouse.plan_load(SPEC, kind.source([]), [kind.partitions[0]])


@pytest.mark.usefixtures("tmp_warehouse")
def test_a_cursor_on_a_date_in_another_time_zone_is_refused() -> None:
    cursor = dlt.sources.incremental("d", initial_value=date(2025, 1, 1))
    kind = Kind((day(9, TOKYO), day(10, TOKYO)), ({}, {}), cursor=cursor)
    with pytest.raises(LoadPlanError, match="Asia/Tokyo: dlt reads the dates before 2025-03-09"):
        load(kind.source([{"id": 1, "d": date(2025, 3, 9)}]), kind.partitions[0])


@pytest.mark.usefixtures("tmp_warehouse")
def test_a_text_cursor_cannot_take_a_window_and_says_what_to_write() -> None:
    cursor = dlt.sources.incremental("at", initial_value="2025-01-01")
    kind = Kind((day(9), day(10)), ({}, {}), cursor=cursor)
    with pytest.raises(LoadPlanError, match="allow_external_schedulers=False"):
        load(kind.source([{"id": 1, "at": "2025-03-09"}]), kind.partitions[0])
    bound = dlt.sources.incremental(
        "at",
        initial_value="2025-03-09",
        end_value="2025-03-10",
        allow_external_schedulers=False,
    )
    kind = Kind((day(9), day(10)), ({}, {}), {"at": "date"}, cursor=bound)
    load(kind.source([{"id": 1, "at": "2025-03-09"}, {"id": 2, "at": "2025-03-10"}]), day(9))
    assert stored() == [1]


@pytest.mark.usefixtures("tmp_warehouse")
def test_the_cursor_of_a_parent_that_is_not_selected_reads_the_window() -> None:
    cursor = dlt.sources.incremental("at", initial_value=datetime(2025, 1, 1, tzinfo=UTC))
    rows = [{"id": n, "at": datetime(2025, 3, n, tzinfo=UTC)} for n in (9, 10)]
    parent = dlt.resource(rows, name="customers", incremental=cursor, selected=False)

    @dlt.transformer(data_from=parent, name="orders")
    def orders(customer: Any) -> Any:
        yield {"id": customer["id"]}

    source = DltSource(dlt.Schema("shop"), "shop", [parent, orders])
    for number in (10, 9, 10):
        load(source, day(number))
    assert stored() == [9, 10]
