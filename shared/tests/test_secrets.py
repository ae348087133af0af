"""Whatever way a source gets a secret, it is in no failure, no event, no log and no alert."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import dlt
import pytest
from dagster_dlt import dlt_assets
from dlt.common.runtime.run_context import switched_run_context
from dlt.extract import DltSource
from dlt.sources.helpers import requests
from dlt.sources.helpers.rest_client.auth import HttpBasicAuth
from dlt.sources.rest_api import rest_api_source

from shared import warehouse
from shared.orchestration.resource import WarehouseDltResource
from shared.orchestration.translator import WarehouseTranslator
from shared.redaction import is_secret_name, redact
from shared.sources.dlt_settings import RepositoryRunContext

KEY = "marked/key of 7"
NOBODY = "http://127.0.0.1:9"
CONSTANT_API_KEY = KEY
PLAIN_CONSTANT = "".join(KEY)

SECRET_NAMES = [
    "SHOP_PASSPHRASE",
    "SHOP_PASS",
    "SHOP_PWD",
    "DBPASS",
    "SHOP_AUTH",
    "SHOP_BEARER",
    "SHOP_SAS",
    "SHOP_API_KEY_2",
    "SHOP_TOKEN_EU",
    "GCP_PRIVATE_KEY_ID",
    "SHOP_TOKENS",
    "APIKEY",
    "shop_api_key",
    "SHOPTOKEN",
    "AWS_SECRET_ACCESS_KEY",
    "NASA_API_KEY",
    "ALERTS_WEBHOOK_URL",
    "SLACK_WEBHOOK",
    "BLOB_SAS_URL",
    "DESTINATION__WAREHOUSE__CREDENTIALS",
    "X-Api-Key",
    "DESTINATION__WAREHOUSE__CREDENTIALS__PASSWORD",
    "SOURCES__SHOP__AUTH__TOKEN",
    "Authorization",
]
OTHER_NAMES = [
    "PATH",
    "HOME",
    "COMPASS",
    "BYPASS_CACHE",
    "SASKATOON",
    "KEYBOARD",
    "AUTHOR",
    "SSH_AUTH_SOCK",
    "SHOP_TOKEN_URL",
    "AUTH_TYPE",
    "SECRET_NAME",
    "KEY_FILE",
    "TOKEN_EXPIRY_SECONDS",
    "DESTINATION__WAREHOUSE__CREDENTIALS__DATABASE",
    "DESTINATION__WAREHOUSE__CREDENTIALS__HOST",
    "SOURCES__SHOP__AUTH__SHOP",
    "DAGSTER_HOME",
    "WAREHOUSE_PATH",
    "PASSENGERS",
    "TOKENIZER",
    "SECRETARY",
    "REPOSITORY_URL",
    "NASA_BASE_URL",
]


@pytest.mark.parametrize("name", SECRET_NAMES)
def test_the_value_of_a_variable_with_a_secrets_name_is_redacted(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert is_secret_name(name)
    monkeypatch.setenv(name, KEY)
    assert redact(f"no answer to {KEY}") == "no answer to ***"


@pytest.mark.parametrize("name", OTHER_NAMES)
def test_the_value_of_a_variable_with_another_name_is_shown(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not is_secret_name(name)
    monkeypatch.setenv(name, KEY)
    assert redact(f"no answer to {KEY}") == f"no answer to {KEY}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("GET http://x/y?api_key=ab1&page=2", "GET http://x/y?api_key=***&page=2"),
        ("'http://x/y?page=2&access_token=ab1'", "'http://x/y?page=2&access_token=***'"),
        ("mysql://me:pw1@host/db", "mysql://me:***@host/db"),
        ("{'Authorization': 'Bearer abc.def-123'}", "{'Authorization': 'Bearer ***'}"),
        ("Basic authentication failed", "Basic authentication failed"),
        ("http://x/y?day=2025-03-10", "http://x/y?day=2025-03-10"),
    ],
)
def test_a_secret_is_found_by_the_text_around_it(text: str, expected: str) -> None:
    assert redact(text) == expected


def request_with(key: str) -> Iterator[dict[str, Any]]:
    requests.get(f"{NOBODY}/orders?q={key}", headers={"X": key})
    yield {"id": 1}


def by_argument() -> DltSource:
    """An argument that dlt fills from secrets.toml: `dlt.secrets.value`."""

    @dlt.source(name="shop")
    def source(number: str = dlt.secrets.value) -> Any:
        return dlt.resource(request_with(number), name="orders")

    return source()


def in_the_resource() -> DltSource:
    """`dlt.secrets[...]` while the resource runs."""

    @dlt.source(name="shop")
    def source() -> Any:
        @dlt.resource(name="orders")
        def orders() -> Iterator[dict[str, Any]]:
            yield from request_with(dlt.secrets["sources.shop.number"])

        return orders

    return source()


def set_by_code() -> DltSource:
    """A vault's answer that the code puts into `dlt.secrets`."""
    dlt.secrets["sources.vault.number"] = PLAIN_CONSTANT

    @dlt.source(name="vault")
    def source(number: str = dlt.secrets.value) -> Any:
        return dlt.resource(request_with(number), name="orders")

    return source()


def passed_by_code() -> DltSource:
    """A value that the code passes, in a parameter with a secret's name."""

    @dlt.source(name="shop")
    def source(api_key: str) -> Any:
        @dlt.resource(name="orders")
        def orders() -> Iterator[dict[str, Any]]:
            yield from request_with(api_key)

        return orders

    return source(PLAIN_CONSTANT)


def constant() -> DltSource:
    """A constant of the module with a secret's name."""

    @dlt.source(name="shop")
    def source() -> Any:
        return dlt.resource(request_with(CONSTANT_API_KEY), name="orders")

    return source()


def rest_api(**client: Any) -> Callable[[], DltSource]:
    """A rest_api configuration with the key in a place, and in the URL by the resource's path."""
    path = f"orders?q={KEY}"

    def build() -> DltSource:
        config: Any = {"client": {"base_url": NOBODY, **client}, "resources": [{"name": "orders"}]}
        config["resources"][0]["endpoint"] = {"path": path}
        return rest_api_source(config, name="shop")

    return build


WAYS: dict[str, Callable[[], DltSource]] = {
    "dlt.secrets.value": by_argument,
    "dlt.secrets[...]": in_the_resource,
    "dlt.secrets[...] = value": set_by_code,
    "an argument": passed_by_code,
    "a constant": constant,
    "rest_api bearer": rest_api(auth={"type": "bearer", "token": KEY}),
    "rest_api shorthand": rest_api(auth={"token": KEY}),
    "rest_api api_key": rest_api(auth={"type": "api_key", "api_key": KEY, "location": "query"}),
    "rest_api basic": rest_api(auth=HttpBasicAuth("me", KEY)),
    "rest_api header": rest_api(headers={"X-Api-Key": KEY}),
}


@pytest.fixture(scope="module")
def instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dg.DagsterInstance]:
    """One instance for all tests of this file: each creates its tables once."""
    folder = str(tmp_path_factory.mktemp("instance"))
    with dg.instance_for_test(temp_dir=folder) as created:
        yield created


def failed_events(source: DltSource, instance: dg.DagsterInstance) -> str:
    """Load a source whose server does not answer, and return all that Dagster stored."""

    @dlt_assets(
        dlt_source=source,
        dlt_pipeline=warehouse.pipeline("shop_pipeline", dataset_name="shop"),
        dagster_dlt_translator=WarehouseTranslator("team:test"),
        name="shop",
    )
    def shop(context: dg.AssetExecutionContext, dlt: WarehouseDltResource) -> Iterator[object]:
        yield from dlt.run(context)

    result = dg.materialize(
        [shop], resources={"dlt": WarehouseDltResource()}, instance=instance, raise_on_error=False
    )
    assert not result.success
    return str(instance.all_logs(result.run_id))


@pytest.fixture
def settings_folder(tmp_warehouse: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Make dlt read settings from a folder of the test, and return it."""
    monkeypatch.setenv("RUNTIME__REQUEST_MAX_ATTEMPTS", "1")
    (tmp_warehouse / ".dlt").mkdir()
    (tmp_warehouse / ".dlt" / "secrets.toml").write_text(f'[sources.shop]\nnumber = "{KEY}"\n')
    with switched_run_context(RepositoryRunContext(str(tmp_warehouse))):
        yield tmp_warehouse


@pytest.mark.usefixtures("settings_folder")
@pytest.mark.parametrize("way", WAYS)
def test_a_secret_of_a_source_is_neither_in_the_failure_nor_in_the_log(
    way: str, instance: dg.DagsterInstance, settings_folder: Path
) -> None:
    if not way.startswith("dlt.secrets"):
        (settings_folder / ".dlt" / "secrets.toml").unlink()
        with switched_run_context(RepositoryRunContext(str(settings_folder))):
            stored = failed_events(WAYS[way](), instance)
    else:
        stored = failed_events(WAYS[way](), instance)
    assert "Max retries exceeded" in stored
    assert "Traceback" in stored
    assert "***" in stored
    assert "marked" not in stored


def test_a_variable_of_any_name_is_a_secret_if_the_source_declares_it_as_one(
    settings_folder: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    (settings_folder / ".dlt" / "secrets.toml").write_text("")
    monkeypatch.setenv("SOURCES__SHOP__NUMBER", KEY)
    with switched_run_context(RepositoryRunContext(str(settings_folder))):
        stored = failed_events(by_argument(), instance)
    assert "Max retries exceeded" in stored
    assert "marked" not in stored


def test_the_keys_of_tables_and_rows_are_shown_in_a_failure() -> None:
    from shared.sources.error_secrets import error_secrets

    def load(primary_key: str, key: str) -> None:
        row = {"order_key": "order 2025-1"}
        raise ValueError(f"{primary_key} {key} {row}")

    with pytest.raises(ValueError, match="customer_number") as caught:
        load("customer_number", "partition-key")
    assert not error_secrets(caught.value) & {"customer_number", "partition-key", "order 2025-1"}
