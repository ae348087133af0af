"""Names of columns as the warehouse writes them, for a source that must know which two are one."""

import re
import unicodedata
from functools import cache

from dlt.common.normalizers.naming import snake_case

_BEFORE_WORD = re.compile("([^_])([A-Z][a-z]+)")
_BEFORE_CAPITAL = re.compile("([a-z0-9])([A-Z])")
_LETTERS_DIGITS_AND_MARKS = "LNM"  # the first letters of Unicode's categories


def column_name(name: str) -> str:
    """Return the name of a column in the warehouse, however long."""
    if name.isascii() and not is_symbols(name):
        return snake_case.NamingConvention().normalize_identifier(name)
    return unicode_snake_case(name)


@cache
def is_symbols(identifier: str) -> bool:
    """Return whether a name has neither letters nor digits, and is not underscores alone."""
    return not any(map(_survives, identifier)) and bool(identifier.strip("_ \t\r\n"))


def _survives(character: str) -> bool:
    return unicodedata.category(character)[0] in _LETTERS_DIGITS_AND_MARKS


@cache
def unicode_snake_case(identifier: str) -> str:
    """Return a name in snake case with the letters and digits of every script."""
    name = unicodedata.normalize("NFC", identifier.strip())
    if is_symbols(name):
        name = " ".join(unicodedata.name(symbol, f"u{ord(symbol):x}") for symbol in name).lower()
    name = "".join(character if _survives(character) else "_" for character in name)
    name = _BEFORE_CAPITAL.sub(r"\1_\2", _BEFORE_WORD.sub(r"\1_\2", name))
    name = unicodedata.normalize("NFC", name.lower())
    stripped = name.rstrip("_")
    name = stripped + "x" * (len(name) - len(stripped))  # as dlt does
    name = f"_{name}" if name[:1].isdigit() else name
    return re.sub("__+", "_", name)
