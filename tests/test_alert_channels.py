"""Alerts on a server: each location's own process tells its own team, in that team's channel."""

import logging
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import dagster as dg
import yaml
from dagster._core.events import StepMaterializationData
from dagster._core.instance.utils import RUNLESS_JOB_NAME, RUNLESS_RUN_ID

from deployment import RELOAD, CodeServer, launch
from shared.testing.webhook_server import WebhookServer
from torture.harness import DevServer

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

defs = dg.Definitions([failed, checked, late], sensors=[alert_owners])
"""
TEAMS = ("shop", "bakery")
DAY = 24 * 60 * 60


def loaded_two_days_ago(environment: dict[str, str], key: dg.AssetKey) -> None:
    """Notes a load of the day before yesterday, as Dagster had then."""
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


def test_each_team_is_told_of_its_own_failures_in_its_own_channel(
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
    loaded_two_days_ago(environment, dg.AssetKey(["shop", "late"]))
    with ExitStack() as running:
        channels, workspace = {}, []
        for team in TEAMS:
            (tmp_path / team).mkdir()
            (tmp_path / team / "definitions.py").write_text(DEFINITIONS.format(team=team))
            channels[team] = running.enter_context(WebhookServer())
            own = {**environment, "ALERTS_WEBHOOK_URL": channels[team].url}
            server = running.enter_context(CodeServer(team, own, tmp_path / "servers.log"))
            entry = {"host": "127.0.0.1", "port": server.port, "location_name": team}
            workspace.append({"grpc_server": entry})
        (tmp_path / "workspace.yaml").write_text(yaml.safe_dump({"load_from": workspace}))
        shop, bakery = channels.values()
        shop.failures = [500]
        ui = running.enter_context(
            DevServer(
                [sys.executable, "-m", "dagster"], tmp_path, environment, tmp_path / "dev.log"
            )
        )

        def all_loaded() -> bool:
            for team in TEAMS:
                ui.graphql(RELOAD, name=team)
            return ui.loaded_locations() == set(TEAMS)

        def told(channel: WebhookServer, *words: str) -> bool:
            text = "\n".join(channel.texts)
            return all(word in text for word in words)

        ui.wait_for(all_loaded)
        failed = launch(ui, "shop", ["shop", "failed"])
        checked = launch(ui, "shop", ["shop", "checked"])
        elsewhere = launch(ui, "bakery", ["bakery", "failed"])
        ui.wait_for(
            lambda: (
                told(shop, failed, checked, "*Table is stale*: shop/late")
                and told(bakery, elsewhere)
            )
        )
        launch(ui, "shop", ["shop", "late"])
        ui.wait_for(lambda: told(shop, "*Table is fresh again*: shop/late"))

    assert shop.refused == 1  # and nothing of it was lost
    text = "\n\n".join(shop.texts)
    page = "Owner: team:shop. http://localhost:3000"
    for alert in (
        f"*Run failed*: shop/failed\nValueError: shop has no more\n{page}/runs/{failed}",
        f"*Check failed (WARN)*: shop/checked no_gaps: gaps\n{page}/runs/{checked}",
        f"{page}/assets/shop/late",
    ):
        assert alert in text
    alerts = [line for line in text.splitlines() if line.startswith("*")]
    assert len(alerts) == 4  # each was told once
    run = f"http://localhost:3000/runs/{elsewhere}"
    only = f"*Run failed*: bakery/failed\nValueError: bakery has no more\nOwner: team:bakery. {run}"
    assert bakery.texts == [only]
    logs = (tmp_path / "dev.log").read_text() + (tmp_path / "servers.log").read_text()
    assert "The webhook in ALERTS_WEBHOOK_URL responded with 500" in logs
    assert shop.token not in logs
