"""Alerts: each is sent once, to the owners, and none is lost if the webhook is down."""

import logging
import runpy
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.definitions.freshness import FreshnessState, FreshnessStateChange

from shared import settings
from shared.orchestration import alerts
from shared.orchestration.alerts import alert_owners
from shared.orchestration.health_summary import health_summary
from shared.testing.instigators import store_tick
from shared.testing.webhook_server import WebhookServer

SECRET = "secret-of-the-upstream"


@pytest.fixture
def webhook(monkeypatch: pytest.MonkeyPatch) -> Iterator[WebhookServer]:
    monkeypatch.delenv("HTTPS_PROXY", raising=False)  # the client would send loopback through it
    monkeypatch.delenv("https_proxy", raising=False)
    with WebhookServer() as server:
        monkeypatch.setenv("ALERTS_WEBHOOK_URL", server.url)
        monkeypatch.setenv("DAGSTER_UI_URL", "https://dagster.example.com/")
        yield server


class Location:
    """A location with a table that may fail or become stale, and the ticks of its sensor."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self.instance, self.cursor = instance, ""
        self.error, self.severity, self.passed, self.blocking = "", "WARN", True, False

        @dg.asset(
            key=["shop", "orders"],
            owners=["team:shop"],
            partitions_def=dg.StaticPartitionsDefinition(["north", "south"]),
            freshness_policy=dg.FreshnessPolicy.time_window(timedelta(hours=1)),
            check_specs=[dg.AssetCheckSpec("no_gaps", asset=["shop", "orders"], blocking=True)],
        )
        def orders() -> Iterator[dg.MaterializeResult[None]]:
            if self.error:
                raise RuntimeError("the load failed") from ValueError(self.error)
            severity = dg.AssetCheckSeverity[self.severity]
            check = dg.AssetCheckResult(
                passed=self.passed, severity=severity, description="3 rows are missing."
            )
            yield dg.MaterializeResult(check_results=[check])

        self.orders = orders
        self.defs = dg.Definitions([orders], sensors=[alert_owners])
        self.tick()

    def run(self, partition: str = "north") -> str:
        job = self.defs.resolve_implicit_global_asset_job_def()
        return job.execute_in_process(
            instance=self.instance, partition_key=partition, raise_on_error=False
        ).run_id

    def set_freshness(self, state: FreshnessState) -> None:
        """Do what Dagster's daemon does when a table's state changes."""
        self.instance._report_runless_asset_event(
            FreshnessStateChange(
                key=self.orders.key,
                new_state=state,
                previous_state=FreshnessState.UNKNOWN,
                state_change_timestamp=0.0,
            )
        )

    def tick(self, sensor: dg.SensorDefinition = alert_owners) -> str:
        context = dg.build_sensor_context(self.instance, self.cursor, definitions=self.defs)
        skipped = sensor(context)
        assert isinstance(skipped, dg.SkipReason)
        self.cursor = context.cursor or ""  # as the daemon does, unless the tick has failed
        return str(skipped.skip_message)


@pytest.fixture
def location(instance: dg.DagsterInstance, webhook: WebhookServer) -> Location:
    del webhook  # its URL is set first
    return Location(instance)


def test_a_failed_run_is_reported_once_with_asset_partition_cause_owner_and_url(
    location: Location, webhook: WebhookServer
) -> None:
    location.error = "file 7 has no header"
    run = location.run("south")
    location.tick()
    expected = "*Run failed*: shop/orders, partition south\nValueError: file 7 has no header\n"
    page = f"https://dagster.example.com/runs/{run}"
    assert webhook.texts == [f"{expected}Owner: team:shop. {page}"]
    assert location.tick() == "Nothing failed and no table is stale."
    assert len(webhook.texts) == 1


@pytest.mark.parametrize("severity", ["WARN", "ERROR"])
def test_a_failed_check_is_reported_with_its_severity_whether_or_not_the_run_failed(
    location: Location, webhook: WebhookServer, severity: str
) -> None:
    location.run()
    location.tick()
    assert webhook.texts == []  # the check has passed
    location.passed, location.severity = False, severity
    run = location.run()
    location.tick()
    (text,) = webhook.texts
    expected = (
        f"*Check failed ({severity})*: shop/orders no_gaps, partition north: 3 rows are missing."
    )
    assert expected in text.splitlines()
    assert text.endswith(f"Owner: team:shop. https://dagster.example.com/runs/{run}")
    failed = severity == "ERROR"  # for it blocks
    assert text.startswith("*Run failed*: shop/orders, partition north\n*Check") == failed
    location.tick()
    assert len(webhook.texts) == 1


def test_a_stale_table_is_reported_once_and_once_more_when_it_is_fresh_again(
    location: Location, webhook: WebhookServer
) -> None:
    page = "Owner: team:shop. https://dagster.example.com/assets/shop/orders"
    location.set_freshness(FreshnessState.FAIL)
    location.tick()
    assert webhook.texts == [f"*Table is stale*: shop/orders, last loaded never\n{page}"]
    location.tick()
    assert len(webhook.texts) == 1
    location.run()
    location.set_freshness(FreshnessState.PASS)
    location.tick()
    location.tick()
    first, _, second = webhook.texts[-1].partition("\n")
    assert first.startswith("*Table is fresh again*: shop/orders, last loaded 2")
    assert second == page
    location.set_freshness(FreshnessState.FAIL)
    location.tick()
    assert len(webhook.texts) == 3


def test_without_a_url_nothing_is_sent_and_the_tick_names_the_variable(
    location: Location, webhook: WebhookServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ALERTS_WEBHOOK_URL")
    location.error = "old error"
    location.run()
    assert location.tick() == "Alerts are disabled: ALERTS_WEBHOOK_URL is not set."
    assert location.cursor == ""
    monkeypatch.setenv("ALERTS_WEBHOOK_URL", webhook.url)
    restarted = runpy.run_path(alerts.__file__)["alert_owners"]
    location.tick(restarted)
    assert webhook.texts == []
    location.error = "new error"
    location.run()
    location.tick(restarted)
    assert ["new error" in text for text in webhook.texts] == [True]


@pytest.mark.parametrize(("url", "status"), [("", "STOPPED"), ("http://127.0.0.1", "RUNNING")])
def test_the_url_switches_the_sensor_on(
    url: str, status: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALERTS_WEBHOOK_URL", url)
    loaded = runpy.run_path(alerts.__file__)["alert_owners"]
    assert loaded.default_status is dg.DefaultSensorStatus[status]


def test_an_alert_is_sent_again_after_a_failure_and_the_url_stays_secret(
    location: Location,
    webhook: WebhookServer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    location.error = "file 7 has no header"
    location.run()
    location.set_freshness(FreshnessState.FAIL)
    webhook.failures = [500, 429]
    for status in (500, 429):
        with pytest.raises(alerts.AlertDeliveryError, match=f"responded with {status}") as raised:
            location.tick()
        assert "ALERTS_WEBHOOK_URL" in str(raised.value)
        assert webhook.token not in str(raised.value)  # which this webhook repeats
    for url in (
        f"http://127.0.0.1:9/{webhook.token}",
        f"hooks.example.com/{webhook.token}",
        f"http://hooks:{webhook.token}/",
        f"http://127.0.0.1/{webhook.token} a",
    ):
        monkeypatch.setenv("ALERTS_WEBHOOK_URL", url)
        with pytest.raises(alerts.AlertDeliveryError, match="could not be reached") as raised:
            location.tick()
        assert webhook.token not in str(raised.getrepr(style="long"))
    monkeypatch.setenv("ALERTS_WEBHOOK_URL", webhook.url)
    location.tick()
    (text,) = webhook.texts
    assert "*Run failed*" in text
    assert "*Table is stale*" in text
    assert webhook.token not in caplog.text


def test_a_message_has_no_secret_and_no_part_of_one(
    location: Location, webhook: WebhookServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UPSTREAM_TOKEN", SECRET)
    start = "x" * (alerts.MAX_ERROR_CHARS - len("ValueError: ") - 5)
    location.error = f"{start}{SECRET}"
    location.run()
    location.error = f"see {webhook.url}?{SECRET}"
    location.run()
    location.tick()
    (text,) = webhook.texts
    assert "xx***" in text
    assert "see ***?***" in text
    for part in (SECRET[:5], webhook.token):
        assert part not in text


def test_a_long_error_is_truncated_and_its_url_is_kept(
    location: Location, webhook: WebhookServer
) -> None:
    location.error = "long " * 100_000
    run = location.run()
    location.tick()
    (text,) = webhook.texts
    assert len(text) < 1_000
    assert text.endswith(f"runs/{run}")


def test_many_failures_are_one_message_that_counts_what_it_omits(
    location: Location, webhook: WebhookServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alerts, "MAX_MESSAGE_CHARS", 800)
    monkeypatch.setattr(alerts, "MAX_RUNS_PER_TICK", 3)
    location.error = "e" * 200
    for _ in range(4):
        location.run()
    location.tick()
    location.tick()
    first, second = webhook.texts
    assert first.count("*Run failed*") == 2
    assert first.endswith("and 1 more: https://dagster.example.com/runs")
    assert second.count("*Run failed*") == 1
    assert len(first) < 900


def test_the_text_of_an_error_notifies_no_channel(
    location: Location, webhook: WebhookServer
) -> None:
    location.error = "<!channel> & <@U123>"
    location.run()
    location.tick()
    assert "&lt;!channel&gt; &amp; &lt;@U123&gt;" in webhook.texts[0]


def test_a_job_without_assets_is_reported_by_its_name_and_its_owner(
    instance: dg.DagsterInstance, webhook: WebhookServer
) -> None:
    @dg.op
    def stops() -> None:
        raise ValueError("no more")

    @dg.job(owners=["team:tidy"])
    def tidy() -> None:
        stops()

    defs = dg.Definitions(jobs=[tidy])
    run = tidy.execute_in_process(instance=instance, raise_on_error=False).run_id
    alert_owners(dg.build_sensor_context(instance, definitions=defs))
    page = f"{settings.get('DAGSTER_UI_URL')}runs/{run}"
    expected = f"*Run failed*: tidy\nValueError: no more\nOwner: team:tidy. {page}"
    assert webhook.texts == [expected]


def test_a_failed_sensor_is_reported_once_and_once_more_when_it_works_again(
    stored_instance: dg.DagsterInstance, webhook: WebhookServer
) -> None:
    location = Location(stored_instance)
    for _ in range(2):
        store_tick(stored_instance, "new_files", "shop", "the folder is gone")
        location.tick()
        location.tick()
    page = "https://dagster.example.com/locations/__repository__@shop/sensors/new_files"
    failed = "*Sensor failed*: new_files: ValueError: the folder is gone"
    assert webhook.texts == [f"{failed}\nOwner: nobody. {page}"]
    store_tick(stored_instance, "new_files", "shop")
    location.tick()
    location.tick()
    assert webhook.texts[1:] == [f"*Sensor works again*: new_files\nOwner: nobody. {page}"]
    store_tick(stored_instance, "new_files", "shop", "the folder is gone")
    location.tick()
    assert len(webhook.texts) == 3


def test_each_failed_tick_of_a_schedule_is_reported(
    stored_instance: dg.DagsterInstance, webhook: WebhookServer
) -> None:
    location = Location(stored_instance)
    for number in range(2):
        store_tick(stored_instance, "nightly", "shop", f"error {number}", is_schedule=True)
        location.tick()
        location.tick()
    assert [text.splitlines()[0] for text in webhook.texts] == [
        f"*Schedule failed*: nightly: ValueError: error {number}" for number in range(2)
    ]


def test_a_failed_tick_is_reported_after_the_webhook_works_again(
    stored_instance: dg.DagsterInstance, webhook: WebhookServer
) -> None:
    location = Location(stored_instance)
    store_tick(stored_instance, "new_files", "shop", f"see {webhook.url}")
    webhook.failures = [500]
    with pytest.raises(alerts.AlertDeliveryError):
        location.tick()
    location.tick()
    (text,) = webhook.texts
    assert "*Sensor failed*: new_files: ValueError: see ***" in text


def test_an_alert_names_the_environment_and_uses_the_webhook_of_its_profile(
    location: Location, webhook: WebhookServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "workspace.yaml").touch()
    file = tmp_path / "environments.toml"
    file.write_text('[staging]\nalerts_webhook = "STAGING_WEBHOOK_URL"\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ETL_ENVIRONMENT", "staging")
    location.error = "no header"
    location.run()
    assert location.tick() == "Alerts are disabled: STAGING_WEBHOOK_URL is not set."
    monkeypatch.setenv("STAGING_WEBHOOK_URL", webhook.url)
    location.tick()
    (text,) = webhook.texts
    assert text.startswith("[staging] *Run failed*: shop/orders")
    monkeypatch.setenv("ETL_ENVIRONMENT", "nowhere")
    file.write_text('[preview]\nalerts_webhook = ""\n')
    assert location.tick() == "Alerts are disabled in the environment nowhere."


def test_the_summary_of_a_day_is_sent_once_with_what_failed_and_is_missing(
    location: Location, webhook: WebhookServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.orchestration.health_summary.SUMMARY_HOUR", 0)
    location.error = "no header"
    location.run("south")
    context = dg.build_sensor_context(
        location.instance, definitions=location.defs, sensor_name="health_summary"
    )
    webhook.failures = [500]
    with pytest.raises(alerts.AlertDeliveryError):
        health_summary(context)
    assert context.cursor is None
    for _ in range(2):
        health_summary(context)
    (text,) = webhook.texts
    title, *problems, page = text.splitlines()
    assert title.startswith("*Health of ")
    assert title.endswith("*: 1 failed, 1 missing, 1 check")
    assert problems[0] == "failed: shop/orders: partition south failed: ValueError: no header"
    assert problems[-1] == "missing: shop/orders: 1 of 2 partitions: north"
    assert page == "https://dagster.example.com/runs"


def test_the_summary_says_that_all_is_loaded(
    location: Location, webhook: WebhookServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.orchestration.health_summary.SUMMARY_HOUR", 0)
    for partition in ("north", "south"):
        location.run(partition)
    health_summary(dg.build_sensor_context(location.instance, definitions=location.defs))
    (text,) = webhook.texts
    assert text.endswith("*: all 1 assets are loaded and nothing failed.")
    assert health_summary.default_status is dg.DefaultSensorStatus.STOPPED
