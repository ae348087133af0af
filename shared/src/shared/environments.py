"""Environments: where one code base loads, on a laptop, for a pull request and in production.

`ETL_ENVIRONMENT` names the environment of a process. `environments.toml` at the root of the workspace
has a profile for each environment; it holds no secrets. Asset keys are the same in every environment.
"""

import getpass
import re
import sys
import tomllib
import unicodedata
from difflib import get_close_matches
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from shared import settings

LOCAL, PRODUCTION, PREVIEW = "local", "production", "preview"

FILE = "environments.toml"

_LIKE_PRODUCTION = {"prod", "prd", "live", "main", "master"}
_MAX_IDENTIFIER = 24  # Postgres has 63 characters for it, the dataset and `_staging`
_HASH_CHARS = 6
_MIN_SIMILARITY = 0.8  # of a name and a declared one, as `difflib` counts


class EnvironmentNameError(Exception):
    """`ETL_ENVIRONMENT` is not a name, or it looks like a misspelled one; the message says which."""


class EnvironmentFileError(Exception):
    """`environments.toml` is not valid; the message names the table and the key."""


class Profile(BaseModel):
    """What an environment changes, as a table of `environments.toml` states it.

    Attributes:
        schedules_on: patterns for the names of schedules and sensors that are on by default.
        alerts_webhook: the setting that has the webhook of alerts; empty for no alerts.
        partitions: which partitions a run loads that names none: those of the sample, or the latest N.
        max_partitions: how many partitions one run may load; null for any number.
        max_database_rows: how many rows are read from a table of a database; null for all.
        defer_to: the environment whose tables are read if this one does not have them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    schedules_on: list[str] = []
    alerts_webhook: str = "ALERTS_WEBHOOK_URL"
    partitions: Literal["sample"] | Annotated[int, Field(gt=0)] = "sample"
    max_partitions: Annotated[int, Field(gt=0)] | None = None
    max_database_rows: Annotated[int, Field(gt=0)] | None = None
    defer_to: str | None = None


class Environment(Profile):
    """An environment: its profile, and its names.

    Attributes:
        name: as `ETL_ENVIRONMENT` has it, such as `pr-123`.
        identifier: the name as a part of names in SQL and of files, such as `pr_123`.
    """

    name: str
    identifier: str

    @property
    def is_production(self) -> bool:
        """Whether its tables are the ones that others use; commands ask before they change them."""
        return self.name == PRODUCTION

    @property
    def has_own_file(self) -> bool:
        """Whether it has a DuckDB file of its own; on a laptop, `local` uses the default one."""
        return self.name not in (LOCAL, PRODUCTION)

    def file_of(self, default: Path) -> Path:
        """Return the DuckDB file of the environment, such as `warehouse_pr_123.duckdb`.

        Args:
            default: the file of `local` and `production`.
        """
        if not self.has_own_file:
            return default
        return default.with_stem(f"{default.stem}_{self.identifier}")

    @property
    def dataset_prefix(self) -> str:
        """What the names of its datasets begin with on a server, such as `pr_123__`."""
        return "" if self.is_production else f"{self.identifier}__"


def current() -> Environment:
    """Return the environment of this process, `ETL_ENVIRONMENT`.

    Raises:
        EnvironmentNameError: the name has no letter or digit, or looks like a misspelled one.
        EnvironmentFileError: `environments.toml` is not valid.
    """
    return named(settings.get("ETL_ENVIRONMENT"))


def named(name: str) -> Environment:
    """Return the environment of a name; one that the file does not have gets the profile `preview`.

    It raises what `current` raises.
    """
    profiles = declared()
    if name not in {*profiles, LOCAL, PRODUCTION}:
        _reject_misspelled(name, [*profiles, LOCAL, PRODUCTION])
    declared_name = name if name in {*profiles, LOCAL, PRODUCTION} else PREVIEW
    profile = profiles.get(declared_name, Profile())
    # Each person has tables of their own in `local`.
    identifier = f"{LOCAL}_{to_identifier(_user())}" if name == LOCAL else to_identifier(name)
    return Environment(name=name, identifier=identifier, **profile.model_dump())


def declared() -> dict[str, Profile]:
    """Return the profiles of `environments.toml`; none if the file does not exist.

    It is at the root of the workspace; on a server, in the folder of the installed Python environment.

    Raises:
        EnvironmentFileError: the file is not valid, or `defer_to` names no environment of it.
    """
    for file in (settings.workspace_root() / FILE, Path(sys.prefix) / FILE):
        if file.is_file():
            return _read(file, file.stat().st_mtime_ns)
    return {}


def to_identifier(name: str) -> str:
    """Return a name of lower-case letters, digits and single underscores for names in SQL.

    A name with other characters than a to z, digits and single hyphens, or a long one, gets a part of its
    hash, so that no two names become one: `pr-123` is `pr_123`, and `feature/ünï` is `feature_uni_` and six
    characters. So does one that begins like the datasets of a person, `local_`.

    Raises:
        EnvironmentNameError: the name has no letter or digit.
    """
    ascii_name = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    identifier = "_".join(re.findall(r"[a-z0-9]+", ascii_name))
    if not identifier:
        raise EnvironmentNameError(
            f"ETL_ENVIRONMENT is {name!r}; it must have a letter from a to z or a digit, such as pr-123."
        )
    is_plain = name == identifier.replace("_", "-") and not identifier.startswith(f"{LOCAL}_")
    if is_plain and len(identifier) <= _MAX_IDENTIFIER:
        return identifier
    kept = identifier[: _MAX_IDENTIFIER - _HASH_CHARS - 1].rstrip("_")
    return f"{kept}_{sha256(name.encode()).hexdigest()[:_HASH_CHARS]}"


@cache
def _read(file: Path, _changed_at: int) -> dict[str, Profile]:
    try:
        profiles = TypeAdapter(dict[str, Profile]).validate_python(
            tomllib.loads(file.read_text(encoding="utf-8"))
        )
    except tomllib.TOMLDecodeError as error:
        raise EnvironmentFileError(f"{file} is not TOML: {error}.") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"][:2])
        raise EnvironmentFileError(
            f"{file}, {where}: {first['msg']}. A table is an environment, and its keys are "
            f"{', '.join(Profile.model_fields)}."
        ) from None
    for name, profile in profiles.items():
        if profile.defer_to not in (None, PRODUCTION, *profiles) or profile.defer_to == name:
            raise EnvironmentFileError(
                f"{file}, {name}.defer_to: {profile.defer_to!r} is not another environment; there is "
                f"{', '.join({PRODUCTION: None} | dict.fromkeys(profiles))}."
            )
    return profiles


def _reject_misspelled(name: str, known: list[str]) -> None:
    close = get_close_matches(name.lower(), known, 1, _MIN_SIMILARITY)
    if name.lower() in _LIKE_PRODUCTION:
        close = [PRODUCTION]
    if close:
        raise EnvironmentNameError(
            f"ETL_ENVIRONMENT is {name!r}; did you mean {close[0]}? If it is another environment, give it "
            f"a table in {FILE}."
        )


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may have a user without a name
        return "user"
