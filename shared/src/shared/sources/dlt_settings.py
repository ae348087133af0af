"""Where dlt reads settings and secrets in this repository, and which of them are secrets.

dlt loads this module as a plugin (`entry-points.dlt` in pyproject.toml). It reads the environment, then
`.dlt/` of the project whose code this process runs, then `.dlt/` of the working folder and of the
workspace, then dlt's own folder in the user's home, then the provider of `SECRETS_PROVIDER`.
"""

import os
import sys
import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import dlt
from dlt.common.configuration.plugins import hookimpl
from dlt.common.configuration.providers import ConfigProvider, EnvironProvider
from dlt.common.configuration.providers.doc import BaseDocProvider
from dlt.common.configuration.providers.toml import (
    CONFIG_TOML,
    SECRETS_TOML,
    SettingsTomlProvider,
)
from dlt.common.configuration.specs.base_configuration import is_secret_hint
from dlt.common.configuration.specs.pluggable_run_context import RunContextBase
from dlt.common.runtime.run_context import DOT_DLT, RunContext

from shared import redaction, settings
from shared.sources import secrets_provider
from shared.sources.secrets_provider import SecretsProvider

_resolved: set[str] = set()
"""What dlt took from the environment for a field that is a secret by its type."""


def dlt_secrets() -> Iterator[str]:
    """Yield what dlt read as a secret: the values of secrets.toml files and of vaults, and `_resolved`.

    The value of a `dlt.secrets["name"] = value` is one of them.
    """
    yield from tuple(_resolved)
    for value in tuple(secrets_provider.values_read):
        yield from texts(value)
    for provider in dlt.secrets.config_providers:
        file = provider.own_file() if isinstance(provider, _ProjectFile) else provider
        if isinstance(file, BaseDocProvider) and not file.is_empty:
            yield from texts(tomllib.loads(file.to_toml()))


def texts(value: Any) -> Iterator[str]:
    """Yield the texts and numbers in a value of a configuration, and the passwords of its URLs."""
    if isinstance(value, Mapping):
        for item in value.values():
            yield from texts(item)
    elif type(value) in (list, tuple):  # not a named tuple, such as an asset key of Dagster
        for item in value:
            yield from texts(item)
    elif isinstance(value, (str, int)):
        yield str(value)
        yield from redaction.password_in_url(str(value))


def forget_secrets() -> None:
    """Make the next look-up read the secrets of `SECRETS_PROVIDER` again; for the begin of a run."""
    for provider in dlt.secrets.config_providers:
        if isinstance(provider, SecretsProvider):
            provider.reset()


def also_in_provider(*sections: str) -> str:
    """Return where the provider has the secrets of some sections, as the end of a message, or ""."""
    for provider in dlt.secrets.config_providers:
        if isinstance(provider, SecretsProvider):
            return f", or in the secret {provider.secret_name(*sections)} of {provider.name}"
    return ""


_is_secret_type = cache(is_secret_hint)


def _is_secret(hint: Any) -> bool:
    """Return whether a type is a secret's. dlt needs it about 800 times in a load, for few types."""
    try:
        return _is_secret_type(hint)
    except TypeError:  # a type with metadata that has no hash
        return is_secret_hint(hint)


class _Environment(EnvironProvider):
    """The environment; it records which values are secrets by their type."""

    def get_value(
        self, key: str, hint: type[Any], pipeline_name: Any, *sections: str
    ) -> tuple[Any | None, str]:
        """Return the value, and the name of the variable."""
        if not _is_secret(hint):
            name = self.get_key_name(key, pipeline_name, *sections)
            return os.environ.get(name), name
        value, name = super().get_value(key, hint, pipeline_name, *sections)
        if value is not None:
            _resolved.update(texts(value))
        return value, name


class _SettingsFile(SettingsTomlProvider):
    """A secrets.toml or config.toml, merged from several folders; the first folder wins."""

    def __init__(self, file_name: str, folders: list[str], global_dir: str) -> None:
        unique = list(dict.fromkeys(map(os.path.abspath, [*folders, global_dir])))
        super().__init__(file_name, file_name == SECRETS_TOML, file_name, unique, global_dir)

    @property
    def is_writable(self) -> bool:
        """Whether a program may set values, in memory."""
        return True


class _ProjectFile(ConfigProvider):
    """A secrets.toml or config.toml of the project whose code this process runs.

    dlt may be imported before the project, so each look-up checks whether the project is known.
    """

    def __init__(self, file_name: str, packages: Mapping[str, Path]) -> None:
        self.file_name, self.packages = file_name, packages
        self._files: dict[Path, SettingsTomlProvider] = {}

    def own_file(self) -> SettingsTomlProvider | None:
        """Return the file of the project, once the project's package is imported.

        A process that has imported several projects, such as a test run, has no own one.
        """
        folders = {folder for name, folder in self.packages.items() if name in sys.modules}
        if len(folders) != 1:
            return None
        (folder,) = folders
        if folder not in self._files:
            self._files[folder] = SettingsTomlProvider(
                self.name, self.supports_secrets, self.file_name, [str(folder)]
            )
        return self._files[folder]

    def get_value(
        self, key: str, hint: type[Any], pipeline_name: Any, *sections: str
    ) -> tuple[Any | None, str]:
        """Return the value, and the name under which it was looked up."""
        if file := self.own_file():
            return file.get_value(key, hint, pipeline_name, *sections)
        return None, BaseDocProvider.get_key_name(key, *sections)

    @property
    def name(self) -> str:
        """The name in dlt's messages."""
        return f"the project's {self.file_name}"

    @property
    def supports_secrets(self) -> bool:
        """Whether dlt may read secrets from it."""
        return self.file_name == SECRETS_TOML

    @property
    def supports_sections(self) -> bool:
        """Whether dlt looks up a value under its sections."""
        return True

    @property
    def is_empty(self) -> bool:
        """Whether dlt need not look here."""
        file = self.own_file()
        return file is None or file.is_empty

    @property
    def locations(self) -> list[str]:
        """The file, if this process runs a project's code."""
        file = self.own_file()
        return list(file.locations) if file else []


class RepositoryRunContext(RunContext):
    """dlt's context with the settings of the repository and of the process's project.

    dlt takes a context with the name `WorkspaceRunContext` for one of its own workspaces.
    """

    def initial_providers(self) -> list[ConfigProvider]:
        """Return where dlt looks for a value, in this order."""
        root = settings.workspace_root()
        folders = [str(self.settings_dir), str(root / DOT_DLT)]
        packages = {
            package.name: folder
            for folder in root.glob(f"projects/*/{DOT_DLT}")
            for package in (folder.parent / "src").glob("*")
        }
        own: list[ConfigProvider] = [
            _ProjectFile(name, packages) for name in (SECRETS_TOML, CONFIG_TOML) if packages
        ]
        return [
            _Environment(),
            *own,
            _SettingsFile(SECRETS_TOML, folders, str(self.global_dir)),
            _SettingsFile(CONFIG_TOML, folders, str(self.global_dir)),
            *(
                [SecretsProvider(place)]
                if (place := settings.get(secrets_provider.SETTING))
                else []
            ),
        ]


@hookimpl(tryfirst=True)
def plug_run_context(
    run_dir: str | None, runtime_kwargs: dict[str, Any] | None
) -> RunContextBase | None:
    """Return the context of this repository; None for a folder that is a workspace of dlt's own kind."""
    del runtime_kwargs
    if (Path(run_dir or ".") / DOT_DLT / ".workspace").is_file():
        return None
    return RepositoryRunContext(run_dir)


redaction.SECRET_READERS.append(dlt_secrets)
