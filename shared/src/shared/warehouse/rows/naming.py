"""How names of tables and columns are written in the warehouse.

dlt's `snake_case` replaces each letter outside ASCII by an underscore, so that `名前` and `年齢` are one
column, `x`. This convention writes ASCII names as `snake_case` does, and keeps other letters and digits.
dlt finds it by the path of this module, which the stored schema has: see dlt's page about naming
conventions, and `row_normalizer.with_normalizers`.
"""

import re
import unicodedata
from functools import cache

from dlt.common.normalizers.naming import snake_case
from dlt.common.normalizers.naming.naming import NamingConvention as BaseNamingConvention

_BEFORE_WORD = re.compile("([^_])([A-Z][a-z]+)")
_BEFORE_CAPITAL = re.compile("([a-z0-9])([A-Z])")
_LETTERS_DIGITS_AND_MARKS = "LNM"  # the first letters of Unicode's categories


class NamingConvention(snake_case.NamingConvention):
    """Snake case that keeps letters and digits of every script.

    - A name in ASCII is written as dlt's `snake_case` writes it.
    - Other letters are lowercased, digits and accents stay. Each name has Unicode's composed form (NFC).
    - A name of symbols alone is written as their Unicode names: `%` is `percent_sign`.
    - A limit on the length counts bytes of UTF-8, as Postgres and file systems do.
    """

    def normalize_identifier(self, identifier: str) -> str:
        """Return the name of a table or a column in the warehouse."""
        if not identifier.isascii() or _is_symbols(identifier):
            return self.shorten_identifier(_snake_case(identifier), identifier, self.max_length)
        return super().normalize_identifier(identifier)

    @staticmethod
    @cache
    def shorten_identifier(
        normalized_ident: str,
        identifier: str,
        max_length: int,
        collision_prob: float = 0.001,
    ) -> str:
        """Return a name of at most `max_length` bytes; a name that is cut has a tag of the whole name."""
        shortened, characters = normalized_ident, max_length
        while max_length and len(shortened.encode()) > max_length:
            shortened = BaseNamingConvention.shorten_identifier(
                normalized_ident, identifier, characters, collision_prob
            )
            characters -= 1
        return shortened


@cache
def _is_symbols(identifier: str) -> bool:
    """Return whether a name has neither letters nor digits, and is not underscores alone."""
    return not any(map(_survives, identifier)) and bool(identifier.strip("_ \t\r\n"))


def _survives(character: str) -> bool:
    return unicodedata.category(character)[0] in _LETTERS_DIGITS_AND_MARKS


@cache
def _snake_case(identifier: str) -> str:
    name = unicodedata.normalize("NFC", identifier.strip())
    if _is_symbols(name):
        name = " ".join(unicodedata.name(symbol, f"u{ord(symbol):x}") for symbol in name).lower()
    name = "".join(character if _survives(character) else "_" for character in name)
    name = _BEFORE_CAPITAL.sub(r"\1_\2", _BEFORE_WORD.sub(r"\1_\2", name))
    name = unicodedata.normalize("NFC", name.lower())
    stripped = name.rstrip("_")
    name = stripped + "x" * (len(name) - len(stripped))  # as dlt does
    name = f"_{name}" if name[:1].isdigit() else name
    return re.sub("__+", "_", name)
