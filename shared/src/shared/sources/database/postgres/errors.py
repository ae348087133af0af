"""What an error of Postgres means for the person who declared the table."""

import re

from shared.redaction import redact
from shared.sources.database.base import DatabaseError
from shared.sources.database.masks import MASKED_MESSAGE
from shared.sources.database.tls import tls_advice

_ADVICE = {
    "08001": "Check host and port, and that the server is up.",
    "22021": "A text is not in the encoding of its database. Load the columns that may have such texts as "
    'bytes: types={{"column": {{"data_type": "binary"}}}}.',
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

_STATES = {
    "password authentication failed": "28P01",
    "no pg_hba.conf entry|role .* does not exist|permission denied for database": "28000",
    "database .* does not exist": "3D000",
    "too many (clients|connections)|remaining connection slots": "53300",
    "due to statement timeout": "57014",
    "due to lock timeout": "55P03",
    "due to conflict with recovery": "40001",
    "terminating connection": "57P01",
    "is (starting up|shutting down)": "57P03",
    "invalid byte sequence for encoding|has no equivalent in encoding": "22021",
}
"""The SQLSTATE, by a part of the message: the driver has none while it connects and while rows arrive."""


def database_error(
    error: Exception,
    server: str,
    table: str = "",
    statement: str = "",
    *,
    has_masks: bool = False,
) -> DatabaseError:
    """Return an error of a server with its place and the next step, without secrets and without rows.

    Args:
        error: what the driver raised.
        server: the server and database.
        table: the table that was read.
        statement: what was asked, if that is not the table's rows.
        has_masks: whether the message may have a value that must not be shown.
    """
    lines = [
        line.strip()
        for line in str(error).splitlines()
        if line.strip() and not line.startswith(("LINE ", "QUERY:", "CONTEXT:"))
    ]
    text = " ".join(lines).partition("Query: ")[0].partition("Query was: ")[0]
    place = f"{table} of {server}" if table else server
    states = (number for part, number in _STATES.items() if re.search(part, text))
    state = getattr(error, "sqlstate", None) or next(states, "")
    unreachable = _ADVICE["08001"] if re.search("connect", text, re.IGNORECASE) else ""
    advice = _ADVICE.get(state) or tls_advice(text) or unreachable
    if has_masks:
        text = MASKED_MESSAGE
    parts = [f"{place}: {redact(text).strip().rstrip('.')}.", statement, advice.format(table=table)]
    return DatabaseError(" ".join(filter(None, parts)))
