"""A query of DuckDB whose rows are loaded into another database.

dlt translates a query for the database that it loads. So it gets a query of the same columns that reads
nothing, and the load job puts the one of DuckDB in its place.
"""

from typing import Any

import sqlglot
from sqlglot import exp


def declared_query(select: str, name: str) -> str:
    """Return a query with the columns of a query, of a subquery that has this name."""
    parsed: Any = sqlglot.parse_one(select, read="duckdb")
    columns = [exp.to_identifier(column, quoted=True) for column in parsed.named_selects]
    empty = exp.select(*(exp.alias_(exp.null(), column) for column in columns)).subquery(name)
    return (
        exp.select(*(exp.column(column, table=name) for column in columns))
        .from_(empty)
        .sql("duckdb")
    )


def query_of_duckdb(translated: str, dialect: str, selects: dict[str, str]) -> str:
    """Return a query that dlt has translated and completed, with a query of DuckDB in place of its subquery.

    Args:
        translated: the query, which has the subquery of `declared_query`.
        dialect: its dialect.
        selects: the queries of DuckDB, by the name of their subquery.
    """
    query = sqlglot.parse_one(translated, read=dialect)
    (subquery,) = (each for each in query.find_all(exp.Subquery) if each.alias in selects)
    name = subquery.alias
    subquery.replace(exp.to_table(name))
    return f"WITH {name} AS ({selects[name]}) {query.sql('duckdb')}"
