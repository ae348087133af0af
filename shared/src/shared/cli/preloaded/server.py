"""The server of `PreloadedPython`: it imports libraries and forks a child for each command.

It is run as a file, so that its children have imported nothing of this workspace.
"""

import atexit
import contextlib
import fcntl
import gc
import importlib
import io
import json
import os
import runpy
import selectors
import shutil
import signal
import site
import socket
import sys
import time
import traceback
import types
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SIGNALS_TO_THE_GROUP = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals that do not end the server."""

FORWARDED = (*SIGNALS_TO_THE_GROUP, signal.SIGQUIT, signal.SIGUSR1)
"""Signals that a client sends on to its command."""

ENDING = ((3, signal.SIGTERM), (10, signal.SIGKILL))
"""The signals that processes receive which still run so many seconds after the end of the input."""

ALONE = 0xFF
"""The message of a client's witness: the client alone was killed, not its process group."""


@dataclass
class Child:
    """A forked process and the connection of its client."""

    pid: int
    client: socket.socket
    is_leader: bool
    client_alone: bool = False

    def send_signal(self, number: int) -> None:
        """Send a signal as the client received it: a group leader's whole group receives it."""
        self._signal(number, group=self.is_leader)

    def kill(self) -> None:
        """Kill what was killed with the client: the process, or its group."""
        self._signal(signal.SIGKILL, group=self.is_leader and not self.client_alone)

    def _signal(self, number: int, *, group: bool) -> None:
        try:
            (os.killpg if group else os.kill)(self.pid, number)
        except ProcessLookupError:  # its group does not exist yet
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)


class Server:
    """Accepts clients, forks, forwards signals and reports how the children end."""

    def __init__(self, listener: socket.socket) -> None:
        self.listener = listener
        self.children: dict[int, Child] = {}
        self.selector = selectors.DefaultSelector()
        self.selector.register(listener, selectors.EVENT_READ)
        self.selector.register(sys.stdin, selectors.EVENT_READ)
        self.wakeup, waker = socket.socketpair()
        waker.setblocking(False)
        self.waker = waker
        self.selector.register(self.wakeup, selectors.EVENT_READ)
        signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in SIGNALS_TO_THE_GROUP:  # commands that lead no group are in the server's group
            signal.signal(number, lambda *_: None)

    def serve(self) -> dict[str, Any] | None:
        """Serve until the input ends, and then end all children; in a forked child return its command."""
        began, ending = 0.0, list(ENDING)
        while not began or (self.children and ending):
            timeout = max(0, began + ending[0][0] - time.monotonic()) if began else None
            events = self.selector.select(timeout)
            if not events:
                _, number = ending.pop(0)
                for child in self.children.values():
                    child.send_signal(number)
            for key, _ in events:
                if key.fileobj is sys.stdin:
                    self.selector.unregister(sys.stdin)
                    began = time.monotonic()
                    continue
                try:
                    if command := self._handle(key):
                        return command
                except Exception:  # noqa: BLE001 - one client's problem must not end the server
                    traceback.print_exc()
        return None

    def _handle(self, key: selectors.SelectorKey) -> dict[str, Any] | None:
        """Handle one event; in a forked child return its command."""
        if key.fileobj is self.listener:
            return self._accept()
        if key.fileobj is self.wakeup:
            self.wakeup.recv(4096)
            self._reap()
        else:
            self._read(key.data)
        return None

    def _accept(self) -> dict[str, Any] | None:
        client, _ = self.listener.accept()
        try:
            text, files = receive(client)
        except (EOFError, OSError):  # the client was killed
            client.close()
            return None
        command: dict[str, Any] = json.loads(text)
        # A signal that the child receives before it has its own handlers waits until the command begins.
        signal.pthread_sigmask(signal.SIG_BLOCK, FORWARDED)
        pid = os.fork()
        if pid:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, FORWARDED)
            for file in files:
                os.close(file)
            self.children[pid] = child = Child(pid, client, command["is_leader"])
            self.selector.register(client, selectors.EVENT_READ, child)
            return None
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, *SIGNALS_TO_THE_GROUP):
            signal.signal(number, signal.SIG_DFL)
        self.selector.close()
        for connection in (self.listener, self.wakeup, self.waker, client):
            connection.close()
        for child in self.children.values():
            child.client.close()
        return {**command, "received": files}

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            child = self.children.pop(pid)
            code = os.waitstatus_to_exitcode(status)
            with contextlib.suppress(OSError):
                child.client.send(f"{max(code, 0)} {max(-code, 0)}\n".encode())
            with contextlib.suppress(KeyError):  # the client is gone already
                self.selector.unregister(child.client)
            child.client.close()

    def _read(self, child: Child) -> None:
        if child.pid not in self.children:
            return
        try:
            received = child.client.recv(64)
        except ConnectionError:
            received = b""
        for number in received:
            if number == ALONE:
                child.client_alone = True
                child.kill()
            else:
                child.send_signal(number)
        if not received:
            child.kill()
            self.selector.unregister(child.client)


def receive(client: socket.socket) -> tuple[bytes, list[int]]:
    """Return the description of a command and the open files that its client sent."""
    header, files, _, _ = socket.recv_fds(client, 4, 250)
    size, text = int.from_bytes(header, "big"), b""
    while len(text) < size or not header:
        if not (part := client.recv(size - len(text))):  # signals may follow
            for file in files:
                os.close(file)
            raise EOFError
        text += part
    return text, files


def become(command: dict[str, Any], executable: str) -> None:
    """Take over the files, the environment, the directory and the session of the client."""
    targets = command["files"]
    first = max(targets, default=0) + 1
    high = [fcntl.fcntl(file, fcntl.F_DUPFD_CLOEXEC, first) for file in command["received"]]
    for file in command["received"]:
        os.close(file)
    for target, file in zip(targets, high, strict=True):
        os.dup2(file, target)
        os.set_inheritable(target, True)
        os.close(file)
    if command["is_leader"]:
        os.setsid()
    os.umask(command["umask"])
    os.chdir(command["directory"])
    os.environ.clear()
    os.environ.update(command["environment"])
    handler = signal.SIG_IGN if command["ignores_interrupt"] else signal.default_int_handler
    signal.signal(signal.SIGINT, handler)
    sys.dont_write_bytecode = bool(os.environ.get("PYTHONDONTWRITEBYTECODE"))
    sys.executable = executable
    import multiprocessing.spawn  # after `LastExit`: it registers a function with `atexit`

    multiprocessing.spawn.set_executable(executable)
    unbuffered = bool(os.environ.get("PYTHONUNBUFFERED")) or "-u" in command["arguments"][:3]
    if isinstance(sys.stdout, io.TextIOWrapper):  # the server's own has no terminal
        sys.stdout.reconfigure(line_buffering=os.isatty(1), write_through=unbuffered)
    importlib.invalidate_caches()
    sys.path[:0] = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    for folder in site.getsitepackages():  # packages that were installed after the server started
        site.addsitedir(folder)


def run(arguments: list[str]) -> None:
    """Run `-m MODULE`, `-c CODE` or a file, as `python` does with these arguments."""
    safe_path = False
    while (option := arguments.pop(0)) in ("-B", "-P", "-W", "-u"):
        sys.dont_write_bytecode |= option == "-B"
        safe_path |= option == "-P"
        if option == "-W":
            warnings.simplefilter(arguments.pop(0))  # type: ignore[arg-type]
    name = arguments.pop(0) if option in ("-m", "-c") else option
    sys.argv = [option if option == "-c" else name, *arguments]
    first = {"-m": str(Path.cwd()), "-c": ""}.get(option, str(Path(option).resolve().parent))
    sys.path[:0] = [] if safe_path else [first]  # the server has none, by its option -P
    main = types.ModuleType("__main__")
    sys.modules["__main__"] = main
    if option == "-m":
        runpy.run_module(name, run_name="__main__", alter_sys=True)
    elif option == "-c":
        exec(compile(name, "<string>", "exec"), main.__dict__)  # noqa: S102 - as `python -c`
    else:
        main.__dict__["__file__"] = name
        code = compile(Path(name).read_bytes(), name, "exec")
        exec(code, main.__dict__)  # noqa: S102 - as `python FILE`


def exit_code(arguments: list[str]) -> int:
    """Run the command and return the exit code that `python` ends with."""
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, FORWARDED)
        run(arguments)
    except SystemExit as error:
        if error.code is None or isinstance(error.code, int):
            return error.code or 0
        print(error.code, file=sys.stderr)
        return 1
    except BaseException as error:  # noqa: BLE001 - as the interpreter does
        trace = error.__traceback__
        traceback.print_exception(error.with_traceback(trace and trace.tb_next))
        return -signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1
    return 0


class LastExit:
    """Ends this process without freeing each object, which takes half a second.

    It is the first function that `atexit` has, so it runs last.
    """

    code = 1  # of an error before the command begins

    def __call__(self) -> None:
        """End with the code, or by the signal that a negative code names."""
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        if self.code < 0:
            signal.signal(-self.code, signal.SIG_DFL)
            os.kill(os.getpid(), -self.code)
        os._exit(self.code)


def preload(modules: list[str]) -> None:
    """Import the modules, and keep what they have made in memory that all children share."""
    with warnings.catch_warnings():  # commands run with the filters of a fresh Python
        warnings.simplefilter("ignore")
        for module in modules:
            with contextlib.suppress(Exception):  # the command that needs it shows the error
                importlib.import_module(module)
    gc.collect()
    gc.freeze()


def main() -> None:
    """Import the libraries and serve; a forked child comes back with its command and runs it."""
    executable, last_exit = sys.argv[2], LastExit()
    atexit.register(last_exit)
    with socket.socket(fileno=int(sys.argv[1])) as listener:
        preload(sys.argv[3:])
        command = Server(listener).serve()
    if command is None:
        shutil.rmtree(Path(executable).parent, ignore_errors=True)
        os.killpg(0, signal.SIGKILL)  # it leads the group of all that its children have started
    else:
        become(command, executable)
        last_exit.code = exit_code(command["arguments"])


if __name__ == "__main__":
    main()
