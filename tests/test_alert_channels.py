"""Alerts on a server: each location's process sends its team's alerts to that team's channel."""

import logging
import time
from contextlib import ExitStack
from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster._core.events import StepMaterializationData
from dagster._core.instance.utils import RUNLESS_JOB_NAME, RUNLESS_RUN_ID

from shared.testing.webhook_server import WebhookServer
from support.servers import CodeServer, DagsterDev

DEFINITIONS = """
from datetime import timedelta
import dagster as dg
from shared.orchestration.alerts import alert_owners

@dg.asset(key=["{team}", "failed"], owners=["team:{team}"])
def failed() -> None:
    raise ValueError("{team} has no more")

@dg.asset(
    key=["{team}", "checked"],
    owners=["team:{team}"],
    check_specs=[dg.AssetCheckSpec("no_gaps", asset=["{team}", "checked"])],
)
def checked():
    check = dg.AssetCheckResult(passed=False, severity=dg.AssetCheckSeverity.WARN, description="gaps")
    yield dg.MaterializeResult(check_results=[check])

a_day = dg.FreshnessPolicy.time_window(timedelta(days=1))

@dg.asset(key=["{team}", "late"], owners=["team:{team}"], freshness_policy=a_day)
def late() -> None: ...

@dg.sensor(target=[late], default_status=dg.DefaultSensorStatus.RUNNING)
def broken():
    raise ValueError("{team} has no folder")

defs = dg.Definitions([failed, checked, late], sensors=[alert_owners, broken])
"""
TEAMS = ("shop", "bakery")
DAY = 24 * 60 * 60


def store_load_of_two_days_ago(environment: dict[str, str], key: dg.AssetKey) -> None:
    """Store a materialization of two days ago."""
    with dg.DagsterInstance.from_config(environment["DAGSTER_HOME"]) as instance:
        event = dg.DagsterEvent(
            dg.DagsterEventType.ASSET_MATERIALIZATION.value,
            RUNLESS_JOB_NAME,
            event_specific_data=StepMaterializationData(dg.AssetMaterialization(key)),
        )
        instance.store_event(
            dg.EventLogEntry(  # type: ignore[no-untyped-call]
                error_info=None,
                level=logging.INFO,
                user_message="",
                run_id=RUNLESS_RUN_ID,
                timestamp=time.time() - 2 * DAY,
                dagster_event=event,
            )
        )


@pytest.mark.slow
def test_each_team_gets_the_alerts_of_its_location_in_its_channel(
    process_environment: dict[str, str], tmp_path: Path
) -> None:
    environment = {
        **{
            name: value
            for name, value in process_environment.items()
            if "proxy" not in name.lower()
        },
        "FRESHNESS_DAEMON_INTERVAL_SECONDS": "1",
    }
    # Before any other process: two must not create the instance's tables at once.
    store_load_of_two_days_ago(environment, dg.AssetKey(["shop", "late"]))
    with ExitStack() as running:
        channels, workspace = {}, []
        for team in TEAMS:
            (tmp_path / team).mkdir()
            (tmp_path / team / "definitions.py").write_text(DEFINITIONS.format(team=team))
            channels[team] = running.enter_context(WebhookServer())
            team_environment = {**environment, "ALERTS_WEBHOOK_URL": channels[team].url}
            server = running.enter_context(
                CodeServer(team, team_environment, tmp_path / "servers.log")
            )
            entry = {"host": "127.0.0.1", "port": server.port, "location_name": team}
            workspace.append({"grpc_server": entry})
        (tmp_path / "workspace.yaml").write_text(yaml.safe_dump({"load_from": workspace}))
        shop, bakery = channels.values()
        shop.failures = [500]
        ui = running.enter_context(DagsterDev(tmp_path, environment, tmp_path / "dev.log"))

        def all_loaded() -> bool:
            for team in TEAMS:
                ui.api.reload(team)
            return ui.loaded_locations() == set(TEAMS)

        def has_received(channel: WebhookServer, *words: str) -> bool:
            text = "\n".join(channel.texts)
            return all(word in text for word in words)

        ui.wait_for(all_loaded)
        failed = ui.launch("shop", ["shop", "failed"])
        checked = ui.launch("shop", ["shop", "checked"])
        failed_bakery = ui.launch("bakery", ["bakery", "failed"])
        ui.wait_for(
            lambda: (
                has_received(shop, failed, checked, "*Table is stale*: shop/late")
                and has_received(shop, "*Sensor failed*: broken: ValueError: shop has no folder")
                and has_received(bakery, failed_bakery, "bakery has no folder")
            )
        )
        ui.launch("shop", ["shop", "late"])
        ui.wait_for(lambda: has_received(shop, "*Table is fresh again*: shop/late"))

    assert shop.refused == 1  # and no alert was lost
    text = "\n\n".join(shop.texts)
    page = "Owner: team:shop. http://localhost:3000"
    for alert in (
        f"*Run failed*: shop/failed\nValueError: shop has no more\n{page}/runs/{failed}",
        f"*Check failed (WARN)*: shop/checked no_gaps: gaps\n{page}/runs/{checked}",
        f"{page}/assets/shop/late",
    ):
        assert alert in text
    alerts = [line for line in text.splitlines() if line.startswith("*")]
    assert len(alerts) == 5  # each was sent once
    assert "*Sensor failed*: broken: ValueError: shop has no folder" in alerts
    run = f"http://localhost:3000/runs/{failed_bakery}"
    text = "\n\n".join(bakery.texts)
    assert (
        f"*Run failed*: bakery/failed\nValueError: bakery has no more\nOwner: team:bakery. {run}"
        in text
    )
    assert sorted(line for line in text.splitlines() if line.startswith("*")) == [
        "*Run failed*: bakery/failed",
        "*Sensor failed*: broken: ValueError: bakery has no folder",
    ]
    logs = (tmp_path / "dev.log").read_text() + (tmp_path / "servers.log").read_text()
    assert "The webhook in ALERTS_WEBHOOK_URL responded with 500" in logs
    assert shop.token not in logs
