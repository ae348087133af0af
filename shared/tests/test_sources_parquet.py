"""A value of a Parquet file loads unchanged or is rejected, read row by row and pushed down."""

import datetime as dt
import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import UUID

import dagster as dg
import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dagster_dlt import dlt_assets
from dlt.common.schema.typing import TColumnSchema
from hypothesis import example, given, settings
from hypothesis import strategies as st

from shared import warehouse
from shared.orchestration.resource import WarehouseDltResource
from shared.orchestration.translator import WarehouseTranslator
from shared.sources.csv import InvalidFileError, OnBadRows
from shared.sources.files import FileFormat, ParquetFormat, file_source, source, validate_file
from shared.warehouse.destinations.duckdb import PushdownLoadJob

DECIMAL: TColumnSchema = {"data_type": "decimal", "precision": 18, "scale": 2}
COLUMNS: dict[str, TColumnSchema] = {
    "id": {"data_type": "bigint", "nullable": False},
    "price": DECIMAL,
    "note": {"data_type": "text"},
}
FORMAT = ParquetFormat(COLUMNS)
ROWS = pa.table(
    {
        "note": pa.array(["a", None, "ü"]),
        "id": pa.array([1, 2, 3], pa.int32()),
        "price": pa.array([Decimal("1.50"), None, Decimal("-2.25")], pa.decimal128(9, 2)),
    }
)
LOADED = [(1, Decimal("1.50"), "a"), (2, None, None), (3, Decimal("-2.25"), "ü")]
NAMES: dict[str, TColumnSchema] = {
    'it\'s "x".y': {"data_type": "text"},
    "größe €": {"data_type": "text"},
    "userId": {"data_type": "text"},
    "select": {"data_type": "text"},
}
UTC = dt.UTC
NOON = dt.datetime(2025, 3, 10, 12, 0, 0, 123456)  # noqa: DTZ001 - a local time
MIDNIGHT = dt.datetime(2025, 3, 10)  # noqa: DTZ001 - a local time
NANOSECONDS = int(NOON.replace(tzinfo=UTC).timestamp()) * 10**9 + 123456000


@pytest.fixture(autouse=True)
def _drop_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DROP_FOLDER", str(tmp_path))


def write(folder: Path, table: pa.Table, name: str = "file.parquet", **options: Any) -> str:
    pq.write_table(table, folder / name, **options)
    return name


def read(name: str, file_format: FileFormat, on_bad_rows: OnBadRows = "fail") -> list[Any]:
    """Return the rows that the source yields, without the file's name."""
    tables = file_source([name], "rows", file_format, on_bad_rows)
    return [
        tuple(row[column] for column in file_format.columns)
        for table in tables
        if set(file_format.columns) <= {*table.column_names}
        for row in table.to_pylist()
    ]


def push_down(folder: Path, name: str, file_format: ParquetFormat) -> list[Any] | None:
    """Return the rows of the pushed down query; None where the source reads row by row."""
    select = file_format._exact_select(folder / name)
    if select is None:
        return None
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'Asia/Tokyo'")
        query = connection.sql(select).to_arrow_table()
    columns = zip(query.columns, file_format.schema.types, strict=True)
    arrays = [column.cast(kind) for column, kind in columns]
    table = pa.Table.from_arrays(arrays, schema=file_format.schema)
    return [tuple(row.values()) for row in table.to_pylist()]


def column(data_type: str, **hints: Any) -> dict[str, TColumnSchema]:
    return {"a": {"data_type": data_type, **hints}}  # type: ignore[typeddict-item]


def test_columns_may_have_any_order_and_smaller_types(tmp_path: Path) -> None:
    name = write(tmp_path, ROWS)
    assert validate_file(name, FORMAT) == []
    assert read(name, FORMAT) == LOADED
    assert push_down(tmp_path, name, FORMAT) == LOADED


FITS: dict[str, tuple[dict[str, TColumnSchema], pa.Array, Any, bool]] = {
    "text": (column("text"), pa.array(["x\0ü"]), "x\0ü", True),
    "large text": (column("text"), pa.array(["x"], pa.large_string()), "x", True),
    "a category": (column("text"), pa.array(["x"]).dictionary_encode(), "x", True),
    "uuid": (column("text"), pa.array([UUID(int=7).bytes], pa.uuid()), str(UUID(int=7)), False),
    "bytes": (column("binary"), pa.array([b"\xff\0"]), b"\xff\0", True),
    "bytes of one length": (column("binary"), pa.array([b"ab"], pa.binary(2)), b"ab", True),
    "bool": (column("bool"), pa.array([True]), True, True),
    "smallest bigint": (column("bigint"), pa.array([-(2**63)]), -(2**63), True),
    "uint32": (column("bigint"), pa.array([2**32 - 1], pa.uint32()), 2**32 - 1, True),
    "uint64": (column("bigint"), pa.array([2**63 - 1], pa.uint64()), 2**63 - 1, True),
    "a whole double": (column("bigint"), pa.array([3.0]), 3, False),
    "a whole decimal": (column("bigint"), pa.array([Decimal("3.00")]), 3, False),
    "double": (column("double"), pa.array([0.1]), 0.1, True),
    "infinity": (column("double"), pa.array([float("inf")]), float("inf"), True),
    "float": (column("double"), pa.array([0.5], pa.float32()), 0.5, True),
    "integer as double": (column("double"), pa.array([2**53]), float(2**53), True),
    "decimal of more digits": (
        {"a": DECIMAL},
        pa.array([Decimal("1.50")], pa.decimal128(38, 9)),
        Decimal("1.50"),
        True,
    ),
    "decimal of 76 digits": (
        {"a": DECIMAL},
        pa.array([Decimal("1.50")], pa.decimal256(76, 9)),
        Decimal("1.50"),
        False,
    ),
    "integer as decimal": ({"a": DECIMAL}, pa.array([7]), Decimal("7.00"), True),
    "decimal without a precision": (
        column("decimal"),
        pa.array([Decimal("1.5")]),
        Decimal("1.5"),
        True,
    ),
    "date": (column("date"), pa.array([NOON.date()]), NOON.date(), True),
    "midnight": (column("date"), pa.array([MIDNIGHT]), NOON.date(), False),
    "midnight in UTC": (
        column("date"),
        pa.array([MIDNIGHT], pa.timestamp("ms", "America/New_York")),
        NOON.date(),
        False,
    ),
    "time": (column("time"), pa.array([NOON.time()], pa.time64("us")), NOON.time(), True),
    "time in ns": (
        column("time"),
        pa.array([1000], pa.time64("ns")),
        dt.time(microsecond=1),
        False,
    ),
    "instant": (
        column("timestamp"),
        pa.array([NOON], pa.timestamp("us", "UTC")),
        NOON.replace(tzinfo=UTC),
        True,
    ),
    "instant in another zone": (
        column("timestamp"),
        pa.array([NOON], pa.timestamp("us", "America/New_York")),
        NOON.replace(tzinfo=UTC),
        True,
    ),
    "instant in ns": (
        column("timestamp"),
        pa.array([NANOSECONDS], pa.timestamp("ns", "UTC")),
        NOON.replace(tzinfo=UTC),
        True,
    ),
    "local time": (column("timestamp", timezone=False), pa.array([NOON]), NOON, True),
    "local time in ns": (
        column("timestamp", timezone=False),
        pa.array([NANOSECONDS], pa.timestamp("ns")),
        NOON,
        True,
    ),
    "JSON text": (column("json"), pa.array(['{"x": 1.10}']), '{"x": 1.10}', False),
    "a list": (column("json"), pa.array([[1, None]]), "[1,null]", False),
    "a struct": (
        column("json"),
        pa.array([{"x": 2**63 - 1, "y": ["ü"]}]),
        f'{{"x":{2**63 - 1},"y":["ü"]}}',
        False,
    ),
    "decimals in a list": (column("json"), pa.array([[Decimal("1.10")]]), "[1.10]", False),
    "a map": (column("json"), pa.array([[("x", 1)]], pa.map_("string", "int64")), '{"x":1}', False),
    "nothing": ({"a": DECIMAL}, pa.nulls(1), None, False),
}


@pytest.mark.parametrize("case", FITS)
def test_a_value_that_fits_loads_unchanged(tmp_path: Path, case: str) -> None:
    columns, values, expected, is_pushed_down = FITS[case]
    name = write(tmp_path, pa.table({"a": pa.concat_arrays([values, pa.nulls(1, values.type)])}))
    rows = [(expected,), (None,)]
    assert validate_file(name, ParquetFormat(columns)) == []
    assert read(name, ParquetFormat(columns)) == rows
    pushed_down = push_down(tmp_path, name, ParquetFormat(columns))
    assert pushed_down == (rows if is_pushed_down else None)


MISFITS: dict[str, tuple[dict[str, TColumnSchema], pa.Array, Any, str]] = {
    "uint64": (column("bigint"), pa.array([2**63], pa.uint64()), 1, str(2**63)),
    "fraction": (column("bigint"), pa.array([1.5]), 1.0, "1.5"),
    "NaN": (column("bigint"), pa.array([float("nan")], from_pandas=False), 1.0, "nan"),
    "large integer": (column("double"), pa.array([2**53 + 1]), 1, str(2**53 + 1)),
    "more decimals": (
        {"a": DECIMAL},
        pa.array([Decimal("1.005")], pa.decimal128(9, 3)),
        Decimal(1),
        r"Decimal\('1.005'\)",
    ),
    "too many digits": ({"a": DECIMAL}, pa.array([10**17]), 1, str(10**17)),
    "noon": (column("date"), pa.array([NOON]), MIDNIGHT, "datetime"),
    "the year 10000": (column("date"), pa.array([2932897], pa.date32()), 0, "2932897"),
    "infinity": (
        column("timestamp", timezone=False),
        pa.array([2**63 - 1], pa.timestamp("us")),
        0,
        str(2**63 - 1),
    ),
    "a millisecond after the year 9999": (
        column("timestamp"),
        pa.array([253402300800000], pa.timestamp("ms", "UTC")),
        0,
        "253402300800000",
    ),
    "milliseconds over 64 bits": (
        column("timestamp"),
        pa.array([2**60], pa.timestamp("ms", "UTC")),
        0,
        str(2**60),
    ),
    "nanoseconds": (column("timestamp"), pa.array([1001], pa.timestamp("ns", "UTC")), 0, "1001"),
    "nanoseconds of a day": (column("time"), pa.array([1001], pa.time64("ns")), 0, "1001"),
    "NaN in a list": (column("json"), pa.array([[float("nan")]], from_pandas=False), [1.0], "nan"),
    "a time in a list": (column("json"), pa.array([[NOON]]), [], "datetime"),
    "text that is not JSON": (column("json"), pa.array(["{x}"]), "{}", "{x}"),
    "NaN in JSON": (column("json"), pa.array(["[NaN]"]), "{}", "NaN"),
    "a key twice in JSON": (column("json"), pa.array(['{"x":1,"x":2}']), "{}", "x"),
    "a key twice in a map": (
        column("json"),
        pa.array([[("x", 1), ("x", 2)]], pa.map_("string", "int64")),
        [("y", 1)],
        "x",
    ),
    "a number as the key of a map": (
        column("json"),
        pa.array([[(1, 2)]], pa.map_("int64", "int64")),
        [],
        "1",
    ),
    "a missing value": (column("text", nullable=False), pa.array([None], "string"), "x", "missing"),
}


@pytest.mark.parametrize("case", MISFITS)
def test_a_value_that_would_change_is_a_bad_row(tmp_path: Path, case: str) -> None:
    columns, bad, good, shown = MISFITS[case]
    fitting = pa.array([good], bad.type)
    table = pa.table({"a": pa.concat_arrays([fitting, fitting, bad, fitting])})
    name, file_format = write(tmp_path, table, row_group_size=2), ParquetFormat(columns)
    with pytest.raises(Exception, match=rf"file\.parquet, row group 1, row 2: column a: .*{shown}"):
        read(name, file_format)
    assert len(read(name, file_format, "quarantine")) == 3
    try:
        assert push_down(tmp_path, name, file_format) is None
    except duckdb.Error as error:
        assert re.search("Error: a$|Could not c|out of range", str(error))  # noqa: PT017 - or it is refused there


NUMBERED: list[tuple[dict[str, TColumnSchema], pa.DataType]] = [
    (column("bigint"), pa.uint32()),
    (column("bigint"), pa.uint64()),
    (column("double"), pa.float64()),
    (column("double"), pa.int64()),
    ({"a": DECIMAL}, pa.int64()),
    (column("date"), pa.date32()),
    (column("time"), pa.time64("us")),
    *((column("timestamp"), pa.timestamp(unit, "UTC")) for unit in ("ms", "us", "ns")),
    *((column("timestamp", timezone=False), pa.timestamp(unit)) for unit in ("ms", "us", "ns")),
]


@settings(max_examples=100, deadline=None)
@given(
    kind=st.sampled_from(NUMBERED),
    numbers=st.lists(
        st.none() | st.integers(0, 10**8) | st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=3
    ),
)
@example(kind=(column("timestamp"), pa.timestamp("ns", "UTC")), numbers=[2**63 - 1])  # infinity
def test_pushed_down_rows_are_those_read_row_by_row(
    kind: tuple[dict[str, TColumnSchema], pa.DataType], numbers: list[int | None]
) -> None:
    columns, stored_type = kind
    bits, days = stored_type.bit_width, 86_400_000_000
    small = [n if n is None or bits == 64 else n % 2 ** (bits - 1) for n in numbers]
    if pa.types.is_time(stored_type):
        small = [n if n is None else n % days for n in small]
    integers = pa.array(small, pa.int64() if bits == 64 else pa.int32())
    with TemporaryDirectory() as folder:
        name = write(Path(folder), pa.table({"a": integers.view(stored_type)}))
        file_format = ParquetFormat(columns)
        (batch,) = file_format.read(Path(folder) / name)
        try:
            pushed_down = push_down(Path(folder), name, file_format)
        except duckdb.Error:
            assert batch.rejected
        else:
            assert not batch.rejected
            assert repr(pushed_down) == repr([(row["a"],) for row in batch.rows.to_pylist()])


@settings(max_examples=100, deadline=None)
@given(
    stored=st.sampled_from([(9, 3), (18, 2), (38, 9), (38, 37), (38, 0)]),
    declared=st.sampled_from([(18, 2), (9, 0), (38, 37), (38, 9), (20, 20)]),
    digits=st.integers(-(10**38) + 1, 10**38 - 1)
    | st.integers(-100_000, 100_000).map(lambda n: n * 10**7),
)
def test_pushed_down_decimals_are_those_read_row_by_row(
    stored: tuple[int, int], declared: tuple[int, int], digits: int
) -> None:
    columns = column("decimal", precision=declared[0], scale=declared[1])
    number = Decimal(f"{digits % 10 ** stored[0]}e-{stored[1]}")
    with TemporaryDirectory() as folder:
        table = pa.table({"a": pa.array([number], pa.decimal128(*stored))})
        name = write(Path(folder), table)
        (batch,) = ParquetFormat(columns).read(Path(folder) / name)
        try:
            pushed_down = push_down(Path(folder), name, ParquetFormat(columns))
        except duckdb.Error:
            assert batch.rejected
        else:
            assert pushed_down in (None, [(row["a"],) for row in batch.rows.to_pylist()])


TYPES = {
    "text for a number": (column("bigint"), pa.array(["1"]), "string, which is never bigint"),
    "number for text": (column("text"), pa.array([1]), "int64, which is never text"),
    "double for decimal": ({"a": DECIMAL}, pa.array([0.1]), "double, which is never decimal"),
    "bool for a number": (column("bigint"), pa.array([True]), "bool, which is never bigint"),
    "bytes for text": (column("text"), pa.array([b"x"]), "binary, which is never text"),
    "duration": (column("bigint"), pa.array([1], pa.duration("s")), "duration"),
    "no zone": (column("timestamp"), pa.array([NOON]), "without a time zone"),
    "a zone": (
        column("timestamp", timezone=False),
        pa.array([NOON], pa.timestamp("us", "UTC")),
        "with a time zone",
    ),
}


@pytest.mark.parametrize("on_bad_rows", ["fail", "quarantine"])
@pytest.mark.parametrize("case", TYPES)
def test_a_type_that_cannot_fit_refuses_the_file(
    tmp_path: Path, case: str, on_bad_rows: OnBadRows
) -> None:
    columns, values, problem = TYPES[case]
    name = write(tmp_path, pa.table({"a": values}))
    (error,) = validate_file(name, ParquetFormat(columns), on_bad_rows)
    assert error.startswith("file.parquet: column 'a' is ")
    assert problem in error
    assert push_down(tmp_path, name, ParquetFormat(columns)) is None


def test_legacy_timestamps_are_refused(tmp_path: Path) -> None:
    table = pa.table({"a": pa.array([NOON])})
    name = write(tmp_path, table, use_deprecated_int96_timestamps=True)
    (error,) = validate_file(name, ParquetFormat(column("timestamp", timezone=False)))
    assert "INT96" in error


def test_missing_undeclared_and_repeated_columns_are_named(tmp_path: Path) -> None:
    names = ["id", "Price", "note", "note", "caf\u0065\u0301"]
    name = write(tmp_path, pa.Table.from_arrays([pa.array([1])] * 5, names=names))
    for on_bad_rows in ("fail", "quarantine"):
        (error,) = validate_file(name, FORMAT, on_bad_rows)
        assert error == (
            "file.parquet: column 'price' is missing; column 'Price' is not declared; "
            "column 'cafe\u0301' is not declared; column 'note' is there twice"
        )


def test_an_optional_column_may_be_missing(tmp_path: Path) -> None:
    name, optional = (
        write(tmp_path, ROWS.drop_columns(["note"])),
        ParquetFormat(COLUMNS, {}, {"note"}),
    )
    expected = [(*row[:2], None) for row in LOADED]
    assert read(name, optional) == expected
    assert push_down(tmp_path, name, optional) == expected


def test_an_optional_column_of_any_type_may_be_missing(tmp_path: Path) -> None:
    columns = {case.replace(" ", "_"): declared["a"] for case, (declared, *_) in FITS.items()}
    name = write(tmp_path, pa.table({"text": ["x"]}))
    optional = ParquetFormat(columns, optional=columns.keys() - {"text"})
    assert read(name, optional) == [("x", *[None] * (len(columns) - 1))]


def test_rules_hold_on_every_path(tmp_path: Path) -> None:
    name = write(tmp_path, ROWS)
    ruled = ParquetFormat(COLUMNS, {"price": "price > 0 -- euros"})
    (error,) = validate_file(name, ruled)
    assert "row group 0, row 2: column price: Decimal('-2.25') breaks the rule price > 0" in error
    assert read(name, ruled, "quarantine") == LOADED[:2]
    with pytest.raises(duckdb.InvalidInputException, match="price"):
        push_down(tmp_path, name, ruled)


def test_a_rule_with_wrong_sql_is_named(tmp_path: Path) -> None:
    (error,) = validate_file(write(tmp_path, ROWS), ParquetFormat(COLUMNS, {"price": "price >"}))
    assert "the rule price > of column price fails" in error


@pytest.mark.parametrize("kept", [slice(0, 0), slice(100), slice(0, -20), slice(4, None)])
def test_a_damaged_file_is_refused(tmp_path: Path, kept: slice) -> None:
    name = write(tmp_path, ROWS)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[kept])
    (error,) = validate_file(name, FORMAT, "quarantine")
    assert error.startswith("file.parquet: it cannot be read as Parquet: ")


def test_text_that_is_not_utf8_is_a_bad_row(tmp_path: Path) -> None:
    raw = pa.array([b"good", b"\xffbad"]).view(pa.string())
    name, file_format = write(tmp_path, pa.table({"a": raw})), ParquetFormat(column("text"))
    (error,) = validate_file(name, file_format)
    assert "row group 0, row 1: column a: b'\\xffbad' does not fit text" in error
    assert read(name, file_format, "quarantine") == [("good",)]
    with pytest.raises(duckdb.Error, match="UTF8"):
        push_down(tmp_path, name, file_format)


@pytest.mark.parametrize(
    ("columns", "arguments", "problem"),
    [
        ({"File_Name": COLUMNS["note"]}, {}, "File_Name"),
        ({"_dlt_id": COLUMNS["note"]}, {}, "_dlt_id"),
        ({"a": COLUMNS["note"], "A": COLUMNS["note"]}, {}, "would be one column"),
        (column("wei"), {}, "wei"),
        (column("text", precision=3), {}, "precision"),
        (COLUMNS, {"rules": {"cost": "cost > 0"}}, "cost"),
        (COLUMNS, {"optional": ["cost"]}, "cost"),
        (COLUMNS, {"optional": ["id"]}, "never NULL"),
    ],
)
def test_a_declaration_that_cannot_hold_is_refused(
    columns: dict[str, TColumnSchema], arguments: Mapping[str, Any], problem: str
) -> None:
    with pytest.raises(ValueError, match=problem):
        ParquetFormat(columns, **arguments)


by_file = dg.DynamicPartitionsDefinition(name="parquet_files")


@dlt_assets(
    dlt_source=file_source([], "prices", FORMAT, "quarantine"),
    dlt_pipeline=warehouse.pipeline("files_pipeline", dataset_name="files"),
    dagster_dlt_translator=WarehouseTranslator("team:test"),
    partitions_def=by_file,
    backfill_policy=dg.BackfillPolicy.single_run(),
    name="prices",
)
def prices(context: dg.AssetExecutionContext, dlt: WarehouseDltResource) -> Iterator[object]:
    files = file_source(context.partition_keys, "prices", FORMAT, "quarantine")
    yield from dlt.run(context=context, dlt_source=files)


def stored(table: str = "prices") -> list[tuple[Any, ...]]:
    rows = warehouse.query(f"SELECT * FROM files.{table} ORDER BY file_name, 2")
    return [tuple(value for name, value in row.items() if name != "_dlt_load_id") for row in rows]


@pytest.fixture(params=["row by row", "pushdown"])
def _each_mode(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Load small files in both ways, and require that the way is taken."""
    is_pushdown = request.param == "pushdown"
    jobs: list[PushdownLoadJob] = []
    monkeypatch.setattr(source, "_PUSHDOWN_MIN_BYTES", 0 if is_pushdown else 10**9)
    run = PushdownLoadJob.run
    monkeypatch.setattr(PushdownLoadJob, "run", lambda job: (jobs.append(job), run(job))[1])  # type: ignore[func-returns-value]
    yield
    assert bool(jobs) is is_pushdown


@pytest.mark.usefixtures("_each_mode")
def test_a_file_partition_loads_twice_and_its_rows_are_replaced(
    tmp_warehouse: Path, instance: dg.DagsterInstance
) -> None:
    drop = tmp_warehouse / "drop"
    names = [write(drop, ROWS, "a.parquet"), write(drop, ROWS.slice(2), "b[1].parquet")]
    instance.add_dynamic_partitions("parquet_files", names)

    def load(name: str) -> None:
        assert dg.materialize(
            [prices],
            instance=instance,
            partition_key=name,
            resources={"dlt": WarehouseDltResource()},
        ).success

    for name in (*names, names[0]):
        load(name)
    expected = [*(("a.parquet", *row) for row in LOADED), ("b[1].parquet", *LOADED[2])]
    assert stored() == expected
    assert stored("prices_rejected") == []
    bad = ROWS.set_column(1, "id", pa.array([1, None, 3]))
    write(drop, bad, "a.parquet")
    load("a.parquet")
    assert stored() == [expected[0], *expected[2:]]
    assert stored("prices_rejected") == [
        (
            "a.parquet",
            0,
            1,
            "column id: the value is missing",
            '{"note": null, "id": null, "price": null}',
        )
    ]


def load_files(*names: str, file_format: FileFormat = FORMAT) -> None:
    spec = warehouse.pipeline("files_pipeline", dataset_name="files")
    warehouse.load(warehouse.plan_load(spec, file_source(names, "prices", file_format), names))


def test_values_that_need_a_check_are_pushed_down_after_it(
    tmp_warehouse: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs: list[PushdownLoadJob] = []
    monkeypatch.setattr(source, "_PUSHDOWN_MIN_BYTES", 0)
    run = PushdownLoadJob.run
    monkeypatch.setattr(PushdownLoadJob, "run", lambda job: (jobs.append(job), run(job))[1])  # type: ignore[func-returns-value]
    ids = pa.array([1.0, 2.0, 3.0])
    load_files(write(tmp_warehouse / "drop", ROWS.set_column(1, "id", ids)))
    assert [row[1:] for row in stored()] == LOADED
    assert jobs


@pytest.mark.parametrize("pushdown_min_bytes", [0, 10**9])
def test_columns_may_have_any_name(
    tmp_warehouse: Path, monkeypatch: pytest.MonkeyPatch, pushdown_min_bytes: int
) -> None:
    monkeypatch.setattr(source, "_PUSHDOWN_MIN_BYTES", pushdown_min_bytes)
    name = write(tmp_warehouse / "drop", pa.table({name: [name] for name in NAMES}))
    load_files(name, file_format=ParquetFormat(NAMES))
    assert stored() == [(name, *NAMES)]


def test_an_empty_file_empties_its_partition_if_that_is_allowed(tmp_warehouse: Path) -> None:
    name = write(tmp_warehouse / "drop", ROWS)
    load_files(name)
    write(tmp_warehouse / "drop", ROWS.slice(0, 0))
    with pytest.raises(Exception, match=r"file\.parquet has no rows"):
        load_files(name)
    assert len(stored()) == 3
    load_files(name, file_format=ParquetFormat(COLUMNS, allow_empty=True))
    assert stored() == []


def test_a_file_with_a_bad_row_at_its_end_loads_nothing(
    tmp_warehouse: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.sources.files.parquet.BATCH_ROWS", 1)
    name = write(tmp_warehouse / "drop", ROWS)
    load_files(name)
    write(tmp_warehouse / "drop", ROWS.set_column(1, "id", pa.array([7, 8, None])))
    with pytest.raises(Exception, match="row group 0, row 2: column id: the value is missing"):
        load_files(name)
    assert [row[1] for row in stored()] == [1, 2, 3]


def test_every_type_loads_into_every_warehouse(any_warehouse: str, tmp_warehouse: Path) -> None:
    columns: dict[str, TColumnSchema] = {}
    table = {}
    for case, (declared, values, _, _) in FITS.items():
        if "\0" in str(values[0]) or case == "infinity":
            continue  # Postgres has no NUL in texts
        name = case.replace(" ", "_")
        columns[name], table[name] = declared["a"], values
    name = write(tmp_warehouse / "drop", pa.table(table))
    for _ in range(2):
        load_files(name, file_format=ParquetFormat(columns))
    (row,) = stored()
    assert len(row) == len(columns) + 1


def test_a_file_that_changes_while_it_is_read_fails(tmp_path: Path) -> None:
    name = write(tmp_path, ROWS)
    with pytest.raises(Exception, match="was written to while it was read"):  # noqa: PT012
        for table in file_source([name], "rows", FORMAT):
            if len(table):
                write(tmp_path, pa.concat_tables([ROWS, ROWS]))


def test_a_path_outside_the_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidFileError, match="is not a path below"):
        validate_file("../file.parquet", FORMAT)
