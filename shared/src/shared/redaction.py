"""Replace secrets in text."""

import os
import re
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote, quote_plus, unquote, urlsplit

from shared import settings

_SECRET_NAME = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD|CREDENTIALS|WEBHOOK_URL)$")
_MIN_SECRET_LENGTH = 8  # a shorter secret may be part of an unrelated text


def redact(text: str) -> str:
    """Return a text with `***` for each secret of the environment.

    A secret is the value of a variable with a name that ends with KEY, TOKEN, SECRET, PASSWORD,
    CREDENTIALS or WEBHOOK_URL, such as NASA_API_KEY, AWS_SECRET_ACCESS_KEY and dlt's own, or the password
    of a URL in any variable; plain, or escaped as in a URL or in Python's repr.
    """
    settings.load_env_file()
    named = [(name, value) for name, value in os.environ.items() if _SECRET_NAME.search(name)]
    # A webhook's response may repeat the request's target: the URL without the host.
    named += [
        (name, value.partition("://")[2].partition("/")[2])
        for name, value in named
        if name.endswith("WEBHOOK_URL")
    ]
    named += [
        # The password of a URL, such as that of Dagster's database, also appears without the URL. A
        # short one is replaced only between the URL's signs.
        (name, unquote(password) if len(password) >= _MIN_SECRET_LENGTH else f":{password}@")
        for name, value in os.environ.items()
        if (password := _password_in_url(value)) is not None
    ]
    secrets = {
        value
        for name, value in named
        if len(value) >= _MIN_SECRET_LENGTH
        and not (name in settings.SETTINGS and value == settings.SETTINGS[name].default)
        and not _is_path(value)  # the path of a key file is public
    }
    for secret in sorted(secrets, key=len, reverse=True):  # one secret may start with another
        for form in (secret, quote(secret, safe=""), quote_plus(secret), repr(secret)[1:-1]):
            text = text.replace(form, "***")
    return text


def _is_path(text: str) -> bool:
    with suppress(OSError, ValueError):  # too long for a path: the error would contain the secret
        return Path(text).exists()
    return False


def _password_in_url(text: str) -> str | None:
    with suppress(ValueError):  # not a URL
        return urlsplit(text).password
    return None
