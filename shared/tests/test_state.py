"""What resources remember between loads survives loads that run concurrently."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import dlt
import pytest
from dlt.extract import DltResource, DltSource

from shared import warehouse
from shared.warehouse import run
from shared.warehouse.errors import StateChangedError

SLOW_ON_SERVERS = True

SPEC = warehouse.pipeline("shop_pipeline", "shop")
DAY: Any = {"day": {"data_type": "text", "partition": True}}
REPLACED: Any = {"disposition": "merge", "strategy": "delete-insert"}


@dlt.source(name="shop")
def shop(day: str, on_request: Callable[[], None] = lambda: None) -> DltResource:
    """Serves a row of a day, and remembers the days that it has served."""

    @dlt.resource(columns=DAY, write_disposition=REPLACED)
    def orders() -> Iterator[Any]:
        seen = dlt.current.resource_state().setdefault("seen", [])
        on_request()
        seen.append(day)
        yield {"day": day, "seen": len(seen)}

    return orders


def load(day: str, on_request: Callable[[], None] = lambda: None) -> list[str]:
    """Load a day, and return the log."""
    log: list[str] = []
    warehouse.load(warehouse.plan_load(SPEC, shop(day, on_request), [day]), log.append)
    return log


def load_elsewhere(day: str) -> None:
    """Load a day as another run does, and wait for it."""
    thread = threading.Thread(target=load, args=[day])
    thread.start()
    thread.join()


def remembered() -> list[str]:
    """Return the days that the next load would begin with."""
    seen: list[str] = []

    @dlt.resource(name="orders", columns=DAY, write_disposition=REPLACED)
    def reading() -> Iterator[Any]:
        seen.extend(dlt.current.resource_state().get("seen", []))
        yield {"day": "later", "seen": 0}

    source = DltSource(dlt.Schema("shop"), "shop", [reading])
    warehouse.load(warehouse.plan_load(SPEC, source, ["later"]))
    return seen


@pytest.mark.parametrize("before", [[], ["fri"]])
def test_loads_that_run_concurrently_all_store_their_state(
    any_warehouse: str, before: list[str]
) -> None:
    for day in before:
        load(day)
    both = threading.Barrier(2)
    requests: list[str] = []

    def request(day: str) -> None:
        requests.append(day)
        if requests.count(day) == 1:
            both.wait(30)  # each has restored its state before either stores it

    logs: list[str] = []
    threads = [
        threading.Thread(target=lambda day=day: logs.extend(load(day, lambda: request(day))))
        for day in ("mon", "tue")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(remembered()) == sorted([*before, "mon", "tue"])
    assert len(requests) == 3, "the second one extracts again"
    assert [line for line in logs if "extracting again" in line]


def test_a_load_that_changes_no_state_does_not_extract_again(any_warehouse: str) -> None:
    load("mon")
    requests = []

    @dlt.resource(name="orders", columns=DAY, write_disposition=REPLACED)
    def unchanged() -> Iterator[Any]:
        requests.append(1)
        load_elsewhere("tue")
        yield {"day": "wed", "seen": 0}

    source = DltSource(dlt.Schema("shop"), "shop", [unchanged])
    warehouse.load(warehouse.plan_load(SPEC, source, ["wed"]))
    assert requests == [1]
    assert remembered() == ["mon", "tue"]


def test_a_state_that_changes_again_and_again_fails_the_load(
    tmp_warehouse: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "MAX_EXTRACTIONS", 2)
    days = iter(range(100))

    def another_load() -> None:
        load_elsewhere(f"other{next(days)}")

    load("mon")
    with pytest.raises(StateChangedError, match=r"shop_pipeline .* Run it again"):
        load("tue", another_load)
    assert "tue" not in remembered()
    assert warehouse.query("SELECT * FROM shop.orders WHERE day = 'tue'") == []
