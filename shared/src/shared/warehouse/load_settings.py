"""dlt's configuration while loads run."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import dlt

DLT_SETTINGS = {
    "runtime.dlthub_telemetry": False,
    # Rows that arrive as Arrow get their load's id as well.
    "normalize.parquet_normalizer.add_dlt_load_id": True,
    "normalize.model_normalizer.add_dlt_load_id": True,
}
"""dlt's configuration for every load."""

_lock = threading.Lock()
_running = 0
_while_running = ExitStack()


@contextmanager
def load_settings() -> Iterator[None]:
    """Configure dlt from the first load that begins to the last one that ends.

    dlt has one configuration for all threads, and `dlt.config.values` puts back all of it at its end. A
    load that ends would take the settings from one that began later and still runs.
    """
    global _running  # noqa: PLW0603 - all threads count together
    with _lock:
        if not _running:
            _while_running.enter_context(dlt.config.values(DLT_SETTINGS))
        _running += 1
    try:
        yield
    finally:
        with _lock:
            _running -= 1
            if not _running:
                _while_running.close()
