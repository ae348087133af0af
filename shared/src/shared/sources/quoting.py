"""Texts as parts of SQL."""


def literal(text: str) -> str:
    """Return a text as a SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def quote(text: str) -> str:
    """Return a text in double quotes: a SQL identifier, or a value of a CSV file."""
    return '"' + text.replace('"', '""') + '"'
