"""A Python whose imports are done: a server imports libraries once, and forks a child for each command.

Dagster starts two processes for each code location, and each of them imports Dagster and dlt: two CPU
seconds and 65 MB. A forked child has these modules at once, and shares their memory with the others.
`PreloadedPython` starts the server. Its `executable` takes the same arguments as `python`; the children
find it as `sys.executable`, so what they start is fast as well. Linux only: on macOS a process that has
loaded system libraries must not fork.
"""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from shared.cli.preloaded.modules import DAGSTER_MODULES

SUPPORTED = sys.platform == "linux"


class PreloadedPython:
    """Runs the server while entered as a context, or from `start` to `stop`.

    Attributes:
        lifeline: an open file; the server ends when no process has it.
        executable: the program that takes the arguments of `python`.
        interpreter: the Python that imports the modules.
    """

    def __init__(
        self, interpreter: str = sys.executable, modules: Sequence[str] = DAGSTER_MODULES
    ) -> None:
        self.interpreter, self.modules = interpreter, modules

    def start(self) -> Path:
        """Start the server and return the executable; commands that come before it is ready wait.

        When no process has `lifeline`, the server ends the processes that still run, and removes its
        folder.

        Raises:
            NotImplementedError: processes must not fork on this system.
            OSError: no program or socket can be in the folder of temporary files.
        """
        if not SUPPORTED:
            raise NotImplementedError("processes do not fork on this system")
        folder = Path(tempfile.mkdtemp(prefix="python-"))
        try:
            self._start_in(folder)
        except OSError:
            shutil.rmtree(folder)
            raise
        return self.executable

    def _start_in(self, folder: Path) -> None:
        client = Path(__file__).with_name("client.py").read_text()
        text = client.replace("@SOCKET@", f"{folder}/socket").replace("@PYTHON@", self.interpreter)
        self.executable = folder / "python"
        self.executable.write_text(f"#!{os.path.realpath(self.interpreter)} -SE\n{text}")
        self.executable.chmod(0o700)
        # It also fails on a file system that is mounted `noexec`.
        if not os.access(self.executable, os.X_OK):
            raise OSError(f"no program can run in {folder}; set TMPDIR to another folder")
        received, self.lifeline = os.pipe()
        with socket.socket(socket.AF_UNIX) as listener, os.fdopen(received) as end_of_input:
            try:
                listener.bind(f"{folder}/socket")
            except OSError as error:  # its path is too long
                raise OSError(f"{error}: {folder}/socket; set TMPDIR to another folder") from None
            listener.listen(1000)
            server = str(Path(__file__).with_name("server.py"))
            arguments = [str(listener.fileno()), str(self.executable), *self.modules]
            self.process = subprocess.Popen(  # noqa: S603 - its own program
                [self.interpreter, "-P", server, *arguments],  # -P: its folder is not importable
                stdin=end_of_input,
                stdout=subprocess.DEVNULL,
                pass_fds=[listener.fileno()],
                start_new_session=True,
            )

    def stop(self) -> None:
        """Stop the server and all processes that still run."""
        os.close(self.lifeline)
        self.process.wait(30)

    def __enter__(self) -> Self:
        """Start the server."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop the server and all processes that still run."""
        self.stop()
