"""A program that takes the arguments of `python` and lets the server of `PreloadedPython` run them.

It lives as long as the process that runs there: it forwards signals, ends with the same status, and
when it is killed the process is killed as well. It imports little, because it starts for each command,
and becomes a shell while it waits: that takes a tenth of the memory. `PreloadedPython` writes a copy of
this file that names the interpreter and the socket.
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

STANDARD_ERROR = 2

TRAP = """trap 'printf "\\{number:03o}" >&9; trapped=yes' {number}"""
WAIT = """
until read -r code number <&9; do
    [ "$trapped" ] || { echo "$0: the server of preloaded Python ended" >&2; exit 1; }
    trapped=
done
[ "$number" = 0 ] && exit "$code"
trap - "$number" 2>/dev/null
kill "-$number" $$
"""
"""A shell script: wait for the code or the signal with which the command ends, and end as it ends."""


def is_supported(arguments: list[str]) -> bool:
    """Return whether the server knows these arguments of `python`."""
    while arguments and arguments[0] in ("-B", "-P", "-W", "-u"):
        arguments = arguments[2 if arguments[0] == "-W" else 1 :]
    return bool(arguments) and (arguments[0] in ("-m", "-c") or not arguments[0].startswith("-"))


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
    os.set_inheritable(held_open, True)
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
    """Send the command, and become the shell that waits for its end."""
    files = open_files()
    is_leader = os.getpgrp() == os.getpid()
    server = socket.socket(socket.AF_UNIX)
    # Without the server the command only starts slower.
    if not is_supported(sys.argv[1:]) or server.connect_ex(SOCKET):
        os.execv(PYTHON, [PYTHON, *sys.argv[1:]])  # noqa: S606 - no shell is needed
    for number in FORWARDED:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, lambda received, _: forward(server, received))
    text = request(files, is_leader)
    signal.pthread_sigmask(signal.SIG_BLOCK, FORWARDED)  # a signal follows the command
    socket.send_fds(server, [text[:4]], files)
    server.sendall(text[4:])
    signal.pthread_sigmask(signal.SIG_UNBLOCK, FORWARDED)
    for file in files:
        if file > STANDARD_ERROR:
            os.close(file)
    if is_leader:
        start_witness(server)
    os.dup2(server.fileno(), 9)
    os.set_inheritable(9, True)  # it may have been 9 already
    script = "\n".join(TRAP.format(number=int(number)) for number in FORWARDED) + WAIT
    os.execv("/bin/sh", ["/bin/sh", "-c", script, "python", *sys.argv[1:]])  # noqa: S606 - a constant


if __name__ == "__main__":
    main()
