"""The command line: each command does what its help says, and an error is one clear line."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import dlt
import duckdb
import psutil  # type: ignore[import-untyped]
import pytest
from dlt.extract import DltResource

from csv_etl.definitions import defs as csv_etl
from shared import warehouse
from shared.cli import app, location_process
from shared.cli.doctor import check_disk, check_ui_port, check_warehouse
from shared.cli.location_run import needs_partition, partition_error
from shared.cli.reports import LOGS, RunSelection
from support.processes import etl, workspace

COMMANDS = sorted(
    str(item.name or item.callback.__name__) for item in app.registered_commands if item.callback
)


def only(environment: dict[str, str], *locations: str) -> None:
    """Make the workspace list only these locations, so that no other is loaded."""
    entries = [
        {"python_module": {"module_name": f"{name}.definitions", "location_name": name}}
        for name in locations
    ]
    (workspace(environment) / "workspace.yaml").write_text(json.dumps({"load_from": entries}))


def is_one_line(done: subprocess.CompletedProcess[str]) -> bool:
    return not done.stdout and done.stderr.count("\n") == 1


def rows(environment: dict[str, str], sql: str) -> list[tuple[Any, ...]]:
    with duckdb.connect(environment["WAREHOUSE_PATH"], read_only=True) as connection:
        return connection.execute(sql).fetchall()


def test_an_asset_runs_the_requested_partition_after_the_check_that_can_block_it(
    etl_environment: dict[str, str],
) -> None:
    only(etl_environment, "csv_etl")
    done = etl(
        etl_environment,
        *("run", "csv_data.share_prices_daily", "--partition", "2018-01-23", "--json"),
    )
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    names = {"location", "asset", "status", "rows", "seconds", "table", "error", "checks"}
    assert all(set(result) == names for result in results)
    assert [(result["asset"], result["status"], result["table"]) for result in results] == [
        ("csv_data/import_daily_file", "done", ""),
        ("csv_data/share_prices_daily", "done", "csv_data.share_prices_daily"),
    ]
    loaded = rows(
        etl_environment, "SELECT file_name, count(*) FROM csv_data.share_prices_daily GROUP BY 1"
    )
    assert loaded == [("2018-01-23.csv", results[1]["rows"])]


def test_a_run_has_the_tags_of_the_options(etl_environment: dict[str, str]) -> None:
    only(etl_environment, "simple_etl")
    done = etl(etl_environment, "run", "simple_etl", "--tag", "etl/full_refresh=no_such_table")
    assert done.returncode == 1
    assert "names no_such_table, which this run does not load" in " ".join(done.stdout.split())
    wrong = etl(etl_environment, "run", "simple_etl", "--tag", "etl/full_refresh")
    assert wrong.returncode == 2
    assert "KEY=VALUE" in wrong.stderr + wrong.stdout


def test_a_range_of_partitions_is_one_run_and_uses_the_recorded_days_without_a_key(
    etl_environment: dict[str, str],
) -> None:
    only(etl_environment, "api_etl")
    done = etl(
        etl_environment,
        *("run", "nasa_neo/near_earth_objects", "--from", "2025-03-10", "--to", "2025-03-11"),
        "--json",
    )
    assert done.returncode == 0, done.stderr
    (result,) = json.loads(done.stdout)
    days = (
        "SELECT DISTINCT close_approach_date::VARCHAR FROM nasa_neo.near_earth_objects ORDER BY 1"
    )
    assert rows(etl_environment, days) == [("2025-03-10",), ("2025-03-11",)]
    assert rows(etl_environment, "SELECT count(*) FROM nasa_neo.near_earth_objects") == [
        (result["rows"],)
    ]
    assert (
        "NASA_API_KEY is not set: api_etl sends its requests to a local server with recorded days"
        in " ".join(done.stderr.split())
    )
    with dg.DagsterInstance.from_config(etl_environment["DAGSTER_HOME"]) as instance:
        (run,) = instance.get_runs()
    assert run.tags["dagster/asset_partition_range_start"] == "2025-03-10"
    assert run.tags["dagster/asset_partition_range_end"] == "2025-03-11"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["csv_data/share_price_daily"],
            "No asset 'csv_data/share_price_daily'; there are csv_data/",
        ),
        (
            ["csv_data/share_prices_daily", "--partition", "2017-01-23"],
            "csv_data/import_daily_file has no partition '2017-01-23'; it has 2018-01-22 to",
        ),
        (["--from", "2018-01-24"], "--from and --to go together"),
        (["--partition", "a", "--from", "a", "--to", "b"], "use one of the two"),
    ],
)
def test_a_name_that_does_not_exist_is_one_line_and_nothing_runs(
    etl_environment: dict[str, str], arguments: list[str], message: str
) -> None:
    only(etl_environment, "csv_etl")
    done = etl(etl_environment, "run", *arguments, "--json")
    assert done.returncode == 2
    assert message in done.stderr
    assert is_one_line(done)
    assert not Path(etl_environment["WAREHOUSE_PATH"]).exists()


def test_partitions_that_cannot_run_have_an_error_message(
    tmp_warehouse: Path, instance: dg.DagsterInstance
) -> None:
    del tmp_warehouse

    @dg.asset(partitions_def=dg.StaticPartitionsDefinition(["a", "b"]))
    def one_by_one() -> None: ...

    graph = dg.Definitions.merge(csv_etl, dg.Definitions([one_by_one])).resolve_asset_graph()

    def error(key: str, first: str, last: str) -> str:
        return partition_error(graph, [dg.AssetKey(key.split("/"))], (first, last), instance)

    daily = "csv_data/share_prices_daily"
    assert error("csv_data/share_prices", "x", "x").startswith("csv_data/share_prices has no part")
    assert error(daily, "2018-01-24", "2018-01-22").startswith(f"{daily} has 2018-01-24 after 2018")
    assert error(daily, "2018-01-22", "2018-01-24") == ""
    assert error("one_by_one", "a", "b").startswith("one_by_one runs one partition per run")
    assert error("one_by_one", "a", "a") == ""
    by_file = "csv_data/share_prices_by_file"
    assert error(by_file, "2018-01-22.csv", "2018-01-22.csv") == ""  # the sample has it
    assert "has no partition '2019-01-22.csv'" in error(by_file, "2019-01-22.csv", "2019-01-22.csv")


def test_a_partition_is_run_with_what_depends_on_it_and_has_no_partitions() -> None:
    graph = csv_etl.resolve_asset_graph()
    table = dg.AssetKey(["csv_data", "share_prices"])

    def needs(*selections: str) -> bool:
        return needs_partition(graph, table, RunSelection(selections or None))

    assert needs()
    assert needs("csv_data/share_prices")
    assert needs("csv_data/share_prices+")
    assert not needs("csv_data/import_daily_file+", "other/asset+")


def test_the_json_has_the_failure(etl_environment: dict[str, str]) -> None:
    only(etl_environment, "gone_etl")
    done = etl(etl_environment, "run", "gone_etl", "--json")
    assert done.returncode == 1
    (result,) = json.loads(done.stdout)
    assert result["location"] == "gone_etl"
    assert result["status"] == "failed"
    assert result["error"] == "ModuleNotFoundError: No module named 'gone_etl'"


def test_a_location_without_its_python_fails_with_the_fix(
    etl_environment: dict[str, str],
) -> None:
    module = {"module_name": "simple_etl.definitions", "location_name": "simple_etl"}
    python = "projects/simple_etl/.venv/bin/python"
    entries = [{"python_module": {**module, "executable_path": python}}]
    (workspace(etl_environment) / "workspace.yaml").write_text(json.dumps({"load_from": entries}))
    done = etl(etl_environment, "run", "simple_etl", "--json")
    assert done.returncode == 1
    (result,) = json.loads(done.stdout)
    assert result["location"] == "simple_etl"
    assert result["status"] == "failed"
    assert f"{python}, does not start: No such file or directory; uv sync" in result["error"]
    check = checks(etl(etl_environment, "doctor", "--json"))["simple_etl"]
    assert check["status"] == "error"
    assert check["fix"].startswith("uv sync in its project")


def test_an_interpreter_that_ends_at_once_is_reported_with_its_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    LOGS.mkdir(parents=True)
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nexit 3\n")
    python.chmod(0o755)
    # More than a socket buffers, so that the process ends while it is told what to run.
    selection = RunSelection(("x" * 10_000_000,))
    process, channel = location_process.start("one", "one", selection, str(python))
    channel.close()
    assert process.wait(30) == 3


USES_SAMPLE = """
import os
import dagster as dg
import requests

@dg.asset
def orders() -> None:
    response = requests.get(os.environ["ORDERS_URL"] + "/orders?day=2025-03-10", timeout=10)
    assert response.json() == ["tea"]

defs = dg.Definitions([orders])
"""
"""The definitions of a location that needs its sample."""


def add_documented_sample(environment: dict[str, str], root: Path, serve: str) -> dict[str, str]:
    """Add the location of docs/add-a-pipeline.md; return the environment that can import it."""
    only(environment, "orders_etl")
    page = (root / "docs" / "add-a-pipeline.md").read_text()
    blocks = r"^```{}\n(.*?)^```"
    (table,) = re.findall(blocks.format("toml"), page, re.MULTILINE | re.DOTALL)
    code = re.findall(blocks.format('python title="recorded.py"'), page, re.MULTILINE | re.DOTALL)
    project = workspace(environment) / "project"
    responses = project / "orders_etl" / "recorded_responses" / "orders"
    responses.mkdir(parents=True)
    (responses / "day=2025-03-10.json").write_text('["tea"]')
    (project / "orders_etl" / "__init__.py").touch()
    (project / "orders_etl" / "recorded.py").write_text(*code)
    (project / "orders_etl" / "definitions.py").write_text(USES_SAMPLE)
    (project / "pyproject.toml").write_text(table.replace("orders_etl.recorded:serve", serve))
    return {**environment, "PYTHONPATH": str(project)}


def test_a_location_runs_on_the_sample_that_it_declares(
    etl_environment: dict[str, str], root: Path
) -> None:
    environment = add_documented_sample(etl_environment, root, "orders_etl.recorded:serve")
    done = etl(environment, "run", "--json")
    assert done.returncode == 0, done.stdout
    assert [result["status"] for result in json.loads(done.stdout)] == ["done"]
    notice = "ORDERS_API_KEY is not set: orders_etl loads recorded days from http://127.0.0.1:"
    assert notice in " ".join(done.stderr.split())

    with_key = {**environment, "ORDERS_API_KEY": "x"}
    done = etl(with_key, "run", "--json")
    assert "KeyError: 'ORDERS_URL'" in json.loads(done.stdout)[0]["error"]
    assert "recorded days" not in done.stderr
    for settings, status, message in ((environment, "warning", "not set"), (with_key, "ok", "set")):
        check = checks(etl(settings, "doctor", "--json"))["ORDERS_API_KEY"]
        assert (check["status"], check["message"]) == (status, message)


def test_an_invalid_sample_fails_with_the_file_and_the_key(
    etl_environment: dict[str, str], root: Path
) -> None:
    environment = add_documented_sample(etl_environment, root, "orders_etl.recorded:absent")
    done = etl(environment, "run", "--json")
    assert done.returncode == 1
    (result,) = json.loads(done.stdout)
    assert "project/pyproject.toml: [tool.etl.sample] needs serve = " in result["error"]
    assert "has no attribute 'absent'" in result["error"]


def test_an_interrupt_ends_the_command_and_its_runs(etl_environment: dict[str, str]) -> None:
    only(etl_environment, "api_etl")
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts requests and never responds
        silent.settimeout(120)
        environment = {
            **etl_environment,
            "NASA_API_KEY": "mine",
            "NASA_BASE_URL": f"http://127.0.0.1:{silent.getsockname()[1]}/neo",
        }
        with subprocess.Popen(
            [sys.executable, "-m", "shared.cli", "run", "nasa_neo/asteroids"],
            cwd=workspace(environment),
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            # In background test runs SIGINT is ignored, and child processes inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
        ) as process:
            try:
                request, _ = silent.accept()
                children = psutil.Process(process.pid).children(recursive=True)
                assert children
                os.killpg(process.pid, signal.SIGINT)  # as a terminal does
                output = process.communicate(timeout=60)[0]
                request.close()
            finally:
                process.kill()
    assert process.returncode == 130, output
    assert "Traceback" not in output
    assert psutil.wait_procs(children, timeout=30)[1] == []
    with dg.DagsterInstance.from_config(etl_environment["DAGSTER_HOME"]) as instance:
        assert [run.is_finished for run in instance.get_runs()] == [True]


@dlt.source
def shop() -> DltResource:
    @dlt.resource(
        columns={
            "price": {
                "data_type": "decimal",
                "precision": 10,
                "scale": 2,
                "description": "In euros.",
            }
        },
        write_disposition="replace",
    )
    def orders() -> Any:
        """Orders, one per row."""
        yield {"id": 1, "price": "1.50", "lines": [{"item": "tea"}, {"item": "cup"}]}

    return orders


def test_show_lists_the_loaded_tables(any_warehouse: str, etl_environment: dict[str, str]) -> None:
    empty = etl(etl_environment, "show")
    assert empty.returncode == 0
    assert "uv run etl run" in empty.stdout
    source = shop()
    spec = warehouse.pipeline("shop_pipeline", "shop")
    warehouse.load(warehouse.plan_load(spec, source))
    (load,) = warehouse.query("SELECT load_id, inserted_at FROM shop._dlt_loads")

    listed = json.loads(etl(etl_environment, "show", "--json").stdout)
    assert [(table["table"], table["parent"], table["rows"]) for table in listed] == [
        ("shop.orders", None, 1),
        ("shop.orders__lines", "shop.orders", 2),
    ]
    for table in listed:
        assert table["last_load"]["load_id"] == load["load_id"]
        assert table["last_load"]["status"] == "complete"
        assert table["last_load"]["loaded_at"].endswith("+00:00")

    one = json.loads(etl(etl_environment, "show", "orders", "--json").stdout)
    assert {"name": "price", "type": "decimal(10, 2)", "description": "In euros."} in one["columns"]
    assert one["preview"] == [{"price": "1.50", "id": 1}]
    assert ("postgres" in one["where"]) == (any_warehouse == "postgres")

    shown = etl(etl_environment, "show", "shop.orders").stdout
    assert "shop.orders: 1 rows" in shown
    assert "In euros." in shown
    assert str(load["load_id"]) in shown

    unknown = etl(etl_environment, "show", "shop.order")
    assert unknown.returncode == 1
    assert unknown.stderr.startswith("No table shop.order; similar names: shop.orders")
    assert is_one_line(unknown)


def test_a_query_in_json_keeps_decimals_and_dates(etl_environment: dict[str, str]) -> None:
    duckdb.connect(etl_environment["WAREHOUSE_PATH"]).close()
    sql = "SELECT 1.50::DECIMAL(9, 2) AS price, DATE '2025-03-10' AS day, 'NaN'::DOUBLE AS lost"
    done = etl(etl_environment, "query", sql, "--json")
    assert json.loads(done.stdout) == [{"price": "1.50", "day": "2025-03-10", "lost": None}]
    wrong = etl(etl_environment, "query", "SELECT * FROM nowhere", "--json")
    assert wrong.returncode == 1
    assert is_one_line(wrong)


def checks(done: subprocess.CompletedProcess[str]) -> dict[str, dict[str, str]]:
    return {check["name"]: check for check in json.loads(done.stdout)}


def test_the_doctor_reports_no_error_in_a_valid_workspace(etl_environment: dict[str, str]) -> None:
    done = etl(etl_environment, "doctor", "--json")
    assert done.returncode == 0, done.stdout
    results = checks(done)
    assert {check["status"] for check in results.values()} <= {"ok", "warning"}
    assert results["csv_etl"]["status"] == "ok"
    assert results["NASA_API_KEY"]["status"] == "warning"
    assert "30 requests per hour" in results["NASA_API_KEY"]["message"]
    assert results["warehouse"]["fix"] == "uv run etl run"


def test_the_doctor_names_two_locations_that_load_one_table_and_a_missing_dependency(
    etl_environment: dict[str, str],
) -> None:
    only(etl_environment, "one_etl", "two_etl")
    for name in ("one", "two"):
        folder = workspace(etl_environment) / f"{name}_etl"
        folder.mkdir()
        (folder / "definitions.py").write_text(
            "import dagster as dg, dlt\n"
            "from dagster_dlt import dlt_assets\n"
            "from shared import warehouse\n"
            "from shared.orchestration.translator import WarehouseTranslator\n"
            f"source = dlt.source(lambda: dlt.resource([], name='Orders'), name='{name}')()\n"
            f"@dlt_assets(name='{name}', dlt_source=source,\n"
            f"    dlt_pipeline=warehouse.pipeline('{name}_pipeline', 'raw'),\n"
            "    dagster_dlt_translator=WarehouseTranslator('team:raw', deps={'Orders': [\n"
            "        dg.AssetKey(['raw', 'order'])]}))\n"
            "def assets(context): ...\n"
            "print('a location may print')\n"
            "defs = dg.Definitions([assets])\n"
        )
    environment = {**etl_environment, "PYTHONPATH": str(workspace(etl_environment))}
    done = etl(environment, "doctor", "--json")
    assert done.returncode == 1
    check = checks(done)["datasets"]
    assert check["status"] == "error"
    assert "raw.orders is loaded by one_etl.one (pipeline one_pipeline" in check["message"]
    assert "two_etl.two" in check["message"]
    check = checks(done)["dependencies"]
    assert check["status"] == "error"
    assert (
        "reads raw/order, which is an asset of no location. Did you mean raw/orders?"
        in (check["message"])
    )


def test_the_doctor_names_each_error_and_no_secret(etl_environment: dict[str, str]) -> None:
    only(etl_environment, "leaky_etl")
    folder = workspace(etl_environment)
    (folder / "leaky_etl").mkdir()
    (folder / "leaky_etl" / "definitions.py").write_text(
        "import os\nraise RuntimeError('no access with ' + os.environ['NASA_API_KEY'])\n"
    )
    (folder / ".env").write_text(
        "NASA_APIKEY=a-key-that-is-secret\nNASA_API_KEY=another-secret-key\n"
    )
    (folder / "other").mkdir()
    (folder / "other" / "pyproject.toml").write_text(
        '[project]\nname = "not-installed"\nversion = "1"\nrequires-python = ">=3.11"\n'
        "[tool.uv]\npackage = true\n"
    )
    (folder / "pyproject.toml").write_text('[tool.uv.workspace]\nmembers = ["other"]\n')
    subprocess.run([os.environ["UV"], "lock", "--offline"], cwd=folder, check=True)
    environment = {
        **etl_environment,
        "PYTHONPATH": str(folder),
        "WAREHOUSE_TYPE": "postgres",
        "ETL_ENVIRONMENT": "production",
        "DESTINATION__WAREHOUSE__CREDENTIALS": "postgresql://etl:secret-password@127.0.0.1:9/x",
        "DROP_FOLDER": "nowhere",
        "WAREHOUSE_WAIT_SECONDS": "soon",
    }
    done = etl(environment, "doctor", "--json")
    assert done.returncode == 1
    results = checks(done)
    errors = {name for name, check in results.items() if check["status"] == "error"}
    assert errors == {"environment", "leaky_etl", "drop folder", "settings", "warehouse"}
    assert all(results[name]["fix"] for name in errors)
    assert "not-installed" in results["environment"]["message"]
    assert "RuntimeError: no access with ***" in results["leaky_etl"]["message"]
    assert "127.0.0.1" in results["warehouse"]["message"]
    ran = etl(environment, "run", "leaky_etl", "--json", "--yes")
    assert json.loads(ran.stdout)[0]["error"] == "RuntimeError: no access with ***"
    shown = etl(environment, "doctor")
    assert shown.returncode == 1
    assert ".env sets unknown setting NASA_APIKEY" in shown.stdout
    assert "Traceback" not in shown.stdout + shown.stderr
    assert "secret" not in done.stdout + done.stderr + shown.stdout + shown.stderr


def test_the_doctor_names_the_owner_of_the_warehouse_lock(tmp_warehouse: Path) -> None:
    file = str(tmp_warehouse / "warehouse.duckdb")
    code = "import duckdb, sys; held = duckdb.connect(sys.argv[1]); print(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code, file], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as owner:
        try:
            assert owner.stdout
            owner.stdout.readline()
            check = check_warehouse()
        finally:
            owner.kill()
    assert check.status == "warning"
    assert f"PID {owner.pid}" in check.message
    assert check_warehouse().status == "ok"


def test_the_doctor_reports_a_port_in_use_and_a_full_disk(tmp_warehouse: Path) -> None:
    del tmp_warehouse
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert check_ui_port(port).status == "warning"
    assert check_ui_port(port).status == "ok"
    assert check_disk(min_free=0).status == "ok"
    assert check_disk(min_free=2**80).status == "error"


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)])
def test_help_fits_eighty_columns_and_has_an_example(
    etl_environment: dict[str, str], command: Sequence[str]
) -> None:
    done = etl({**etl_environment, "COLUMNS": "80"}, *command, "--help")
    assert done.returncode == 0
    assert "Example: etl " in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_the_version_option_names_the_main_packages(etl_environment: dict[str, str]) -> None:
    output = etl(etl_environment, "--version").stdout
    assert all(f"{name} " in output for name in ("shared", "dagster", "dlt", "duckdb"))
