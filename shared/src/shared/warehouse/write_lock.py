"""The lock for a program that writes into the warehouse over its own connections, such as dbt."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager

from dlt.common.schema import Schema

from shared.warehouse.destinations.configuration import resolve_configuration
from shared.warehouse.destinations.factory import create_destination, create_lock_manager
from shared.warehouse.environment_datasets import mark_dataset
from shared.warehouse.locks.base import Log, no_log
from shared.warehouse.locks.file import duckdb_path_of, exclusive_file
from shared.warehouse.stored_names import deferred_environment


@contextmanager
def write_lock(datasets: Iterable[str], log: Log = no_log) -> Iterator[None]:
    """Keep loads out of datasets while another process writes into them, and mark them as the environment's.

    A DuckDB file is locked as a whole, because it has one writing process; no connection to it is open in
    this process. So is the file of the environment that tables are read from (`defer_to`). On a server the datasets are locked, as loads lock theirs, and others can load meanwhile.
    The kernel or the server frees the locks if this process is killed.

    Args:
        datasets: their names in the warehouse.
        log: receives waits.

    Raises:
        LockTimeoutError: loads took more than `WAREHOUSE_WAIT_SECONDS`.
        LockLostError: the connection that owned the locks of a server ended.
        WarehouseConfigError: a variable is missing or wrong.
    """
    destination = create_destination()
    with ExitStack() as locks:
        if destination.warehouse_type == "duckdb":
            locks.enter_context(exclusive_file(log))
            other = deferred_environment()
            if other and (file := duckdb_path_of(other)).exists():
                locks.enter_context(exclusive_file(log, file, read_only=True))
        else:
            for dataset in sorted(set(datasets)):  # sorted, so that no two runs wait for each other
                configuration = resolve_configuration(destination, dataset)
                manager = create_lock_manager(destination, configuration, log)
                locks.enter_context(manager.dataset_lock())
                with destination.client(Schema("marker"), configuration) as client:
                    mark_dataset(client)  # so that `etl env drop` drops what the process creates
        yield
