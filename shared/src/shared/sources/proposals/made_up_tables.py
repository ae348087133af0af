"""Tables like those of a database, with made-up rows: a test loads them where the database is not."""

from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.types import TypeEngine

from shared.sources.proposals.database import DatabaseProposal, TableProposal

ROWS = 2
"""How many rows a made-up table has."""


def made_up_sql(proposal: DatabaseProposal) -> str:
    """Return SQL that creates the proposed tables with two rows each, which have no value of the database.

    It is for Postgres if the proposal is of Postgres, and for SQLite otherwise. Types that another
    server may not have, such as enums, are texts.

    Args:
        proposal: what the database proposes.
    """
    is_postgres = proposal.dialect == "postgresql"
    dialect = (postgresql if is_postgres else sqlite).dialect()
    quote = dialect.identifier_preparer.quote
    schemas = dict.fromkeys(table.relation.schema for table in proposal.tables)
    lines = [
        f"CREATE SCHEMA IF NOT EXISTS {quote(name)};" for name in schemas if name and is_postgres
    ]
    for table in proposal.tables:
        lines += _table_sql(table, dialect)
    head = (
        "-- Tables with the columns of the database, and with made-up rows: no value is from there."
    )
    return "\n".join([head, *lines, ""])


def _table_sql(table: TableProposal, dialect: sa.Dialect) -> Iterator[str]:
    """Yield the statements of a table."""
    quote = dialect.identifier_preparer.quote
    relation = table.relation
    schema = relation.schema if dialect.name == "postgresql" else None
    name = ".".join(quote(part) for part in (schema, relation.name) if part)
    types = {
        column: _known(each["type"], dialect.name) for column, each in relation.columns.items()
    }
    columns = [f"{quote(column)} {_type_sql(kind, dialect)}" for column, kind in types.items()]
    if table.key:
        columns.append(f"PRIMARY KEY ({', '.join(map(quote, table.key))})")
    separator = ",\n    "
    yield f"\nCREATE TABLE {name} (\n    {separator.join(columns)}\n);"
    rows = [
        f"({', '.join(_literal(kind, n, dialect.name) for kind in types.values())})"
        for n in range(1, ROWS + 1)
    ]
    names = ", ".join(map(quote, types))
    yield f"INSERT INTO {name} ({names}) VALUES\n    {separator.join(rows)};"


def _known(data_type: TypeEngine[Any], dialect: str) -> TypeEngine[Any]:
    """Return a type that a new database has: text for enums, and for types of extensions."""
    if isinstance(data_type, (sa.Enum, sa.types.NullType)):
        return sa.Text()
    if dialect == "postgresql":
        if isinstance(data_type, postgresql.ARRAY):
            same = _known(data_type.item_type, dialect) is data_type.item_type
            return data_type if same else sa.Text()
        return data_type if isinstance(data_type, tuple(_VALUES)) else sa.Text()
    generic = next((kind for kind in _VALUES if isinstance(data_type, kind)), sa.Text)
    if generic is sa.Numeric:
        return data_type  # with its digits
    return sa.Text() if generic in _NOT_IN_SQLITE else generic()


def _type_sql(data_type: TypeEngine[Any], dialect: sa.Dialect) -> str:
    if isinstance(data_type, sa.String):  # without a collation, which another server may not have
        return "TEXT"
    return data_type.compile(dialect=dialect)


def _number(data_type: Any, number: int) -> str:
    return str(Decimal(number).scaleb(-(getattr(data_type, "scale", None) or 0)))


_VALUES: Mapping[type[TypeEngine[Any]], Any] = {
    sa.Boolean: lambda _, n: "true" if n == 1 else "false",
    sa.Integer: lambda _, n: str(n),
    sa.Float: lambda _, n: f"{n}.5",
    sa.Numeric: _number,
    sa.DateTime: lambda _, n: f"'2025-03-0{n} 12:00:00'",
    sa.Date: lambda _, n: f"'2025-03-0{n}'",
    sa.Time: lambda _, n: f"'0{n}:00:00'",
    sa.Uuid: lambda _, n: f"'00000000-0000-0000-0000-00000000000{n}'",
    sa.JSON: lambda _, n: f"'[{n}]'",
    sa.Interval: lambda _, n: f"'{n} hours'",
    postgresql.INTERVAL: lambda _, n: f"'{n} hours'",
    postgresql.ARRAY: lambda *_: "'{}'",
    postgresql.INET: lambda _, n: f"'192.0.2.{n}'",
    sa.LargeBinary: lambda _, n: f"x'0{n}'",
    sa.String: lambda _, n: f"'{'ab'[n - 1]}'",
}
"""The literal of each type, by row; a type is the first of which it is one."""

_NOT_IN_SQLITE = (sa.Uuid, sa.Interval, *(postgresql.INTERVAL, postgresql.ARRAY, postgresql.INET))


def _literal(data_type: TypeEngine[Any], number: int, dialect: str) -> str:
    if isinstance(data_type, sa.LargeBinary) and dialect == "postgresql":
        return f"'\\x0{number}'"
    value = next(value for kind, value in _VALUES.items() if isinstance(data_type, kind))
    return str(value(data_type, number))
