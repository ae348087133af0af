"""Dagster's webserver and daemon as processes of their own, as a server runs them."""

import sys
from pathlib import Path

from torture.harness import DevServer

PROGRAMS = Path(sys.executable).parent


class Webserver(DevServer):
    """`dagster-webserver`, on loopback, while entered as a context."""

    def __init__(self, folder: Path, environment: dict[str, str], log: Path, *options: str) -> None:
        super().__init__([], folder, environment, log)
        program = str(PROGRAMS / "dagster-webserver")
        place = ["-h", "127.0.0.1", "-p", str(self.port)]
        self.command = [program, *place, "-w", "workspace.yaml", *options]


class Daemon(DevServer):
    """`dagster-daemon`, while entered as a context."""

    def __init__(self, folder: Path, environment: dict[str, str], log: Path) -> None:
        super().__init__([], folder, environment, log)
        self.command = [str(PROGRAMS / "dagster-daemon"), "run", "-w", "workspace.yaml"]
