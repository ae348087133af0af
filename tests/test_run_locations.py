"""`etl run` loads the locations that have what is selected; a contract only makes the search short."""

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest

from support.processes import etl, workspace

DEFINITIONS = """
import dagster as dg

@dg.asset(key_prefix="shop", deps=[dg.AssetKey(["shop", each]) for each in {deps}])
def {name}() -> None: ...

defs = dg.Definitions([{name}])
"""


def write_contract(environment: dict[str, str], name: str, assets: Collection[str]) -> None:
    project = workspace(environment) / "projects" / f"{name}_etl"
    document = {"location": f"{name}_etl", "assets": {f"shop/{asset}": {} for asset in assets}}
    (project / "contract.json").write_text(json.dumps(document))


def list_locations(environment: dict[str, str], **pythons: str) -> None:
    """Write a workspace.yaml with the locations, and with the Pythons of some of them."""
    entries: list[Any] = [
        {
            "python_module": {
                "module_name": f"{name}_etl.definitions",
                "location_name": f"{name}_etl",
                **({"executable_path": pythons[name]} if name in pythons else {}),
            }
        }
        for name in ("broken", "milk", "tea")
    ]
    (workspace(environment) / "workspace.yaml").write_text(json.dumps({"load_from": entries}))


@pytest.fixture
def shop(etl_environment: dict[str, str]) -> dict[str, str]:
    """A workspace with tea, milk, which depends on tea, and a location that does not load."""
    project = workspace(etl_environment) / "projects"
    locations = {
        "tea": DEFINITIONS.format(name="tea", deps=[]),
        "milk": DEFINITIONS.format(name="milk", deps=["tea"]),
        "broken": "raise RuntimeError('no definitions')\n",
    }
    for name, code in locations.items():
        package = project / f"{name}_etl" / f"{name}_etl"
        package.mkdir(parents=True)
        (package / "__init__.py").touch()
        (package / "definitions.py").write_text(code)
        write_contract(etl_environment, name, [name])
    list_locations(etl_environment)
    path = ":".join(str(project / f"{name}_etl") for name in locations)
    return {**etl_environment, "PYTHONPATH": path}


def loaded(environment: dict[str, str]) -> set[str]:
    """Return the locations whose process was started; each has a log."""
    logs: Path = workspace(environment) / ".dagster" / "etl_run"
    return {file.stem.removesuffix("_etl") for file in logs.glob("*.log")}


def run(environment: dict[str, str], *arguments: str) -> tuple[list[str], str]:
    """Return the assets that a successful run loaded, and its notes."""
    done = etl(environment, "run", *arguments, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads(done.stdout)
    assert {result["status"] for result in results} == {"done"}
    return sorted(result["asset"] for result in results), done.stderr


def refusal(environment: dict[str, str], *arguments: str) -> tuple[int, str]:
    done = etl(environment, "run", *arguments, "--json")
    assert not done.stdout
    return done.returncode, done.stderr


def test_an_asset_loads_one_location_and_an_operator_all(shop: dict[str, str]) -> None:
    assert run(shop, "shop.tea") == (["shop/tea"], "")
    assert loaded(shop) == {"tea"}
    assets, note = run(shop, "shop/tea+")
    assert assets == ["shop/milk", "shop/tea"]
    assert "broken_etl did not load; the selection does not need it." in note
    assert loaded(shop) == {"tea", "milk", "broken"}


def test_an_asset_beside_a_location_loads_these_two(shop: dict[str, str]) -> None:
    assert run(shop, "milk_etl", "shop/tea") == (["shop/milk", "shop/tea"], "")
    assert loaded(shop) == {"tea", "milk"}


def test_a_location_without_a_valid_contract_may_have_the_asset(shop: dict[str, str]) -> None:
    milk = workspace(shop) / "projects" / "milk_etl"
    (milk / "contract.json").write_text("<<<<<<< HEAD")
    definitions = milk / "milk_etl" / "definitions.py"
    definitions.write_text(DEFINITIONS.format(name="tea", deps=[]))
    assert run(shop, "shop/tea") == (["shop/tea", "shop/tea"], "")  # each location has one
    assert loaded(shop) == {"tea", "milk"}


def test_an_asset_that_the_contracts_have_elsewhere_runs(shop: dict[str, str]) -> None:
    write_contract(shop, "milk", ["milk", "tea"])  # stale: it only depends on tea
    write_contract(shop, "tea", [])
    assert run(shop, "shop/tea")[0] == ["shop/tea"]
    assert loaded(shop) == {"tea", "milk", "broken"}


def test_a_refusal_is_the_same_as_with_all_locations(shop: dict[str, str]) -> None:
    list_locations(shop, tea="no/python")
    code, message = refusal(shop, "shop/tea")  # milk_etl only depends on it
    assert code == 1
    assert message.startswith("No asset 'shop/tea' in the locations that loaded. tea_etl did not")

    list_locations(shop)
    definitions = workspace(shop) / "projects" / "broken_etl" / "broken_etl" / "definitions.py"
    definitions.write_text(DEFINITIONS.format(name="sugar", deps=[]))
    code, message = refusal(shop, "shop/broken")  # its contract is stale
    assert code == 2
    assert message.startswith("No asset 'shop/broken'; there are ")

    code, message = refusal(
        shop, "tea_etl", "shop/broken"
    )  # beside a location that runs completely
    assert code == 2
    assert message.startswith("No asset 'shop/broken'; there are ")
