"""Replace secrets in text."""

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote, quote_plus, unquote, urlsplit

from shared import settings

SECRET_READERS: list[Callable[[], Iterable[str]]] = []
"""Functions that return more secrets of this process; `sources.dlt_settings` adds those of dlt."""

_MIN_SECRET_LENGTH = 8  # a shorter secret may be part of an unrelated text

_SECRET_WORD = re.compile(
    r"\w*(KEY|TOKEN|SECRET|PASSWORD|PASSPHRASE)S?|(DB|USER)?(PASS|PASSWD|PWD)|BEARER|SAS|WEBHOOK|AUTHORIZATION"
)
_SECTION_OR_SECRET_WORD = re.compile(r"AUTH|CREDENTIALS?")
"""A word of a secret's name, which is also a section of dlt's names: CREDENTIALS__DATABASE is none."""

_DESCRIBES_A_SECRET = re.compile(
    r"(URI|URL|ENDPOINT|HOST|SERVER|PORT|USER|USERNAME|NAME|TYPE|METHOD|MODE|ALGORITHM|ALGO|LOCATION|"
    r"PROVIDER|ENABLED|SECONDS|TIMEOUT|TTL|EXPIRY|EXPIRES|SCOPES?|PATH|FILE|DIR|SOCK|COUNT|LENGTH|SIZE|LIMIT)"
)
"""The last word of a name whose value is not a secret, such as TOKEN_URL and AUTH_TYPE."""


_PARAMETER = re.compile(r"([?&]([\w.-]+)=)([^&\s\"'<>()\[\]{},]+)")
_URL_PASSWORD = re.compile(r"(://[^\s/:@]+):[^\s/@]+@")
_AUTHORIZATION = re.compile(r"\b(Bearer|Basic) (?=[a-zA-Z._~+/=-]*\d)[\w.~+/=-]{8,}")
"""Secrets by the text around them: a URL's parameter, a URL's password, a header of HTTP."""


def redact(text: str, also: Iterable[str] = ()) -> str:
    """Return a text with `***` for each secret of the process; plain, or escaped as in a URL or in repr.

    Secrets are the values of variables of the environment with a secret's name (see `is_secret_name`),
    such as NASA_API_KEY, AWS_SECRET_ACCESS_KEY and dlt's own; the password of a URL in any variable; what
    `SECRET_READERS` return: what dlt read as a secret; and what is in `also`. So are, whatever their value,
    the parameters of a URL with a secret's name, its password, and the value of an Authorization header.
    """
    settings.load_env_file()
    secrets = {value for value in _environment_secrets() if _is_long(value)}
    secrets |= {value for read in SECRET_READERS for value in read() if _is_long(value)}
    secrets |= {value for value in also if _is_long(value)}
    # The path of a key file is public.
    for secret in sorted(secrets, key=len, reverse=True):  # one secret may start with another
        if any(form in text for form in _forms(secret)) and not _is_path(secret):
            for form in _forms(secret):
                text = text.replace(form, "***")
    text = _PARAMETER.sub(lambda found: found[1] + _redacted(found[2], found[3]), text)
    text = _URL_PASSWORD.sub(r"\1:***@", text)
    return _AUTHORIZATION.sub(r"\1 ***", text)


def is_secret_name(name: str) -> bool:
    """Return whether the value of an environment variable with this name is a secret.

    A part of it is a word such as KEY, TOKEN, SECRET, PASSWORD, PASSPHRASE, PASS, PWD, AUTH, BEARER, SAS
    or CREDENTIALS, as in API_KEY_2, and its last part does not say that the value only describes the
    secret, as in TOKEN_URL.
    """
    words = re.findall(r"[A-Z]+", name.upper())
    last_section = re.findall(r"[A-Z]+", name.upper().rpartition("__")[2])
    if not words or _DESCRIBES_A_SECRET.fullmatch(words[-1]):
        return name.upper().endswith(("WEBHOOK_URL", "SAS_URL"))
    return any(_SECRET_WORD.fullmatch(word) for word in words) or any(
        _SECTION_OR_SECRET_WORD.fullmatch(word) for word in last_section
    )


def _environment_secrets() -> Iterator[str]:
    """Yield the secrets in the environment; a setting's default is none."""
    for name, value in os.environ.items():
        default = name in settings.SETTINGS and value == settings.SETTINGS[name].default
        if is_secret_name(name) and not default:
            yield value
            if name.endswith("WEBHOOK_URL"):
                # A webhook's response may repeat the request's target: the URL without the host.
                yield value.partition("://")[2].partition("/")[2]
        # The password of a URL, such as that of Dagster's database, also appears without the URL.
        yield from password_in_url(value)


def password_in_url(text: str) -> Iterator[str]:
    """Yield the password of a URL; a short one with the URL's signs around it, to replace only there."""
    with suppress(ValueError):  # not a URL
        if "://" in text and (password := urlsplit(text).password) is not None:
            yield unquote(password) if len(password) >= _MIN_SECRET_LENGTH else f":{password}@"


def _redacted(name: str, value: str) -> str:
    return "***" if is_secret_name(name) else value


def _is_long(secret: str) -> bool:
    # A short password of a URL has the URL's signs around it.
    return len(secret) >= _MIN_SECRET_LENGTH or bool(re.fullmatch(r":.*@", secret))


def _forms(secret: str) -> Iterator[str]:
    """Yield a secret as it may be written: plain, in a URL, in Python's repr, in JSON."""
    yield from (secret, quote(secret, safe=""), quote_plus(secret), quote(secret))
    yield quote(secret, safe=" +")  # as SQLAlchemy writes URLs
    yield from (repr(secret)[1:-1], json.dumps(secret)[1:-1])


def _is_path(text: str) -> bool:
    with suppress(OSError, ValueError):  # too long for a path: the error would contain the secret
        return Path(text).exists()
    return False
