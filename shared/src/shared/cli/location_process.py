"""The process of one location in `etl run`, and the channel to it."""

import os
import signal
import subprocess
import sys
import threading
import traceback
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any, TypeAlias

from shared.cli.reports import AssetResult, RunSelection
from shared.redaction import redact

SHUTDOWN_SECONDS = 15
"""How long an interrupted run may take to report to Dagster."""


Channel: TypeAlias = "Connection[Any, Any]"
"""The connection between `etl run` and the process of a location."""

_BODY = "from shared.cli.location_process import main; main()"


def start(
    location: str, module: str, selection: RunSelection, python: str
) -> "tuple[subprocess.Popen[bytes], Channel]":
    """Start the process of a location in the working folder. It logs to a file.

    It sends its `Plan`, waits for any message, and sends an `AssetResult` for each change. It ends,
    with its run, when the channel is closed, also because this process died.

    Args:
        location: the location's name.
        module: the module of its definitions.
        selection: what to run.
        python: an interpreter whose environment has the module and `shared`.

    Returns:
        The process and the channel to it.

    Raises:
        OSError: the interpreter does not exist.
    """
    selection.logs.mkdir(parents=True, exist_ok=True)
    ours, theirs = Pipe()
    with theirs, (selection.logs / f"{location}.log").open("w") as log:
        process = subprocess.Popen(  # noqa: S603 - this module, with an interpreter of workspace.yaml
            [python, "-P", "-c", _BODY, str(theirs.fileno())],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=[theirs.fileno()],
            start_new_session=True,  # a terminal interrupts all its processes; see `_handle_commands`
        )
    with suppress(OSError):  # the process has ended; its exit code and its log say why
        ours.send((location, module, selection))
    return process, ours


def main() -> None:
    """Run in the process that `start` starts."""
    channel = Connection(int(sys.argv[1]))
    location, module, selection = channel.recv()
    started = threading.Event()
    threading.Thread(target=_handle_commands, args=(channel, started), daemon=True).start()
    try:
        from shared.cli.location_run import run_location  # imports Dagster

        run_location(location, module, selection, channel.send, started)
    except Exception as error:  # noqa: BLE001 - any error is this location's failure
        print(redact(traceback.format_exc()))
        message = redact(f"{type(error).__name__}: {error}")
        channel.send(AssetResult(location, "", "failed", error=message))


def _handle_commands(channel: Channel, started: threading.Event) -> None:
    """Start the runs at the first message, and interrupt this process when the channel is closed."""
    with suppress(EOFError, OSError):
        channel.recv()
        started.set()
        channel.recv()
    started.clear()
    os.kill(os.getpid(), signal.SIGINT)
    threading.Event().wait(SHUTDOWN_SECONDS)
    os._exit(1)
