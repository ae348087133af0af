"""Columns whose names sound secret or personal: a proposal leaves them out, and names them.

Names decide, and never rows: a column with another name is loaded, so look through the proposal.
"""

import re

from sqlalchemy.types import Boolean, TypeEngine

from shared.sources.names import column_name

SECRET_WORDS = (
    *("password", "passwd", "pwd", "passphrase", "pin", "otp", "mfa", "totp", "hash", "salt"),
    *("secret", "token", "credential", "credentials", "api_key", "apikey", "private_key"),
)
"""Words of a name whose values give access to something."""

PERSONAL_WORDS = (
    *("email", "e_mail", "mail", "phone", "telephone", "mobile", "fax"),
    *("birth", "birthday", "birthdate", "dob", "gender", "religion", "nationality"),
    *("ssn", "social_security", "passport", "national_id", "tax_id", "vat_id", "licence_plate"),
    *("iban", "bic", "account_number", "card_number", "credit_card", "cvv", "cvc", "salary"),
    *("first_name", "firstname", "last_name", "lastname", "full_name", "fullname", "surname"),
    *("middle_name", "given_name", "family_name", "maiden_name", "username", "user_name"),
    *("address", "street", "ip", "ipaddress", "ip_addr", "ipaddr", "latitude", "longitude"),
)
"""Words of a name whose values are about one person."""

PERSONS = (
    *("person", "people", "user", "customer", "client", "contact", "employee", "staff", "member"),
    *("patient", "student", "teacher", "guest", "subscriber", "lead", "owner", "author"),
)
"""Tables of persons, in the singular: their column `name` is personal."""

_DESCRIBES = (
    *("id", "ids", "type", "kind", "status", "state", "count", "at", "on", "flag", "verified"),
    *("enabled", "confirmed", "required", "format", "length", "attempts", "expiry", "expires"),
)
"""Last words of a name that only describes such a value: `address_id`, `email_verified_at`."""

_ALWAYS = ("national_id", "tax_id", "vat_id")
"""Personal although their last word is one of those."""


def is_sensitive(table: str, column: str, data_type: TypeEngine[object] | None = None) -> bool:
    """Return whether a column sounds secret or personal.

    A word counts only as a whole: `shipping_address` is an address, `ship_date` has no `ip`.

    Args:
        table: the name of its table; `name` is personal in a table of persons.
        column: the name of the column, in any case.
        data_type: its type: yes and no are not personal.
    """
    name = f"_{column_name(column).strip('_')}_"
    words = name.strip("_").split("_")
    if any(f"_{word}_" in name for word in _ALWAYS):
        return True
    if isinstance(data_type, Boolean) or words[0] in ("is", "has") or words[-1] in _DESCRIBES:
        return False
    if any(f"_{word}_" in _singular(name) or f"_{word}_" in name for word in _WORDS):
        return True
    last_of_table = column_name(table).strip("_").rpartition("_")[2]
    return words == ["name"] and not {last_of_table, last_of_table.removesuffix("s")}.isdisjoint(
        PERSONS
    )


_WORDS = (*SECRET_WORDS, *PERSONAL_WORDS)


def _singular(name: str) -> str:
    return re.sub(r"(?<=[a-z]{3})(?<!s)s_", "_", re.sub(r"(?<=ss)es_", "_", name))
