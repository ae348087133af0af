"""`etl metrics`: serve metrics for Prometheus."""

from contextlib import suppress
from typing import Annotated

import typer

from shared.cli.terminal import console, fail

DEFAULT_PORT = 9464
"""The port that OpenTelemetry reserves for metrics in Prometheus' format."""


def metrics(
    port: Annotated[int, typer.Option(help="The port; 0 for a free one.")] = DEFAULT_PORT,
    host: Annotated[
        str, typer.Option(help="The address to listen on. It has no password.")
    ] = "127.0.0.1",
) -> None:
    """Serve metrics of runs and loads for Prometheus, until Ctrl-C.

    They come from the Dagster instance of DAGSTER_HOME. Counters start at 0 with this command.
    """
    from prometheus_client import CollectorRegistry, start_http_server

    from shared.cli.instance import instance_or_fail
    from shared.orchestration.metrics import InstanceCollector

    with instance_or_fail() as instance:
        registry = CollectorRegistry()
        registry.register(InstanceCollector(instance))
        try:
            server, thread = start_http_server(port, host, registry)
        except (OSError, OverflowError) as error:
            fail(f"Cannot listen on {host}:{port}: {error}. Choose another with --port.")
        console.print(f"http://{host}:{server.server_port}/metrics", highlight=False)
        with suppress(KeyboardInterrupt):
            thread.join()
        server.shutdown()
