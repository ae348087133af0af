"""Strike secrets out of text."""

import os
import re
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote, quote_plus, unquote, urlsplit

from shared import settings

_SECRET = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD|CREDENTIALS|WEBHOOK_URL)$")
_MIN_SECRET_LENGTH = 8  # a shorter one would be found in texts that have nothing to do with it


def redact(text: str) -> str:
    """Returns a text with `***` for each secret of the environment.

    A secret is what a variable holds whose name ends with KEY, TOKEN, SECRET, PASSWORD, CREDENTIALS or
    WEBHOOK_URL, such as NASA_API_KEY, AWS_SECRET_ACCESS_KEY and dlt's own, or the password of an
    address; plain, or written as in an address.
    """
    settings.load_env_file()
    named = [(name, secret) for name, secret in os.environ.items() if _SECRET.search(name)]
    # Who answers for a webhook may repeat what was asked for, which is its address less the host.
    named += [
        (name, secret.partition("://")[2].partition("/")[2])
        for name, secret in named
        if name.endswith("WEBHOOK_URL")
    ]
    # An address, such as that of Dagster's database, holds a password, which stands alone elsewhere.
    named += [
        # Of a short one the signs around it: it would be found in texts that have nothing to do with it.
        (name, unquote(password) if len(password) >= _MIN_SECRET_LENGTH else f":{password}@")
        for name, address in os.environ.items()
        if (password := _password_in_url(address)) is not None
    ]
    secrets = {
        secret
        for name, secret in named
        if len(secret) >= _MIN_SECRET_LENGTH
        and not (name in settings.SETTINGS and secret == settings.SETTINGS[name].default)
        and not _is_path(secret)  # where a key is kept is no secret
    }
    for secret in sorted(secrets, key=len, reverse=True):  # one may be the beginning of another
        for written in (secret, quote(secret, safe=""), quote_plus(secret), repr(secret)[1:-1]):
            text = text.replace(written, "***")
    return text


def _is_path(text: str) -> bool:
    with suppress(OSError, ValueError):  # too long for one: the error would tell the secret
        return Path(text).exists()
    return False


def _password_in_url(address: str) -> str | None:
    with suppress(ValueError):  # no address at all
        return urlsplit(address).password
    return None
