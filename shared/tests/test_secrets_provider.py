"""Secrets come from a provider: read again for each run, never at import, and never shown."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar
from uuid import uuid4

import boto3
import dagster as dg
import dlt
import pytest
from dagster_dlt import dlt_assets
from dlt.common.configuration.container import Container
from dlt.common.configuration.exceptions import ConfigFieldMissingException
from dlt.common.configuration.specs import PluggableRunContext
from moto.moto_api import recorder

from shared import warehouse
from shared.orchestration.resource import WarehouseDltResource
from shared.redaction import redact
from shared.sources import secrets_provider
from shared.sources.database.base import DatabaseError
from shared.sources.database.connection import database_configuration
from shared.sources.secrets_provider import SecretsProviderError
from shared.warehouse.errors import WarehouseConfigError

KEY, NEW_KEY = "first-key-of-the-shop", "second-key-of-the-shop"


class Vault:
    """The secrets of one test in AWS Secrets Manager, and the requests to the server."""

    def __init__(self, url: str) -> None:
        self.prefix = f"etl-{uuid4().hex}"
        self.client = boto3.client(
            "secretsmanager",
            endpoint_url=url,
            region_name="eu-central-1",
            aws_access_key_id="key",
            aws_secret_access_key="secret-of-the-test",
        )

    def store(self, name: str, value: Any) -> None:
        name = f"{self.prefix}/{name}"
        text = value if isinstance(value, str) else json.dumps(value)
        try:
            self.client.put_secret_value(SecretId=name, SecretString=text)
        except self.client.exceptions.ResourceNotFoundException:
            self.client.create_secret(Name=name, SecretString=text)


def use_provider(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("SECRETS_PROVIDER", text)
    Container()[PluggableRunContext].reload_providers()


@pytest.fixture(autouse=True)
def providers_of_the_session(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give dlt its providers back after the test."""
    yield
    monkeypatch.undo()
    Container()[PluggableRunContext].reload_providers()


@pytest.fixture
def requests_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], int]]:
    """Return how many requests of all processes the server of AWS has answered in this test."""
    file = tmp_path / "requests.jsonl"
    file.touch()
    monkeypatch.setattr(recorder, "_location", str(file))
    recorder.start_recording()
    yield lambda: len(file.read_text().splitlines())
    recorder.stop_recording()


@pytest.fixture
def vault(
    bucket_server: str, tmp_warehouse: object, monkeypatch: pytest.MonkeyPatch
) -> Vault:
    del tmp_warehouse
    monkeypatch.setenv("AWS_ENDPOINT_URL", bucket_server)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-of-the-test")
    created = Vault(bucket_server)
    use_provider(monkeypatch, f"aws://eu-central-1/{created.prefix}")
    return created


@dlt.source(name="shop")
def shop(api_key: str = dlt.secrets.value) -> Any:
    return dlt.resource(
        [{"id": 1, "key": api_key}], name="orders", write_disposition="replace"
    )


@dlt_assets(
    dlt_source=shop(api_key="not read here"),
    dlt_pipeline=warehouse.pipeline("shop", dataset_name="shop_data"),
    name="shop",
)
def shop_assets(context: dg.AssetExecutionContext, dlt: WarehouseDltResource) -> Iterator[Any]:
    yield from dlt.run(context, shop())


def load_shop() -> dg.ExecuteInProcessResult:
    return dg.materialize(
        [shop_assets], resources={"dlt": WarehouseDltResource()}, raise_on_error=False
    )


def loaded_key() -> str:
    ((key,),) = warehouse.query("SELECT key FROM shop_data.orders").fetchall()
    return str(key)


@pytest.mark.parametrize(
    "stored",
    [
        {"sources/shop": {"api_key": KEY}},
        {"sources/shop": f'[sources.shop]\napi_key = "{KEY}"\n'},
        {"sources": {"shop": {"api_key": KEY}}},
        {"dlt_secrets_toml": f'[sources.shop]\napi_key = "{KEY}"\n'},
    ],
    ids=["fields", "toml", "all sources", "everything"],
)
def test_a_source_gets_its_secret(vault: Vault, stored: dict[str, Any]) -> None:
    for name, value in stored.items():
        vault.store(name, value)
    assert dlt.secrets["sources.shop.api_key"] == KEY
    assert next(iter(shop()))["key"] == KEY
    assert redact(f"refused {KEY}") == "refused ***"


def test_the_environment_wins_over_the_provider(
    vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    vault.store("sources/shop", {"api_key": KEY})
    monkeypatch.setenv("SOURCES__SHOP__API_KEY", NEW_KEY)
    assert next(iter(shop()))["key"] == NEW_KEY
