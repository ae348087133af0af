"""Alerts: who is told what, once, and that nothing is lost where the receiver is down."""

import logging
import runpy
from collections.abc import Iterator
from datetime import timedelta

import dagster as dg
import pytest
from dagster._core.definitions.freshness import FreshnessState, FreshnessStateChange

from shared import settings
from shared.orchestration import alerts
from shared.orchestration.alerts import alert_owners
from shared.testing.webhook_server import WebhookServer

SECRET = "secret-of-the-upstream"


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[WebhookServer]:
    monkeypatch.delenv("HTTPS_PROXY", raising=False)  # the client would send loopback through it
    monkeypatch.delenv("https_proxy", raising=False)
    with WebhookServer() as made:
        monkeypatch.setenv("ALERTS_WEBHOOK_URL", made.url)
        monkeypatch.setenv("DAGSTER_UI_URL", "https://dagster.example.com/")
        yield made


class Location:
    """A location with a table that may fail or become late, and the ticks of its sensor."""

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

    def becomes(self, state: FreshnessState) -> None:
        """Does what Dagster's daemon does when a table's state changes."""
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
        answer = sensor(context)
        assert isinstance(answer, dg.SkipReason)
        self.cursor = context.cursor or ""  # as the daemon does, unless the tick has failed
        return str(answer.skip_message)


@pytest.fixture
def location(instance: dg.DagsterInstance, receiver: WebhookServer) -> Location:
    del receiver  # its address comes first
    return Location(instance)


def test_a_failed_run_is_told_once_with_asset_partition_cause_owner_and_page(
    location: Location, receiver: WebhookServer
) -> None:
    location.error = "file 7 has no header"
    run = location.run("south")
    location.tick()
    told = "*Run failed*: shop/orders, partition south\nValueError: file 7 has no header\n"
    page = f"https://dagster.example.com/runs/{run}"
    assert receiver.texts == [f"{told}Owner: team:shop. {page}"]
    assert location.tick() == "Nothing failed, nothing is late."
    assert len(receiver.texts) == 1


@pytest.mark.parametrize("severity", ["WARN", "ERROR"])
def test_a_failed_check_is_told_with_its_severity_whether_or_not_the_run_failed(
    location: Location, receiver: WebhookServer, severity: str
) -> None:
    location.run()
    location.tick()
    assert receiver.texts == []  # the check has passed
    location.passed, location.severity = False, severity
    run = location.run()
    location.tick()
    (text,) = receiver.texts
    told = f"*Check failed ({severity})*: shop/orders no_gaps, partition north: 3 rows are missing."
    assert told in text.splitlines()
    assert text.endswith(f"Owner: team:shop. https://dagster.example.com/runs/{run}")
    failed = severity == "ERROR"  # for it blocks
    assert text.startswith("*Run failed*: shop/orders, partition north\n*Check") == failed
    location.tick()
    assert len(receiver.texts) == 1


def test_a_late_table_is_told_once_and_once_more_when_it_is_fresh_again(
    location: Location, receiver: WebhookServer
) -> None:
    page = "Owner: team:shop. https://dagster.example.com/assets/shop/orders"
    location.becomes(FreshnessState.FAIL)
    location.tick()
    assert receiver.texts == [f"*Table is late*: shop/orders, last loaded never\n{page}"]
    location.tick()
    assert len(receiver.texts) == 1
    location.run()
    location.becomes(FreshnessState.PASS)
    location.tick()
    location.tick()
    first, _, second = receiver.texts[-1].partition("\n")
    assert first.startswith("*Table is fresh again*: shop/orders, last loaded 2")
    assert second == page
    location.becomes(FreshnessState.FAIL)
    location.tick()
    assert len(receiver.texts) == 3


def test_without_an_address_nothing_is_sent_and_the_tick_names_the_variable(
    location: Location, receiver: WebhookServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ALERTS_WEBHOOK_URL")
    location.error = "nobody's news"
    location.run()
    assert location.tick() == "Nobody is told of failures: ALERTS_WEBHOOK_URL is not set."
    assert location.cursor == ""
    monkeypatch.setenv("ALERTS_WEBHOOK_URL", receiver.url)
    restarted = runpy.run_path(alerts.__file__)["alert_owners"]
    location.tick(restarted)
    assert receiver.texts == []
    location.error = "somebody's news"
    location.run()
    location.tick(restarted)
    assert ["somebody's news" in text for text in receiver.texts] == [True]


@pytest.mark.parametrize(("address", "status"), [("", "STOPPED"), ("http://127.0.0.1", "RUNNING")])
def test_the_address_is_the_sensor_s_switch(
    address: str, status: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALERTS_WEBHOOK_URL", address)
    loaded = runpy.run_path(alerts.__file__)["alert_owners"]
    assert loaded.default_status is dg.DefaultSensorStatus[status]


def test_a_receiver_that_fails_is_told_again_and_its_address_stays_secret(
    location: Location,
    receiver: WebhookServer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    location.error = "file 7 has no header"
    location.run()
    location.becomes(FreshnessState.FAIL)
    receiver.failures = [500, 429]
    for status in (500, 429):
        with pytest.raises(alerts.AlertDeliveryError, match=f"answered {status}") as told:
            location.tick()
        assert "ALERTS_WEBHOOK_URL" in str(told.value)
        assert receiver.token not in str(told.value)  # which this receiver repeats
    for address in (
        f"http://127.0.0.1:9/{receiver.token}",
        f"hooks.example.com/{receiver.token}",
        f"http://hooks:{receiver.token}/",
        f"http://127.0.0.1/{receiver.token} a",
    ):
        monkeypatch.setenv("ALERTS_WEBHOOK_URL", address)
        with pytest.raises(alerts.AlertDeliveryError, match="could not be reached") as told:
            location.tick()
        assert receiver.token not in str(told.getrepr(style="long"))
    monkeypatch.setenv("ALERTS_WEBHOOK_URL", receiver.url)
    location.tick()
    (text,) = receiver.texts
    assert "*Run failed*" in text
    assert "*Table is late*" in text
    assert receiver.token not in caplog.text


def test_a_message_holds_no_secret_not_even_half_of_one(
    location: Location, receiver: WebhookServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UPSTREAM_TOKEN", SECRET)
    start = "x" * (alerts.MAX_ERROR_CHARS - len("ValueError: ") - 5)
    location.error = f"{start}{SECRET}"
    location.run()
    location.error = f"see {receiver.url}?{SECRET}"
    location.run()
    location.tick()
    (text,) = receiver.texts
    assert "xx***" in text
    assert "see ***?***" in text
    for part in (SECRET[:5], receiver.token):
        assert part not in text


def test_a_long_error_is_cut_and_its_page_is_still_told(
    location: Location, receiver: WebhookServer
) -> None:
    location.error = "long " * 100_000
    run = location.run()
    location.tick()
    (text,) = receiver.texts
    assert len(text) < 1_000
    assert text.endswith(f"runs/{run}")


def test_many_failures_are_one_message_that_counts_what_it_leaves_out(
    location: Location, receiver: WebhookServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alerts, "MAX_MESSAGE_CHARS", 800)
    monkeypatch.setattr(alerts, "MAX_RUNS_PER_TICK", 3)
    location.error = "e" * 200
    for _ in range(4):
        location.run()
    location.tick()
    location.tick()
    first, second = receiver.texts
    assert first.count("*Run failed*") == 2
    assert first.endswith("and 1 more: https://dagster.example.com/runs")
    assert second.count("*Run failed*") == 1
    assert len(first) < 900


def test_an_error_s_text_calls_no_channel(location: Location, receiver: WebhookServer) -> None:
    location.error = "<!channel> & <@U123>"
    location.run()
    location.tick()
    assert "&lt;!channel&gt; &amp; &lt;@U123&gt;" in receiver.texts[0]


def test_a_job_without_assets_is_told_by_its_name_and_its_owner(
    instance: dg.DagsterInstance, receiver: WebhookServer
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
    told = f"*Run failed*: tidy\nValueError: no more\nOwner: team:tidy. {page}"
    assert receiver.texts == [told]
