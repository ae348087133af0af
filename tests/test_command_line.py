"""The command line: each command does what its help says, and what goes wrong is one clear line."""

import json
import os
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
from shared.cli import app
from shared.cli.doctor import free_space, ui_port, warehouse_answers
from shared.cli.location_process import problem
from support.processes import etl, workspace

COMMANDS = sorted(
    str(each.name or each.callback.__name__) for each in app.registered_commands if each.callback
)


def only(environment: dict[str, str], *locations: str) -> None:
    """Makes the workspace list these locations alone, so that no other has to load."""
    entries = [
        {"python_module": {"module_name": f"{each}.definitions", "location_name": each}}
        for each in locations
    ]
    (workspace(environment) / "workspace.yaml").write_text(json.dumps({"load_from": entries}))


def is_one_line(done: subprocess.CompletedProcess[str]) -> bool:
    return not done.stdout and done.stderr.count("\n") == 1


def rows(environment: dict[str, str], sql: str) -> list[tuple[Any, ...]]:
    with duckdb.connect(environment["WAREHOUSE_PATH"], read_only=True) as connection:
        return connection.execute(sql).fetchall()


def test_an_asset_runs_the_partition_that_is_asked_for_after_the_check_that_guards_it(
    etl_environment: dict[str, str],
) -> None:
    only(etl_environment, "csv_etl")
    done = etl(
        etl_environment,
        *("run", "csv_data.share_prices_daily", "--partition", "2018-01-23", "--json"),
    )
    assert done.returncode == 0, done.stderr
    reports = json.loads(done.stdout)
    names = {"location", "asset", "status", "rows", "seconds", "table", "error"}
    assert all(set(report) == names for report in reports)
    assert [(report["asset"], report["status"], report["table"]) for report in reports] == [
        ("csv_data/import_daily_file", "done", ""),
        ("csv_data/share_prices_daily", "done", "csv_data.share_prices_daily"),
    ]
    landed = rows(
        etl_environment, "SELECT file_name, count(*) FROM csv_data.share_prices_daily GROUP BY 1"
    )
    assert landed == [("2018-01-23.csv", reports[1]["rows"])]


def test_a_range_of_partitions_is_one_run_and_asks_the_bundled_server_without_a_key(
    etl_environment: dict[str, str],
) -> None:
    only(etl_environment, "api_etl")
    done = etl(
        etl_environment,
        *("run", "nasa_neo/near_earth_objects", "--from", "2025-03-10", "--to", "2025-03-11"),
        "--json",
    )
    assert done.returncode == 0, done.stderr
    (report,) = json.loads(done.stdout)
    days = (
        "SELECT DISTINCT close_approach_date::VARCHAR FROM nasa_neo.near_earth_objects ORDER BY 1"
    )
    assert rows(etl_environment, days) == [("2025-03-10",), ("2025-03-11",)]
    assert rows(etl_environment, "SELECT count(*) FROM nasa_neo.near_earth_objects") == [
        (report["rows"],)
    ]
    assert "NASA_API_KEY is not set: api_etl asks a NeoWs server" in " ".join(done.stderr.split())
    with dg.DagsterInstance.from_config(etl_environment["DAGSTER_HOME"]) as instance:
        (run,) = instance.get_runs()
    assert run.tags["dagster/asset_partition_range_start"] == "2025-03-10"
    assert run.tags["dagster/asset_partition_range_end"] == "2025-03-11"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            ["csv_data/share_price_daily"],
            "No asset 'csv_data/share_price_daily'; there are csv_data/",
        ),
        (
            ["csv_data/share_prices_daily", "--partition", "2017-01-23"],
            "csv_data/import_daily_file has no partition '2017-01-23'; those it has are 2018-01-22 to",
        ),
        (["--from", "2018-01-24"], "--from and --to go together"),
        (["--partition", "a", "--from", "a", "--to", "b"], "use one of the two"),
    ],
)
def test_what_does_not_exist_is_one_line_and_runs_nothing(
    etl_environment: dict[str, str], arguments: list[str], told: str
) -> None:
    only(etl_environment, "csv_etl")
    done = etl(etl_environment, "run", *arguments, "--json")
    assert done.returncode == 2
    assert told in done.stderr
    assert is_one_line(done)
    assert not Path(etl_environment["WAREHOUSE_PATH"]).exists()


def test_partitions_that_do_not_fit_are_told(
    tmp_warehouse: Path, instance: dg.DagsterInstance
) -> None:
    del tmp_warehouse

    @dg.asset(partitions_def=dg.StaticPartitionsDefinition(["a", "b"]))
    def one_by_one() -> None: ...

    graph = dg.Definitions.merge(csv_etl, dg.Definitions([one_by_one])).resolve_asset_graph()

    def told(key: str, first: str, last: str) -> str:
        return problem(graph, [dg.AssetKey(key.split("/"))], (first, last), instance)

    daily = "csv_data/share_prices_daily"
    assert told("csv_data/share_prices", "x", "x").startswith("csv_data/share_prices has no part")
    assert told(daily, "2018-01-24", "2018-01-22").startswith(f"{daily} has 2018-01-24 after 2018-")
    assert told(daily, "2018-01-22", "2018-01-24") == ""
    assert told("one_by_one", "a", "b").startswith("one_by_one runs partitions one by one")
    assert told("one_by_one", "a", "a") == ""
    by_file = "csv_data/share_prices_by_file"
    assert told(by_file, "2018-01-22.csv", "2018-01-22.csv") == ""  # the sample has it
    assert "has no partition '2019-01-22.csv'" in told(by_file, "2019-01-22.csv", "2019-01-22.csv")


def test_a_failure_is_in_the_json_as_well(etl_environment: dict[str, str]) -> None:
    only(etl_environment, "gone_etl")
    done = etl(etl_environment, "run", "gone_etl", "--json")
    assert done.returncode == 1
    (report,) = json.loads(done.stdout)
    assert report["location"] == "gone_etl"
    assert report["status"] == "failed"
    assert report["error"] == "ModuleNotFoundError: No module named 'gone_etl'"


def test_a_location_whose_own_python_is_gone_is_told_with_what_mends_it(
    etl_environment: dict[str, str],
) -> None:
    module = {"module_name": "simple_etl.definitions", "location_name": "simple_etl"}
    python = "projects/simple_etl/.venv/bin/python"
    entries = [{"python_module": {**module, "executable_path": python}}]
    (workspace(etl_environment) / "workspace.yaml").write_text(json.dumps({"load_from": entries}))
    done = etl(etl_environment, "run", "simple_etl", "--json")
    assert done.returncode == 1
    (report,) = json.loads(done.stdout)
    assert report["location"] == "simple_etl"
    assert report["status"] == "failed"
    assert f"{python}, does not start: No such file or directory; uv sync" in report["error"]
    told = checks(etl(etl_environment, "doctor", "--json"))["simple_etl"]
    assert told["status"] == "error"
    assert told["fix"].startswith("uv sync in its project")


def test_an_interrupt_ends_the_command_and_its_runs(etl_environment: dict[str, str]) -> None:
    only(etl_environment, "api_etl")
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes requests and never answers
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
            # Where the tests run in the background SIGINT is ignored, and a child inherits that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
        ) as process:
            try:
                request, _ = silent.accept()
                children = psutil.Process(process.pid).children(recursive=True)
                assert children
                os.killpg(process.pid, signal.SIGINT)  # as a terminal does
                told = process.communicate(timeout=60)[0]
                request.close()
            finally:
                process.kill()
    assert process.returncode == 130, told
    assert "Traceback" not in told
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
        """Orders, a row each."""
        yield {"id": 1, "price": "1.50", "lines": [{"item": "tea"}, {"item": "cup"}]}

    return orders


def test_show_tells_what_has_landed(any_warehouse: str, etl_environment: dict[str, str]) -> None:
    nothing = etl(etl_environment, "show")
    assert nothing.returncode == 0
    assert "uv run etl run" in nothing.stdout
    source = shop()
    spec = warehouse.pipeline("shop_pipeline", "shop")
    warehouse.load(warehouse.plan_load(spec, source))
    (load,) = warehouse.query("SELECT load_id, inserted_at FROM shop._dlt_loads")

    listed = json.loads(etl(etl_environment, "show", "--json").stdout)
    assert [(each["table"], each["parent"], each["rows"]) for each in listed] == [
        ("shop.orders", None, 1),
        ("shop.orders__lines", "shop.orders", 2),
    ]
    for each in listed:
        assert each["last_load"]["load_id"] == load["load_id"]
        assert each["last_load"]["status"] == "complete"
        assert each["last_load"]["at"].endswith("+00:00")

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
    assert unknown.stderr.startswith("No table shop.order; near it: shop.orders")
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


def test_the_doctor_finds_a_workspace_well(etl_environment: dict[str, str]) -> None:
    done = etl(etl_environment, "doctor", "--json")
    assert done.returncode == 0, done.stdout
    found = checks(done)
    assert {check["status"] for check in found.values()} <= {"ok", "warning"}
    assert found["csv_etl"]["status"] == "ok"
    assert "30 requests an hour" in found["NASA"]["told"]
    assert found["warehouse"]["fix"] == "uv run etl run"


def test_the_doctor_names_what_is_wrong_and_no_secret(etl_environment: dict[str, str]) -> None:
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
        "DESTINATION__WAREHOUSE__CREDENTIALS": "postgresql://etl:secret-password@127.0.0.1:9/x",
        "DROP_FOLDER": "nowhere",
        "WAREHOUSE_WAIT_SECONDS": "soon",
    }
    done = etl(environment, "doctor", "--json")
    assert done.returncode == 1
    found = checks(done)
    wrong = {name for name, check in found.items() if check["status"] == "error"}
    assert wrong == {"environment", "leaky_etl", "drop folder", "settings", "warehouse"}
    assert all(found[name]["fix"] for name in wrong)
    assert "not-installed" in found["environment"]["told"]
    assert "RuntimeError: no access with ***" in found["leaky_etl"]["told"]
    assert "127.0.0.1" in found["warehouse"]["told"]
    ran = etl(environment, "run", "leaky_etl", "--json")
    assert json.loads(ran.stdout)[0]["error"] == "RuntimeError: no access with ***"
    shown = etl(environment, "doctor")
    assert shown.returncode == 1
    assert ".env sets NASA_APIKEY, which is none" in shown.stdout
    assert "Traceback" not in shown.stdout + shown.stderr
    assert "secret" not in done.stdout + done.stderr + shown.stdout + shown.stderr


def test_the_doctor_tells_who_holds_the_warehouse(tmp_warehouse: Path) -> None:
    file = str(tmp_warehouse / "warehouse.duckdb")
    hold = "import duckdb, sys; held = duckdb.connect(sys.argv[1]); print(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", hold, file], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        try:
            assert holder.stdout
            holder.stdout.readline()
            check = warehouse_answers()
        finally:
            holder.kill()
    assert check.status == "warning"
    assert f"PID {holder.pid}" in check.told
    assert warehouse_answers().status == "ok"


def test_the_doctor_sees_a_taken_port_and_a_full_disk(tmp_warehouse: Path) -> None:
    del tmp_warehouse
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert ui_port(port).status == "warning"
    assert ui_port(port).status == "ok"
    assert free_space(least=0).status == "ok"
    assert free_space(least=2**80).status == "error"


@pytest.mark.parametrize("command", [[], *([each] for each in COMMANDS)])
def test_help_fits_eighty_columns_and_has_an_example(
    etl_environment: dict[str, str], command: Sequence[str]
) -> None:
    done = etl({**etl_environment, "COLUMNS": "80"}, *command, "--help")
    assert done.returncode == 0
    assert "Example: etl " in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_the_version_names_what_the_workspace_stands_on(etl_environment: dict[str, str]) -> None:
    told = etl(etl_environment, "--version").stdout
    assert all(f"{name} " in told for name in ("shared", "dagster", "dlt", "duckdb"))
