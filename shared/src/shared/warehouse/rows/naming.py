"""How names of tables and columns are written in the warehouse.

dlt's `snake_case` replaces each letter outside ASCII by an underscore, so that `名前` and `年齢` are one
column, `x`. This convention writes ASCII names as `snake_case` does, and keeps other letters and digits.
dlt finds it by the path of this module, which the stored schema has: see dlt's page about naming
conventions, and `row_normalizer.with_normalizers`.
"""

from functools import cache

from dlt.common.normalizers.naming import snake_case
from dlt.common.normalizers.naming.naming import NamingConvention as BaseNamingConvention

from shared.sources.names import is_symbols, unicode_snake_case


class NamingConvention(snake_case.NamingConvention):
    """Snake case that keeps letters and digits of every script.

    - A name in ASCII is written as dlt's `snake_case` writes it.
    - Other letters are lowercased, digits and accents stay. Each name has Unicode's composed form (NFC).
    - A name of symbols alone is written as their Unicode names: `%` is `percent_sign`.
    - A limit on the length counts bytes of UTF-8, as Postgres and file systems do.
    """

    def normalize_identifier(self, identifier: str) -> str:
        """Return the name of a table or a column in the warehouse."""
        if not identifier.isascii() or is_symbols(identifier):
            return self.shorten_identifier(
                unicode_snake_case(identifier), identifier, self.max_length
            )
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
