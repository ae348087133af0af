"""What an error of Postgres means for the person who declared the table."""

from typing import Any

from shared.redaction import redact
from shared.sources.database.base import DatabaseError

_ADVICE = {
    "08001": "Check host and port, and that the server is up.",
    "28000": "Check the user, and pg_hba.conf of the server.",
    "28P01": "Check user and password in the credentials of the source.",
    "3D000": "Check the name of the database in the credentials of the source.",
    "40001": "A replica cancelled the query to apply changes: set hot_standby_feedback, raise "
    "max_standby_streaming_delay, or read from the primary. The next run starts again.",
    "42501": "Grant the right: GRANT SELECT ON {table} TO the user of the source.",
    "42P01": "Check the schema and the name, in the case that the database has.",
    "53300": "The server accepts no more connections: raise max_connections, or run fewer loads at once.",
    "55P03": "Somebody has locked the table: look into pg_locks, or raise lock_timeout_seconds.",
    "57014": "The query took longer than statement_timeout_seconds of the source: raise it, or load the "
    "table by windows or key ranges.",
    "57P01": "An administrator ended the connection. The next run starts again.",
    "57P03": "The server is starting or stopping. The next run starts again.",
}
"""The next step, by SQLSTATE."""


def database_error(
    error: Exception, server: str, table: str = "", statement: str = ""
) -> DatabaseError:
    """Return an error of a server with its place and the next step, without secrets and without rows.

    Args:
        error: what the driver raised.
        server: the server and database.
        table: the table that was read.
        statement: what was asked, if that is not the table's rows.
    """
    state: Any = getattr(error, "sqlstate", None)
    lines = [
        line.strip()
        for line in str(error).splitlines()
        if line.strip() and not line.startswith(("LINE ", "QUERY:", "CONTEXT:"))
    ]
    text = " ".join(lines).partition("Query: ")[0].partition("Query was: ")[0]
    place = f"{table} of {server}" if table else server
    advice = _ADVICE.get(state, _ADVICE["08001"] if "could not connect" in text.lower() else "")
    parts = [f"{place}: {redact(text).strip().rstrip('.')}.", statement, advice.format(table=table)]
    return DatabaseError(" ".join(filter(None, parts)))
