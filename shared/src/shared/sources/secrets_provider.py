"""Secrets from AWS Secrets Manager, Google Cloud Secret Manager or HashiCorp Vault: one setting.

dlt has providers for AWS and Google; this module adds one for Vault on the same base class. What they read
is kept for one run and for at most `MAX_AGE_SECONDS`, so that a key that rotates is read again. Nothing is
read before code uses a secret, so importing a location sends no request.
"""

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from threading import RLock
from typing import Any
from urllib.parse import SplitResult, quote, urlsplit

from dlt.common import logger
from dlt.common.configuration import resolve_configuration
from dlt.common.configuration.providers import ConfigProvider
from dlt.common.configuration.providers.aws_secrets import AwsSecretsManagerProvider
from dlt.common.configuration.providers.doc import BaseDocProvider
from dlt.common.configuration.providers.google_secrets import GoogleSecretsProvider
from dlt.common.configuration.providers.provider import get_key_name
from dlt.common.configuration.providers.vault import VaultDocProvider, normalize_key
from dlt.common.configuration.specs import AwsCredentials, GcpServiceAccountCredentials
from dlt.common.configuration.specs.base_configuration import is_secret_hint
from dlt.common.configuration.utils import auto_config_fragment

from shared.redaction import redact

SETTING = "SECRETS_PROVIDER"

MAX_AGE_SECONDS = 60.0
"""How long a process keeps a value outside of a load, such as a code server that runs sensors."""

SECTIONS = ("sources", "destination")
"""dlt's sections that can be in the provider. dlt resolves settings of others when it is imported."""

values_read: list[Any] = []
"""What this process has read from the provider, also in earlier runs: for redaction."""

_TIMEOUT_SECONDS = 30


_closed: ContextVar[bool] = ContextVar("closed", default=False)


@contextmanager
def without_provider() -> Iterator[None]:
    """Let dlt resolve settings inside the block without the provider, because it needs no secret."""
    token = _closed.set(True)
    try:
        yield
    finally:
        _closed.reset(token)


class SecretsProviderError(RuntimeError):
    """The provider cannot be read: no access, no connection, or a package is missing."""


class _Nested(VaultDocProvider):
    """A vault whose secret `sources/shop` may have just its fields: `{"api_key": "..."}`.

    dlt expects a part of a secrets.toml, with the sections in it, which is possible as well.
    """

    def set_fragment(
        self, key: str | None, value_or_fragment: str, pipeline_name: str, *sections: str
    ) -> None:
        """Add a secret to the values; its fields get the sections of its name."""
        fragment = auto_config_fragment(value_or_fragment)
        value = value_or_fragment if fragment is None else fragment
        if value not in values_read:
            values_read.append(value)
        path = self.get_key_path(key or "", None, *sections)
        if key and isinstance(fragment, dict) and path[0] not in fragment:
            self.set_value(key, dict(fragment), None, *sections)
        else:
            super().set_fragment(key, value_or_fragment, pipeline_name, *sections)


class _Aws(_Nested, AwsSecretsManagerProvider):
    """dlt's provider for AWS Secrets Manager."""


class _Google(_Nested, GoogleSecretsProvider):
    """dlt's provider for Google Cloud Secret Manager."""


class _HashiCorp(_Nested):
    """Version 2 of the key-value engine of HashiCorp Vault, or of OpenBao.

    The request is https://developer.hashicorp.com/vault/api-docs/secret/kv/kv-v2#read-secret-version.
    """

    def __init__(self, url: str, mount: str, prefix: str) -> None:
        super().__init__(only_secrets=True, only_toml_fragments=True)
        self._url, self._prefix = f"{url}/v1/{mount}/data/", prefix

    @staticmethod
    def get_key_name(key: str, *sections: str) -> str:
        """Return the path of a secret."""
        return get_key_name(normalize_key(key), "/", *map(normalize_key, filter(None, sections)))

    @property
    def name(self) -> str:
        """The name in dlt's messages."""
        return "HashiCorp Vault"

    def _look_vault(self, full_key: str, hint: type) -> str | None:  # type: ignore[override] # dlt's own returns None as well
        del hint
        import requests  # on use: most runs have no Vault

        token_file = Path("~/.vault-token").expanduser()  # where `vault login` writes it
        token = os.environ.get("VAULT_TOKEN") or (
            token_file.read_text().strip() if token_file.is_file() else ""
        )
        headers = {"X-Vault-Token": token, "X-Vault-Request": "true"}
        if namespace := os.environ.get("VAULT_NAMESPACE"):
            headers["X-Vault-Namespace"] = namespace
        path = quote(self._prefix + full_key)
        response = requests.get(
            self._url + path, headers=headers, timeout=_TIMEOUT_SECONDS, allow_redirects=False
        )
        if response.status_code == requests.codes.not_found:
            return None
        if response.status_code == requests.codes.forbidden:
            # So does Vault answer for a path that no policy of the token has.
            logger.warning(f"HashiCorp Vault refuses access to {self._prefix}{full_key}")
            return None
        response.raise_for_status()
        return json.dumps(response.json()["data"]["data"])

    def _list_vault(self) -> set[str]:
        raise NotImplementedError("this provider reads secrets by their names")


@dataclass(frozen=True)
class _Place:
    """Where secrets are: a name for messages, the text before each name, and how to open it."""

    name: str
    prefix: str
    provider: type[VaultDocProvider]
    packages: str
    open: Callable[[], VaultDocProvider]


def _aws(url: SplitResult) -> _Place:
    region, prefix = url.netloc, _prefix(url.path)

    def open_provider() -> VaultDocProvider:
        credentials = resolve_configuration(
            AwsCredentials(region_name=region), sections=("providers", "aws_secrets")
        )
        return _Aws(credentials, secret_name_prefix=prefix)

    return _Place(f"AWS Secrets Manager ({region})", prefix, _Aws, "'dlt[s3]'", open_provider)


def _google(url: SplitResult) -> _Place:
    project = url.netloc
    if url.path.strip("/"):
        raise ValueError(project)

    def open_provider() -> VaultDocProvider:
        credentials = resolve_configuration(
            GcpServiceAccountCredentials(project_id=project),
            sections=("providers", "google_secrets"),
        )
        return _Google(credentials)

    packages = "google-api-python-client google-auth-httplib2"
    return _Place(f"Google Cloud Secret Manager ({project})", "", _Google, packages, open_provider)


def _hashicorp(url: SplitResult) -> _Place:
    mount, _, path = url.path.strip("/").partition("/")
    if not mount or url.username or url.password:
        raise ValueError(mount)
    scheme = "http" if url.scheme == "vault+http" else "https"
    server, prefix = f"{scheme}://{url.netloc}", _prefix(path)
    return _Place(
        f"HashiCorp Vault ({server}, {mount})",
        prefix,
        _HashiCorp,
        "requests",
        lambda: _HashiCorp(server, mount, prefix),
    )


def _is_in_provider(sections: Sequence[str]) -> bool:
    """Return whether dlt looks for a value of one source or destination.

    dlt looks there for its own settings as well, and for those of all sources or destinations.
    """
    start = next((n for n, section in enumerate(sections) if section in SECTIONS), len(sections))
    names = sections[start + 1 : start + 2]
    own = ("runtime", "credentials", "staging_config")
    return bool(names) and names[0] not in own and "runtime" not in sections


def _prefix(path: str) -> str:
    return f"{path.strip('/')}/" if path.strip("/") else ""


_SCHEMES: Mapping[str, Callable[[SplitResult], _Place]] = {
    "aws": _aws,
    "google": _google,
    "vault": _hashicorp,
    "vault+http": _hashicorp,
}


def _place(text: str) -> _Place:
    """Return the place that the setting names.

    Raises:
        ValueError: it names none.
    """
    url = urlsplit(text)
    try:
        return _SCHEMES[url.scheme if url.netloc and not url.query else ""](url)
    except (KeyError, ValueError):
        raise ValueError(
            f"{SETTING} is {redact(text)!r}; it must be aws://REGION/PREFIX, google://PROJECT or "
            "vault://HOST:PORT/MOUNT/PREFIX. See docs/secrets.md."
        ) from None


class SecretsProvider(ConfigProvider):
    """The secrets of `SECRETS_PROVIDER`, for dlt. It opens the provider at the first look-up of a run."""

    def __init__(self, text: str) -> None:
        self._place = _place(text)
        self._lock = RLock()
        self._opened: VaultDocProvider | None = None
        self._opened_at = 0.0

    def reset(self) -> None:
        """Forget what was read, so that the next look-up reads it again."""
        with self._lock:
            self._opened = None

    def get_value(
        self, key: str, hint: type[Any], pipeline_name: Any, *sections: str
    ) -> tuple[Any | None, str]:
        """Return the value, and where it was looked up.

        Raises:
            SecretsProviderError: the provider cannot be read.
        """
        read = is_secret_hint(hint) or self._opened
        if pipeline_name or _closed.get() or not _is_in_provider(sections) or not read:
            return None, BaseDocProvider.get_key_name(key, *sections)
        where = f"{key} in {self.secret_name(*sections)}"
        try:
            with self._lock:
                value, _ = self._provider().get_value(key, hint, pipeline_name, *sections)
        except Exception as error:  # noqa: BLE001 - each client raises its own
            raise SecretsProviderError(self._message(error, where)) from None
        return value, where

    def _provider(self) -> VaultDocProvider:
        if self._opened is not None and time.monotonic() - self._opened_at > MAX_AGE_SECONDS:
            self._opened = None
        if self._opened is None:
            self._opened, self._opened_at = self._place.open(), time.monotonic()
        return self._opened

    def _message(self, error: Exception, where: str) -> str:
        if isinstance(error, ImportError):  # dlt's error for a missing package is one
            text = f"its client is not installed. Add it: uv add --package shared {self._place.packages}"
        else:
            text = redact((str(error).strip() or type(error).__name__).splitlines()[0])
        return f"{self.name} cannot be read ({where}): {text}"

    def secret_name(self, *sections: str) -> str:
        """Return the name of the secret that has the values of some of dlt's sections."""
        start = next((n for n, name in enumerate(sections) if name in SECTIONS), 0)
        *before, last = sections[start : start + 2]
        return self._place.prefix + self._place.provider.get_key_name(last, *before)

    @property
    def name(self) -> str:
        """The name in dlt's messages."""
        return self._place.name

    @property
    def supports_secrets(self) -> bool:
        """Whether dlt may read secrets from it."""
        return True

    @property
    def supports_sections(self) -> bool:
        """Whether dlt looks up a value under its sections."""
        return True
