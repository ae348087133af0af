"""A client of the warehouse that changes it behind the back of its pipelines."""

from typing import Any

import dlt

from shared.warehouse.destinations.configuration import resolve_configuration
from shared.warehouse.destinations.factory import create_destination


def client_of(dataset: str) -> Any:
    """Return the client of a dataset, for a `with` block."""
    destination: Any = create_destination()
    return destination.client(dlt.Schema("by_hand"), resolve_configuration(destination, dataset))


def execute(dataset: str, statement: str) -> None:
    """Run a statement."""
    with client_of(dataset) as client:
        client.sql_client.execute_sql(statement)
