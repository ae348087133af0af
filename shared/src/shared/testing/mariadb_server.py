"""A MariaDB server for tests, from the programs of Debian's package mariadb-server, on loopback."""

import os
import shutil
import socket
import subprocess
import time
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

_START_SECONDS = 60
_SETTINGS = (
    "--no-defaults",
    "--bind-address=127.0.0.1",
    "--innodb-flush-log-at-trx-commit=0",
    "--innodb-flush-method=nosync",
    "--innodb-buffer-pool-size=64M",
    "--character-set-server=utf8mb4",
    "--skip-log-bin",
    "--skip-name-resolve",
    "--max-allowed-packet=64M",
)


def missing_program() -> str:
    """Return the first program of MariaDB's server that is not installed; empty if all are."""
    names = ("mariadb-install-db", "mariadbd")
    return next((name for name in names if not _program(name)), "")


class MariaDbServer:
    """A MariaDB server that runs while its context is open; its user root has no password.

    It has its own data folder and a free port, and uses no system service.
    """

    def __init__(self, folder: Path, *options: str) -> None:
        """Choose a free port. Nothing starts yet.

        Args:
            folder: where the server stores its data and its log.
            options: more options of mariadbd, such as `--ssl-ca=file`.
        """
        self.folder, self.data, self._options = folder, folder / "mariadb", options
        self._process: subprocess.Popen[bytes] | None = None
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]

    def __enter__(self) -> Self:
        """Create the data folder if it does not exist, and start the server."""
        if not self.data.exists():
            self._install()
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop the server."""
        self.stop()

    def start(self) -> None:
        """Start the server, and return when it accepts connections.

        Raises:
            RuntimeError: it does not start; the message is the end of its log.
        """
        command = [
            _program("mariadbd"),
            *_SETTINGS,
            f"--datadir={self.data}",
            f"--port={self.port}",
            # A path in a test's folder may be too long for a socket; this one is relative to datadir.
            "--socket=mariadb.sock",
            f"--pid-file={self.data / 'mariadb.pid'}",
            *_as_root(),
            *self._options,
        ]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, env=self._environment()
            )
        deadline = time.monotonic() + _START_SECONDS
        while not self._accepts_connections():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop("kill")
                raise RuntimeError(self._log.read_text(errors="replace")[-2000:])
            time.sleep(0.05)

    def stop(self, mode: str = "fast") -> None:
        """Stop the server; the mode `kill` kills it."""
        if self._process:
            (self._process.kill if mode == "kill" else self._process.terminate)()
            self._process.wait()
            self._process = None

    def connect(self, database: str | None = None, **options: Any) -> Any:
        """Return a connection of PyMySQL as root, which commits each statement."""
        import pymysql

        defaults: dict[str, Any] = {
            "user": "root",
            "autocommit": True,
            "charset": "utf8mb4",
            "ssl_disabled": True,
        }
        return pymysql.connect(
            host="127.0.0.1", port=self.port, database=database, **{**defaults, **options}
        )

    def database(self) -> str:
        """Create an empty database and return its URL, `mysql://root@127.0.0.1:…`."""
        name = f"test_{uuid4().hex}"
        with closing(self.connect()) as connection, connection.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE {name}")
        return f"mysql://root@127.0.0.1:{self.port}/{name}"

    @property
    def _log(self) -> Path:
        return self.folder / "mariadb.log"

    def _install(self) -> None:
        command = [
            _program("mariadb-install-db"),
            "--no-defaults",
            f"--datadir={self.data}",
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
            *_as_root(),
        ]
        with self._log.open("ab") as log:
            done = subprocess.run(
                command, stdout=log, stderr=log, env=self._environment(), check=False
            )
        if done.returncode:
            raise RuntimeError(self._log.read_text(errors="replace")[-2000:])

    def _environment(self) -> dict[str, str]:
        """Return an environment with a separate temporary folder: a starting server deletes files in it."""
        temporary = self.folder / "tmp"
        temporary.mkdir(exist_ok=True)
        return {**os.environ, "TMPDIR": str(temporary)}

    def _accepts_connections(self) -> bool:
        import pymysql

        try:
            self.connect().close()
        except pymysql.OperationalError:
            return False
        return True


def _program(name: str) -> str:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/bin") or ""


def _as_root() -> list[str]:
    return ["--user=root"] if os.geteuid() == 0 else []
