"""Secrets come from a provider: read again for each run, never at import, and never shown."""

import base64
import json
import subprocess
import sys
from collections import Counter as Count
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
from shared.sources.dlt_settings import forget_secrets
from shared.sources.secrets_provider import SecretsProviderError
from shared.warehouse.errors import WarehouseConfigError

Counter = Count[str]
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
def secrets_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[], Counter]]:
    """Return how often any process has requested each secret from the server in this test."""
    file = tmp_path / "requests.jsonl"
    file.touch()
    monkeypatch.setattr(recorder, "_location", str(file))

    def read() -> Counter:
        sent = [json.loads(line) for line in file.read_text().splitlines()]
        return Count(
            json.loads(base64.b64decode(request["body"]))["SecretId"].partition("/")[2]
            for request in sent
            if request["headers"]["X-Amz-Target"] == "secretsmanager.GetSecretValue"
        )

    recorder.start_recording()
    yield read
    recorder.stop_recording()


@pytest.fixture
def vault(bucket_server: str, tmp_warehouse: object, monkeypatch: pytest.MonkeyPatch) -> Vault:
    del tmp_warehouse
    monkeypatch.setenv("AWS_ENDPOINT_URL", bucket_server)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-of-the-test")
    created = Vault(bucket_server)
    use_provider(monkeypatch, f"aws://eu-central-1/{created.prefix}")
    return created


@dlt.source(name="shop")
def shop(api_key: str = dlt.secrets.value) -> Any:
    return dlt.resource([{"id": 1, "key": api_key}], name="orders", write_disposition="replace")


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
    (row,) = warehouse.query("SELECT key FROM shop_data.orders")
    return str(row["key"])


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


def test_a_key_that_rotates_is_read_again_by_the_next_run(
    vault: Vault, secrets_read: Callable[[], Counter]
) -> None:
    """In this process and in a new one."""
    vault.store("sources/shop", {"api_key": KEY})
    assert load_shop().success
    assert loaded_key() == KEY
    vault.store("sources/shop", {"api_key": NEW_KEY})
    assert load_shop().success
    assert loaded_key() == NEW_KEY
    each_run = ["dlt_secrets_toml", "sources", "sources/shop", "sources/test_secrets_provider"]
    each_run += ["destination", "destination/warehouse"]
    assert secrets_read() == dict.fromkeys(each_run, 2)

    vault.store("sources/shop", {"api_key": KEY})
    script = "import dlt; print(dlt.secrets['sources.shop.api_key'])"
    new_process = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert new_process.stdout.strip() == KEY
    # The old keys may still be in an error.
    assert redact(f"{KEY} {NEW_KEY}") == "*** ***"


def test_a_process_without_loads_reads_a_key_again_after_a_minute(
    vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as a code server, whose sensors use the warehouse."""
    vault.store("sources/shop", {"api_key": KEY})
    assert dlt.secrets["sources.shop.api_key"] == KEY
    vault.store("sources/shop", {"api_key": NEW_KEY})
    assert dlt.secrets["sources.shop.api_key"] == KEY
    monkeypatch.setattr(secrets_provider, "MAX_AGE_SECONDS", 0.0)
    assert dlt.secrets["sources.shop.api_key"] == NEW_KEY


IMPORT = """
from importlib import import_module

import dagster as dg

from shared.cli.locations import code_locations

for module in code_locations().values():
    dg.Definitions.validate_loadable(import_module(module).defs)
import dlt

dlt.config.get("sources.shop.region", str)  # a setting that is not a secret
"""


def test_importing_the_locations_reads_no_secret(
    vault: Vault, secrets_read: Callable[[], Counter], root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WAREHOUSE_TYPE", "postgres")  # it needs credentials
    done = subprocess.run(
        [sys.executable, "-c", IMPORT], cwd=root, capture_output=True, text=True, check=False
    )
    assert (done.returncode, secrets_read()) == (0, {}), done.stderr
    assert dlt.secrets.get("sources.shop.api_key") is None
    assert secrets_read()["sources/shop"] == 1


def test_a_missing_secret_is_named_with_where_it_was_looked_for(vault: Vault) -> None:
    vault.store("sources/shop", {"password": KEY})
    with pytest.raises(ConfigFieldMissingException) as missing:
        shop()
    where = f"(AWS Secrets Manager (eu-central-1), api_key in {vault.prefix}/sources/shop)"
    assert where in str(missing.value)
    assert KEY not in str(missing.value)
    result = load_shop()
    assert not result.success
    (failure,) = result.get_step_failure_events()
    assert where in str(failure.step_failure_data.error)
    with pytest.raises(DatabaseError, match=f"or in the secret {vault.prefix}/sources/crm of AWS"):
        database_configuration("crm")


@dlt.source(name="broken_shop")
def broken_shop(api_key: str = dlt.secrets.value) -> Any:
    @dlt.resource(name="orders")
    def orders() -> Iterator[Any]:
        raise ValueError(f"the shop refuses {api_key}")
        yield

    return orders


@dlt_assets(
    dlt_source=broken_shop(api_key="not read here"),
    dlt_pipeline=warehouse.pipeline("broken_shop", dataset_name="broken_shop"),
    name="broken_shop",
)
def broken_assets(context: dg.AssetExecutionContext, dlt: WarehouseDltResource) -> Iterator[Any]:
    yield from dlt.run(context, broken_shop())


def test_the_value_of_a_secret_is_in_no_event(vault: Vault, instance: dg.DagsterInstance) -> None:
    vault.store("sources/broken_shop", {"api_key": KEY})
    result = dg.materialize(
        [broken_assets],
        resources={"dlt": WarehouseDltResource()},
        instance=instance,
        raise_on_error=False,
    )
    events = str(instance.all_logs(result.run_id))
    assert "the shop refuses ***" in events
    assert KEY not in events


def test_the_credentials_of_the_warehouse_come_from_the_provider(
    vault: Vault,
    secrets_read: Callable[[], Counter],
    postgres_warehouse: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("DESTINATION__WAREHOUSE__CREDENTIALS")
    with pytest.raises(
        WarehouseConfigError,
        match=rf"DESTINATION__WAREHOUSE__CREDENTIALS is not set, or in the secret "
        rf"{vault.prefix}/destination/warehouse of AWS Secrets Manager \(eu-central-1\)",
    ):
        warehouse.query("SELECT 1")
    vault.store("destination/warehouse", {"credentials": postgres_warehouse})
    vault.store("sources/shop", {"api_key": KEY})
    forget_secrets()
    assert load_shop().success
    assert secrets_read()["destination/warehouse"] == 2  # before it was there, and in the load
    assert loaded_key() == KEY
    assert postgres_warehouse not in redact(f"cannot connect to {postgres_warehouse}")


def test_a_provider_that_cannot_be_read_is_named(
    vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # nothing listens
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(
        SecretsProviderError, match=r"AWS Secrets Manager \(eu-central-1\) cannot be"
    ):
        shop()
    use_provider(monkeypatch, "google://project-of-the-test")
    with pytest.raises(
        SecretsProviderError,
        match=r"Google Cloud Secret Manager \(project-of-the-test\) cannot be read \(api_key in sources-test_secrets_provider\): ",
    ):
        shop()


@pytest.mark.parametrize(
    "text",
    [
        "awz://eu-central-1/etl",
        "aws:///etl",
        "eu-central-1",
        "google://project/prefix",
        "vault://host",
        "vault://user:a-password@host/secret",
    ],
)
def test_a_wrong_setting_is_refused_when_the_location_loads(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(
        ValueError, match=r"SECRETS_PROVIDER is .*; it must be aws://REGION"
    ) as error:
        use_provider(monkeypatch, text)
    assert "a-password" not in str(error.value)


class VaultServer(BaseHTTPRequestHandler):
    """The key-value engine of HashiCorp Vault, as its documentation describes it."""

    secrets: ClassVar[dict[str, Any]] = {}

    def do_GET(self) -> None:
        name = self.path.removeprefix("/v1/secret/data/etl/")
        allowed = self.headers["X-Vault-Token"] == "token-of-the-test"
        status = 403 if not allowed else 200 if name in self.secrets else 404
        answer = {"data": {"data": self.secrets.get(name), "metadata": {"version": 1}}}
        body = json.dumps(answer if status == 200 else {"errors": []}).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def test_secrets_come_from_hashicorp_vault(
    tmp_warehouse: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    VaultServer.secrets = {"sources/shop": {"api_key": KEY, "note": None}}
    monkeypatch.setenv("VAULT_TOKEN", "token-of-the-test")
    with ThreadingHTTPServer(("127.0.0.1", 0), VaultServer) as server:
        Thread(target=server.serve_forever).start()
        try:
            port = server.server_port
            use_provider(monkeypatch, f"vault+http://127.0.0.1:{port}/secret/etl")
            assert load_shop().success
            assert loaded_key() == KEY
            VaultServer.secrets = {"sources/shop": {"api_key": NEW_KEY}}
            assert load_shop().success
            assert loaded_key() == NEW_KEY
            monkeypatch.setenv("VAULT_TOKEN", "another")
            with pytest.raises(ConfigFieldMissingException, match="api_key in etl/sources/shop"):
                shop()
        finally:
            server.shutdown()
