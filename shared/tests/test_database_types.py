"""Each type of Postgres arrives in each warehouse with the value that the source has, or as a stated text."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest

from shared.sources.database import DatabaseError, Table
from shared.testing.source_database import SourceDatabase, load, loaded, refused
from shared.warehouse.errors import find_cause

ODD_SETTINGS = {
    "timezone": "'Asia/Kathmandu'",
    "datestyle": "'SQL, DMY'",
    "intervalstyle": "'postgres_verbose'",
    "bytea_output": "'escape'",
    "extra_float_digits": "-10",
    "standard_conforming_strings": "off",
    "client_encoding": "'LATIN1'",
}
"""Settings of a server that change how values are written."""

TYPES_SQL = r"""
    CREATE EXTENSION citext; CREATE EXTENSION hstore;
    CREATE TYPE mood AS ENUM ('happy', 'it''s; {ok}');
    CREATE DOMAIN positive AS int CHECK (VALUE > 0);
    CREATE DOMAIN price AS numeric(10,2);
    CREATE DOMAIN net_price AS price CHECK (VALUE < 100);
    CREATE DOMAIN numbers AS int[];
    CREATE DOMAIN at_millis AS timestamp(3);
    CREATE DOMAIN short_text AS varchar(10);
    CREATE DOMAIN document AS jsonb;
    CREATE TYPE pair AS (number int, "Text" text, price numeric);
    CREATE DOMAIN pair_domain AS pair;
"""

NINES = "9" * 38

SAME_VALUE: Mapping[str, Sequence[str]] = {
    "bool": ["t", "f"],
    "int2": ["-32768"],
    "int4": ["2147483647"],
    "int8": ["-9223372036854775808", "9223372036854775807"],
    "oid": ["4294967295", "0"],
    "numeric(38,10)": [f"{NINES[:28]}.{NINES[:10]}", f"-{NINES[:28]}.{NINES[:10]}", "0"],
    "numeric(38,0)": [NINES, f"-{NINES}"],
    "numeric(38,38)": [f"0.{NINES}", f"-0.{NINES}"],
    "numeric(18,4)": ["-1.5", "12345678901234.9012"],
    "numeric(5,0)": ["-12345", "0"],
    "numeric(1,1)": ["0.1"],
    "price": ["1.50"],
    "net_price": ["-1.50"],
    "positive": ["5"],
    "float4": ["NaN", "Infinity", "-Infinity", "-0", "1e-45", "3.4028235e38", "0.1"],
    "float8": ["NaN", "Infinity", "-Infinity", "-0", "5e-324", "1.7976931348623157e308", "0.1"],
    "date": ["0001-01-01", "9999-12-31", "2024-02-29"],
    "timestamp": ["0001-01-01", "9999-12-31 23:59:59.999999", "2024-03-10 02:30:00.123456"],
    "timestamp(0)": ["2024-03-10 02:30:00"],
    "at_millis": ["2024-03-10 02:30:00.123"],
    "timestamptz": [
        "0001-01-01 00:00+00", "9999-12-31 23:59:59.999999+00", "2024-03-10 02:30:00.123456+05:45",
    ],
    "time": ["00:00", "23:59:59.999999"],
    "bytea": [r"\x", r"\x0001ff00", r"\x5c5c27"],
}  # fmt: skip
"""Values of types that the warehouse has; psycopg2 reads the same ones from the source."""

AS_TEXT: Mapping[str, Sequence[str]] = {
    "text": ["", "é\n\t\"'\\x", "a\u2028b", "\U0001f600", "null", "  a  "],
    "varchar(5)": ["ab  "],
    "short_text": ["x"],
    "char(5)": ["ab", "abcde", ""],
    '"char"': ["a", r"\377", ""],
    "name": ["x" * 63],
    "citext": ["ABC"],
    "uuid": ["00000000-0000-0000-0000-00000000000a"],
    "numeric": ["1.50", "NaN", "Infinity", "-Infinity", "1e100", "-0.000"],
    "numeric(3,5)": ["0.00123"],
    "numeric(5,-2)": ["12300"],
    "numeric(50,10)": ["1" * 40 + ".5"],
    "interval": ["1 year 2 mons 3 days 04:05:06.789", "-1 day +1 hour", "0", "infinity", "1 us"],
    "interval day to second(3)": ["1 day 1.234"],
    "timetz": ["24:00:00+05:45", "12:00:00.000001-15:59"],
    "mood": ["happy", "it's; {ok}"],
    "bit(3)": ["101"],
    "bit": ["1"],
    "varbit": ["10101", ""],
    "inet": ["10.0.0.1", "10.0.0.0/8", "::1"],
    "cidr": ["10.0.0.0/8"],
    "macaddr": ["08:00:2b:01:02:03"],
    "macaddr8": ["08:00:2b:01:02:03:04:05"],
    "tsvector": ["'a':1 'b':2"],
    "tsquery": ["a & b"],
    "point": ["(1,2)"],
    "line": ["{1,2,3}"],
    "lseg": ["[(1,2),(3,4)]"],
    "box": ["(3,4),(1,2.5e-300)"],
    "path": ["((1,2),(3,4))"],
    "polygon": ["((1,2),(3,4))"],
    "circle": ["<(1,2),0.1>"],
    "xid": ["4294967295"],
    "xid8": ["18446744073709551615"],
    "tid": ["(0,1)"],
    "pg_lsn": ["16/B374D848"],
    "regclass": ["pg_class"],
    "jsonpath": ["$.a"],
    "int4range": ["[1,5)", "empty", "(,)"],
    "numrange": ["[1.5,2.5]"],
    "tstzrange": ["[2024-01-01 00:00:00+05:45,)"],
    "daterange": ["[2024-01-01,infinity)"],
    "int8multirange": ["{[1,2),[5,6)}"],
    "tsmultirange": ["{}"],
}
"""Values of types that the warehouse has as a text; psycopg2 reads that text from the source."""

BIG = "123456789012345678901234567890.123"

AS_JSON: Mapping[str, Sequence[tuple[str, str]]] = {
    "int[]": [
        ("{1,NULL,3}", "[1, null, 3]"), ("{}", "[]"), ("{{1,2},{3,4}}", "[[1, 2], [3, 4]]"),
        ("[2:3]={1,2}", "[1, 2]"),
    ],
    "numbers": [("{1,2}", "[1, 2]")],
    "numeric[]": [(f"{{1.50,{BIG}}}", f"[1.50, {BIG}]"), ("{NaN,-Infinity}", '["NaN", "-Infinity"]')],
    "float8[]": [("{0.1,NaN}", '[0.1, "NaN"]')],
    "text[]": [(r'{"a\"b","c,d","null",NULL,"\\"}', r'["a\"b", "c,d", "null", null, "\\"]')],
    "timestamptz[]": [
        ("{2024-01-01 00:00:00+05:45,infinity}", '["2023-12-31T18:15:00+00:00", "infinity"]')
    ],
    "mood[]": [('{"it\'s; {ok}"}', '["it\'s; {ok}"]')],
    "bytea[]": [(r'{"\\x00ff"}', r'["\\x00ff"]')],
    "int2vector": [("1 2", "[1, 2]")],
    "jsonb": [
        (f'{{"n":{BIG},"a":[1,{{"b":null}}]}}', f'{{"n": {BIG}, "a": [1, {{"b": null}}]}}'),
        ('"x"', '"x"'), ("null", "null"), ("1.00", "1.00"), ("1e400", "1" + "0" * 400),
    ],
    "document": [('{"a": 1}', '{"a": 1}')],
    "json": [('{"a": 1, "a": 2}', '{"a": 2}'), (f'[{BIG}, "\\u00e9"]', f'[{BIG}, "é"]')],
    "jsonb[]": [(r'{"{\"a\": 1}"}', '[{"a": 1}]')],
    "hstore": [('"a"=>"1","b"=>NULL', '{"a": "1", "b": null}')],
    "pair": [('(1,"a,b",1.50)', '{"number": 1, "Text": "a,b", "price": 1.50}')],
    "pair[]": [('{"(1,a,1.5)"}', '[{"number": 1, "Text": "a", "price": 1.5}]')],
    "pair_domain": [("(,,)", '{"number": null, "Text": null, "price": null}')],
}  # fmt: skip
"""Values of types that the warehouse has as JSON, and that JSON."""


def create(source: SourceDatabase, values: Mapping[str, Sequence[str]]) -> list[str]:
    """Create the table `shop` with a column per type, a row per value and a row of NULLs; return columns."""
    names = [f"c{number}" for number in range(len(values))]
    columns = ", ".join(f"{name} {kind}" for name, kind in zip(names, values, strict=True))
    source.run(f"CREATE TABLE shop (id int, {columns})")
    for row in range(max(map(len, values.values())) + 1):
        cells = [texts[row] if row < len(texts) else None for texts in values.values()]
        casts = ", ".join(
            f"%s::text::{kind}" if kind != "bytea" else "%s::bytea" for kind in values
        )
        source.run(f"INSERT INTO shop SELECT {row}, {casts}", parameters=cells)
    return names


def plain(value: Any) -> Any:
    """Return a value of a driver so that equal ones compare equal: NaN, the zone UTC, bytes."""
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, datetime) and value.tzinfo:
        return value.astimezone(UTC)
    return bytes(value) if isinstance(value, (memoryview, bytearray)) else value


def assert_same(found: Sequence[Any], expected: Sequence[Any], kinds: Sequence[str]) -> None:
    """Compare columns; name the type of each that differs."""
    assert len(found) == len(expected)
    wrong = {
        kind: (mine, theirs)
        for kind, mine, theirs in zip(
            kinds, zip(*found, strict=True), zip(*expected, strict=True), strict=True
        )
        if [*map(plain, mine)] != [*map(plain, theirs)]
    }
    assert not wrong


def test_a_value_of_a_type_that_the_warehouse_has_is_the_same(
    any_warehouse: str, shop: SourceDatabase
) -> None:
    shop.run(TYPES_SQL)
    names = create(shop, SAME_VALUE)
    shop.configure(**ODD_SETTINGS)
    load(Table("shop"))
    shop.run("SET timezone = 'UTC'")
    read = [
        f"{name}::float8" if kind == "float4" else name
        for name, kind in zip(names, SAME_VALUE, strict=True)
    ]
    expected = shop.run(f"SELECT {', '.join(read)} FROM shop ORDER BY id")
    assert_same(loaded(", ".join(names), "shop", "id"), expected, [*SAME_VALUE])


def test_a_value_of_another_type_is_the_text_of_the_source(
    any_warehouse: str, shop: SourceDatabase
) -> None:
    shop.run(TYPES_SQL)
    names = create(shop, AS_TEXT)
    shop.configure(**ODD_SETTINGS)
    load(Table("shop"))
    shop.run("SET timezone = 'UTC'; SET intervalstyle = 'iso_8601'")
    texts = ", ".join(f"{name}::text" for name in names)
    assert_same(
        loaded(", ".join(names), "shop", "id"),
        shop.run(f"SELECT {texts} FROM shop ORDER BY id"),
        [*AS_TEXT],
    )


def test_arrays_rows_and_json_are_json(any_warehouse: str, shop: SourceDatabase) -> None:
    shop.run(TYPES_SQL)
    names = create(shop, {kind: [value for value, _ in pairs] for kind, pairs in AS_JSON.items()})
    shop.configure(**ODD_SETTINGS)
    load(Table("shop"))
    texts = ", ".join(f"CAST({name} AS VARCHAR) AS {name}" for name in names)
    found = zip(*loaded(texts, "shop", "id"), strict=True)
    for kind, values, pairs in zip(AS_JSON, found, AS_JSON.values(), strict=True):
        expected = [exact(text) for _, text in pairs]
        assert [exact(text) for text in values if text is not None] == expected, kind


def exact(text: str) -> Any:
    """Return a JSON document with the digits of its numbers."""
    return json.loads(text, parse_float=Decimal, parse_int=Decimal)


LIMITS = {
    "date": ["infinity", "-infinity", "0001-12-31 BC", "10000-01-01"],
    "timestamp": ["infinity", "-infinity", "0044-03-15 12:00 BC", "10000-01-01", "294276-12-31"],
    "timestamptz": ["infinity", "-infinity", "0044-03-15 12:00+00 BC", "10000-01-01 00:00+00"],
    "time": ["24:00"],
    "numeric(10,2)": ["NaN"],
}


@pytest.mark.parametrize(("kind", "value"), [(k, v) for k, vs in LIMITS.items() for v in vs])
def test_a_value_that_the_warehouse_cannot_have_names_its_column_and_the_way_out(
    shop: SourceDatabase, kind: str, value: str
) -> None:
    shop.run(f'CREATE TABLE shop (id int, "the \'A""t" {kind})')
    shop.run(f"INSERT INTO shop VALUES (1, NULL), (2, '{value}')")
    name = "the 'A\"t"
    with pytest.raises(Exception, match="shop of ") as caught:
        load(Table("shop"))
    error = str(find_cause(caught.value, DatabaseError))
    assert name in error
    assert 'types={"' in error
    load(Table("shop", types={name: {"data_type": "text"}}))
    shop.run("SET timezone = 'UTC'")
    text = shop.run('SELECT "the \'A""t"::text FROM shop WHERE id = 2')[0][0]
    assert loaded("*", "shop", "id")[1][1] == text


DECLARED: Mapping[tuple[str, str], Any] = {
    ("numeric", "1.50"): {"data_type": "decimal", "precision": 10, "scale": 2},
    ("numeric", "1.5000000000000000000000000000000000000000000000"): {"data_type": "decimal", "precision": 3, "scale": 1},
    ("numeric", "-12"): {"data_type": "bigint"},
    ("numeric", "0.5"): {"data_type": "double"},
    ("money", "12.34"): {"data_type": "decimal", "precision": 19, "scale": 2},
    ("int4", "7"): {"data_type": "decimal", "precision": 10, "scale": 0},
    ("float8", "2"): {"data_type": "bigint"},
    ("text", "42"): {"data_type": "bigint"},
    ("text", "2024-01-01"): {"data_type": "date"},
    ("timestamp", "2024-01-01"): {"data_type": "date"},
    ("date", "2024-01-01"): {"data_type": "timestamp"},
    ("int4", "1"): {"data_type": "bool"},
    ("json", '{"a": 1}'): {"data_type": "text"},
    ("int8", "9007199254740992"): {"data_type": "double"},
}  # fmt: skip


def test_a_declared_type_replaces_that_of_the_database(
    any_warehouse: str, shop: SourceDatabase
) -> None:
    columns = [f"c{number}" for number in range(len(DECLARED))]
    kinds = [kind for kind, _ in DECLARED]
    shop.run(
        f"CREATE TABLE shop ({', '.join(f'{c} {k}' for c, k in zip(columns, kinds, strict=True))})"
    )
    shop.run(
        f"INSERT INTO shop SELECT {', '.join(f'%s::text::{kind}' for kind in kinds)}",
        parameters=[v for _, v in DECLARED],
    )
    load(Table("shop", types=dict(zip(columns, DECLARED.values(), strict=True))))
    assert loaded(", ".join(columns), "shop") == [(
        Decimal("1.50"), Decimal("1.5"), -12, 0.5, Decimal("12.34"), Decimal(7), 2, 42, date(2024, 1, 1),
        date(2024, 1, 1), datetime(2024, 1, 1, tzinfo=UTC), True, '{"a": 1}', 2.0**53,
    )]  # fmt: skip


UNFIT: Mapping[tuple[str, str], Any] = {
    ("numeric", "1.505"): {"data_type": "decimal", "precision": 10, "scale": 2},
    ("numeric", "100000000"): {"data_type": "decimal", "precision": 10, "scale": 2},
    ("numeric", "NaN"): {"data_type": "decimal", "precision": 10, "scale": 2},
    ("numeric", "0." + "0" * 50 + "1"): {"data_type": "decimal", "precision": 38, "scale": 2},
    ("numeric", "2.5"): {"data_type": "bigint"},
    ("float8", "2.5"): {"data_type": "bigint"},
    ("int8", "9007199254740993"): {"data_type": "double"},
    ("text", "abc"): {"data_type": "bigint"},
    ("timestamp", "2024-01-01 12:00"): {"data_type": "date"},
    ("timestamptz", "2024-01-01 12:00+00"): {"data_type": "time"},
    ("int4", "2"): {"data_type": "bool"},
}


@pytest.mark.parametrize(("kind", "value"), UNFIT)
def test_a_value_that_a_declared_type_would_change_is_refused(
    shop: SourceDatabase, kind: str, value: str
) -> None:
    shop.run(f"CREATE TABLE shop (id int, price {kind})")
    shop.run("INSERT INTO shop SELECT 1, %s::text::" + kind, parameters=[value])
    error = refused(Table("shop", types={"price": UNFIT[kind, value]}))
    assert "price" in error
    assert "shop of 127.0.0.1" in error
    assert 'types={"' in error


def test_json_is_the_text_of_the_source(any_warehouse: str, shop: SourceDatabase) -> None:
    texts = [r'"\u0000"', '{ "b" : 1,  "a":2, "b":3 }']
    shop.run("CREATE TABLE shop (id int, data json)")
    shop.run("INSERT INTO shop VALUES (1, %s), (2, %s)", parameters=texts)
    load(Table("shop"), Table("shop", types={"data": {"data_type": "text"}}, table="texts"))
    assert loaded("id, CAST(data AS VARCHAR) AS data", "shop") == [(1, texts[0]), (2, texts[1])]
    assert loaded("id, data", "texts") == [(1, texts[0]), (2, texts[1])]
