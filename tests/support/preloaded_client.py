"""A stand-in for `python`: it hands its command to the server in preloaded_python.py.

It lives as long as the process that runs there: it forwards signals, ends with the same status, and
when it is killed the process is killed as well. The server writes a copy of this file that names the
interpreter and the socket. It imports little, because it starts for each command.
"""

import contextlib
import json
import os
import signal
import socket
import sys

SOCKET = "@SOCKET@"
PYTHON = "@PYTHON@"
FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1)


def open_files() -> list[int]:
    """Return the numbers of the open files that the command inherits."""
    numbers = []
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - pathlib is slow to import
        with contextlib.suppress(OSError):  # the listing's own file is closed by now
            os.fstat(int(name))
            numbers.append(int(name))
    return sorted(numbers)


def request(files: list[int], is_leader: bool) -> bytes:
    """Return the description of the command: arguments, environment, directory and files."""
    text = json.dumps(
        {
            "arguments": sys.argv[1:],
            "environment": dict(os.environ),
            "directory": os.getcwd(),  # noqa: PTH109 - as above
            "files": files,
            "is_leader": is_leader,
            "umask": current_umask(),
            "ignores_interrupt": signal.getsignal(signal.SIGINT) == signal.SIG_IGN,
        }
    ).encode()
    return len(text).to_bytes(4, "big") + text


def forward(server: socket.socket, number: int) -> None:
    """Send a signal to the command."""
    server.send(bytes([number]))


def current_umask() -> int:
    """Return the umask of this process; it can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def start_witness(server: socket.socket) -> None:
    """Start a process in the same group that informs the server if only this process is killed.

    If the group is killed, this process and the witness are gone, and the server kills the group of
    the command.
    """
    alive, held_open = os.pipe()
    if os.fork():
        os.close(alive)
        return
    os.close(held_open)
    for number in FORWARDED:
        signal.signal(number, signal.SIG_IGN)
    for file in (0, 1, 2):
        with contextlib.suppress(OSError):
            os.close(file)
    os.read(alive, 1)
    with contextlib.suppress(OSError):
        server.send(b"\xff")
    os._exit(0)


def main() -> None:
    """Send the command, forward signals, and end as the command ends."""
    files = open_files()
    is_leader = os.getpgrp() == os.getpid()
    server = socket.socket(socket.AF_UNIX)
    try:
        server.connect(SOCKET)
    except OSError:  # the server has ended: the command only starts slower
        os.execv(PYTHON, [PYTHON, *sys.argv[1:]])
    for number in FORWARDED:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, lambda received, _: forward(server, received))
    text = request(files, is_leader)
    socket.send_fds(server, [text[:4]], files)
    server.sendall(text[4:])
    for file in files:
        if file > 2:
            os.close(file)
    if is_leader:
        start_witness(server)
    status = server.recv(4)
    if len(status) < 4:
        sys.exit("The server of preloaded_python.py ended")
    code = os.waitstatus_to_exitcode(int.from_bytes(status, "big"))
    if code < 0:
        with contextlib.suppress(OSError):  # the handler of SIGKILL cannot be set
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


if __name__ == "__main__":
    main()
