"""`etl new NAME --from dbt` creates a location whose models read what other locations load."""

import json
import re
from pathlib import Path

import pytest

from shared.cli.reports import AssetResult, Plan
from shared.cli.run import Results, _ready
from shared.testing.postgres_server import PostgresServer
from support.processes import PROGRAMS, python, run_script

LOADS = Plan("loads", ("raw/orders",), ("raw/orders",))
MODELS = Plan("models", ("mart/sums",), ("mart/sums",), upstream=("raw/orders",))


def result_of(plan: Plan, status: str) -> Results:
    (asset,) = plan.assets
    return {(plan.location, asset): AssetResult(plan.location, asset, status)}  # type: ignore[arg-type]


def test_a_location_starts_after_the_one_that_loads_what_it_reads() -> None:
    both, alive = {"loads": LOADS, "models": MODELS}, {"loads", "models"}
    assert _ready(["models"], {"models": MODELS}, {}, alive) == [], "no plan of loads yet"
    assert _ready(["loads", "models"], both, {}, alive) == ["loads"]
    for status, ready in {"waiting": [], "running": [], "done": ["models"]}.items():
        assert _ready(["models"], both, result_of(LOADS, status), alive) == ready
    assert _ready(["models"], both, result_of(LOADS, "failed"), alive) == ["models"]
    assert _ready(["models"], both, {}, {"models"}) == ["models"], "the process of loads is gone"


def test_two_locations_that_read_each_other_start_together() -> None:
    circle = Plan("loads", ("raw/orders",), ("raw/orders",), upstream=("mart/sums",))
    plans = {"loads": circle, "models": MODELS}
    assert _ready(["loads", "models"], plans, {}, {"loads", "models"}) == ["loads", "models"]


@pytest.mark.slow
def test_the_page_of_dbt_creates_a_location_that_runs_on_duckdb_and_postgres(
    root: Path, clone: Path, shell: dict[str, str], warehouse_server: PostgresServer
) -> None:
    page = (root / "docs" / "dbt.md").read_text()
    first, by_hand = re.findall(r"^```shell\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    create, *load = first.splitlines()
    run_script(create, clone, shell)
    project = clone / "projects" / "mart_etl"
    # From here on, use this environment, which has its bytecode.
    preloaded = f"{python()} -m "
    shell["PYTHONPATH"] = str(project / "src")
    script = "\n".join(load).replace("uv run etl", f"{preloaded}shared.cli")
    output = run_script(script, clone, shell)
    assert re.search(r"mart/asteroids_per_week +11 .* mart\.asteroids_per_week", output)
    assert "2018-12-03" in output
    by_hand = by_hand.replace("uv run dbt", f"{python()} {PROGRAMS / 'dbt'}")
    assert "2018-12-03" in run_script(by_hand, clone, shell)
    assert (project / "src/mart_etl/dbt/target/manifest.json").is_file()

    url = warehouse_server.warehouse()
    on_postgres = {
        "WAREHOUSE_TYPE": "postgres",
        "DESTINATION__WAREHOUSE__CREDENTIALS": url,
        "ETL_ENVIRONMENT": "pr-123",
    }
    command = f"{preloaded}shared.cli run nasa_neo/near_earth_objects mart_etl --json"
    results = json.loads(run_script(command, clone, {**shell, **on_postgres}))
    assert {result["asset"]: (result["rows"], result["status"]) for result in results} == {
        "nasa_neo/near_earth_objects": (180, "done"),
        "mart/asteroids_per_week": (11, "done"),
    }
    rows = run_script(
        f"{preloaded}shared.cli query 'SELECT count(*) AS weeks FROM pr_123__mart.asteroids_per_week'",
        clone,
        {**shell, **on_postgres},
    )
    assert "11" in rows

    checks = [
        "ruff check projects/mart_etl",
        "ruff format --check projects/mart_etl",
        "mypy projects/mart_etl/src projects/mart_etl/tests",
        "pytest -n 0 projects/mart_etl",
        "dagster definitions validate -m mart_etl.definitions",
    ]
    run_script("\n".join(f"{preloaded}{check}" for check in checks), clone, shell)
