"""`etl status`, `etl prune` and `etl metrics`, as a user runs them."""

import json
import re
import signal
import subprocess
from pathlib import Path
from urllib.request import ProxyHandler, build_opener

import pytest

from support.processes import etl, python, workspace

LOCATION = """
import os
import dagster as dg

@dg.asset(key=["shop", "orders"], partitions_def=dg.StaticPartitionsDefinition(["a", "b", "c"]))
def orders(context):
    if context.partition_key in os.environ["BAD_FILES"].split():
        raise ValueError("no header")

defs = dg.Definitions([orders])
"""
RUN = """
import sys
from shop.definitions import defs
import dagster as dg
with dg.DagsterInstance.get() as instance:
    job = defs.resolve_implicit_global_asset_job_def()
    for partition in sys.argv[1:]:
        job.execute_in_process(instance=instance, partition_key=partition, raise_on_error=False)
"""


@pytest.fixture
def shop(etl_environment: dict[str, str]) -> dict[str, str]:
    """The environment of a workspace with one location, and a second one that does not load."""
    folder = workspace(etl_environment)
    (folder / "shop").mkdir()
    (folder / "shop" / "__init__.py").touch()
    (folder / "shop" / "definitions.py").write_text(LOCATION)
    list_locations(folder, "shop")
    return {**etl_environment, "PYTHONPATH": str(folder), "BAD_FILES": "b"}


def list_locations(folder: Path, *names: str) -> None:
    entries = [
        {"python_module": {"module_name": f"{name}.definitions", "location_name": name}}
        for name in names
    ]
    (folder / "workspace.yaml").write_text(json.dumps({"load_from": entries}))


def run(environment: dict[str, str], *partitions: str) -> None:
    subprocess.run(
        [python(), "-c", RUN, *partitions],
        env=environment,
        cwd=workspace(environment),
        check=True,
        capture_output=True,
    )


def test_status_lists_what_fails_until_it_is_loaded_and_prune_keeps_that_state(
    shop: dict[str, str],
) -> None:
    run(shop, "a", "b", "a")
    first = etl(shop, "status")
    assert first.returncode == 1, first.stderr
    assert [line.strip() for line in first.stdout.splitlines()] == [
        "failed   shop/orders: partition b failed: ValueError: no header",
        "-> uv run etl run shop/orders --partition b",
        "missing  shop/orders: 1 of 3 partitions: c",
        "-> uv run etl run shop/orders --partition c",
    ]

    refused = etl(shop, "prune", "--keep", "0d")
    assert refused.returncode == 2
    assert "2 runs would be deleted: add --yes" in refused.stderr
    assert etl(shop, "prune", "--keep", "soon", "--yes").returncode == 2
    dry = etl(shop, "prune", "--keep", "0d", "--dry-run")
    assert dry.returncode == 0, dry.stderr
    assert "2 runs that ended before" in dry.stdout
    assert "1 older runs stay" in dry.stdout
    assert "Nothing was deleted (--dry-run)." in dry.stdout
    pruned = etl(shop, "prune", "--keep", "0d", "--yes", "--json")
    assert pruned.returncode == 0, pruned.stderr
    report = json.loads(pruned.stdout)
    assert (len(report["run_ids"]), len(report["kept"]), report["pruned"]) == (2, 1, True)
    assert report["size_after"] < report["size"]

    list_locations(workspace(shop), "shop", "no_such_shop")
    second = etl(shop, "status", "--json")
    assert second.returncode == 1
    problems = {problem["kind"]: problem for problem in json.loads(second.stdout)}
    assert problems.keys() == {"failed", "missing", "location"}
    assert problems["failed"]["partitions"] == [["b", "b"]]
    assert problems["failed"]["location"] == "shop"
    assert "No module named 'no_such_shop'" in problems["location"]["message"]
    list_locations(workspace(shop), "shop")
    run({**shop, "BAD_FILES": ""}, "b", "c")
    last = etl(shop, "status")
    assert (last.returncode, last.stdout) == (0, "Nothing failed, is missing or is stuck.\n")


def test_an_instance_that_does_not_open_is_one_line(shop: dict[str, str]) -> None:
    (Path(shop["DAGSTER_HOME"]) / "dagster.yaml").write_text("storage:\n  no_such: {}\n")
    done = etl(shop, "status", "--quick")
    assert done.returncode == 1
    assert not done.stdout
    assert done.stderr.startswith("Dagster's instance in ")
    assert done.stderr.count("\n") == 1


def test_metrics_are_served_on_loopback_until_ctrl_c(shop: dict[str, str]) -> None:
    run(shop, "a")
    process = subprocess.Popen(
        [python(), "-m", "shared.cli", "metrics", "--port", "0"],
        env=shop,
        cwd=workspace(shop),
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout
        url = process.stdout.readline().strip()
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/metrics", url)
        with build_opener(ProxyHandler({})).open(url) as response:
            text = response.read().decode()
        process.send_signal(signal.SIGINT)
    assert process.returncode == 0
    assert 'etl_asset_last_success_timestamp_seconds{asset="shop/orders"}' in text
    assert 'etl_runs_total{job="__ASSET_JOB",location="",status="success"} 0.0' in text
