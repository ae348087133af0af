"""The Python that starts fast behaves like `python`: arguments, environment, files, signals, kills."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest

from shared.cli.locations import code_locations
from shared.cli.preloaded import PreloadedPython
from shared.cli.preloaded.modules import DAGSTER_MODULES
from support.processes import python, wait_for

pytestmark = pytest.mark.skipif(python() == sys.executable, reason="it exists on Linux only")

PARENT = """
import os, subprocess
child = subprocess.Popen(["sleep", "600"])
print(os.getpid(), child.pid, flush=True)
child.wait()
"""


def run(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # type: ignore[call-overload, no-any-return]
        [python(), *arguments], capture_output=True, text=True, check=False, **options
    )


def test_a_command_has_its_arguments_environment_directory_and_input(tmp_path: Path) -> None:
    code = "import os, sys; print(sys.argv, os.environ['A'], os.getcwd(), sys.stdin.read())"
    done = run("-c", code, "x", cwd=tmp_path, env={"A": "1"}, input="text")
    assert done.stdout == f"['-c', 'x'] 1 {tmp_path} text\n"
    assert run("-m", "json.tool", "--compact", input='{"a": 1}').stdout == '{"a":1}\n'
    code = "import sys; print(sys.dont_write_bytecode)"
    for value, expected in (("1", "True\n"), ("", "False\n")):
        assert run("-c", code, env={"PYTHONDONTWRITEBYTECODE": value}).stdout == expected
    (tmp_path / "program.py").write_text("import sys; print(__name__, sys.argv, __file__)")
    assert (
        run("program.py", "y", cwd=tmp_path).stdout == "__main__ ['program.py', 'y'] program.py\n"
    )


def test_a_command_inherits_open_files() -> None:
    reader, writer = os.pipe()
    with os.fdopen(reader) as received:
        code = f"import os; os.write({writer}, b'sent')"
        subprocess.run([python(), "-c", code], pass_fds=[writer], check=True)
        os.close(writer)
        assert received.read() == "sent"


@pytest.fixture
def default_interrupt() -> Iterator[None]:
    """Let commands receive SIGINT: a shell starts programs in the background with it ignored."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)


@pytest.mark.usefixtures("default_interrupt")
@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("import sys; sys.exit(3)", 3),
        ("import sys; sys.exit('message')", 1),
        ("raise ValueError('message')", 1),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL),
        ("import os, signal; os.kill(os.getpid(), signal.SIGINT)", -signal.SIGINT),
        ("import threading; threading.Thread(target=print, args=['message']).start()", 0),
        ("import atexit; atexit.register(print, 'message')", 0),
    ],
)
def test_a_command_ends_as_python_ends_it(code: str, status: int) -> None:
    expected = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    done = run("-c", code)
    assert done.returncode == expected.returncode == status
    assert ("message" in done.stdout + done.stderr) == (
        b"message" in expected.stdout + expected.stderr
    )


@pytest.mark.parametrize("kills_group", [False, True])
def test_a_kill_ends_the_process_and_a_kill_of_the_group_its_children(*, kills_group: bool) -> None:
    with subprocess.Popen(
        [python(), "-c", PARENT], stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as client:
        assert client.stdout
        parent, child = map(int, client.stdout.readline().split())
        (os.killpg if kills_group else os.kill)(client.pid, signal.SIGKILL)
        assert client.wait(30) == -signal.SIGKILL
    wait_for(lambda: not psutil.pid_exists(parent), 30)
    if kills_group:
        wait_for(lambda: not is_running(child), 30)
    else:
        assert is_running(child)
        os.kill(child, signal.SIGKILL)


def is_running(pid: int) -> bool:
    """Return whether a process exists and is not a zombie."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def test_a_signal_reaches_the_process_and_its_handler_decides() -> None:
    code = (
        "import time\n"
        "try: print('ready', flush=True); time.sleep(600)\n"
        "except KeyboardInterrupt: exit(7)"
    )
    with subprocess.Popen(
        [python(), "-c", code],
        stdout=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    ) as client:
        assert client.stdout
        assert client.stdout.readline() == b"ready\n"
        client.send_signal(signal.SIGINT)
        assert client.wait(30) == 7


@pytest.mark.usefixtures("default_interrupt")
def test_a_signal_that_comes_before_the_server_is_ready_ends_the_command_and_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = tmp_path / "go_on"
    (tmp_path / "slow_module.py").write_text(
        f"import os\nwhile not os.path.exists({str(go_on)!r}): pass"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with (
        PreloadedPython(modules=("slow_module",)) as preloaded,
        subprocess.Popen(
            [preloaded.executable, "-c", "import time; time.sleep(600)"],
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            pass_fds=[preloaded.lifeline],
        ) as client,
    ):
        wait_for(lambda: psutil.Process(client.pid).name() in ("sh", "dash", "bash"), 30)
        client.send_signal(signal.SIGINT)
        go_on.touch()
        assert client.wait(30) == -signal.SIGINT


def test_functions_of_atexit_run_and_shared_semaphores_are_freed() -> None:
    code = "import multiprocessing as m, atexit; lock = m.get_context('spawn').Lock(); atexit.register(print, 'end')"
    done = subprocess.run([python(), "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "end\n"
    assert not done.stderr  # the tracker of multiprocessing names those that leak


def test_a_kill_ends_all_processes_and_removes_what_they_made() -> None:
    preloaded = PreloadedPython(modules=())
    executable = preloaded.start()
    code = f"import subprocess; subprocess.run(['{executable}', '-c', {PARENT!r}])"
    with subprocess.Popen(
        [executable, "-c", code],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        pass_fds=[preloaded.lifeline],  # the first command has it, as that of `etl dev`
    ) as client:
        os.close(preloaded.lifeline)
        assert client.stdout
        pids = list(map(int, client.stdout.readline().split()))
        client.kill()
    preloaded.process.wait(30)
    wait_for(lambda: not any(map(is_running, pids)), 30)
    assert not executable.parent.exists()


def test_options_that_the_server_does_not_know_run_in_a_fresh_python() -> None:
    code = "import sys; print(sys.flags.optimize, 'dagster' in sys.modules)"
    assert run("-O", "-c", code).stdout == "1 False\n"


@pytest.mark.parametrize("module", DAGSTER_MODULES)
def test_a_preloaded_module_exists(module: str) -> None:
    package, _, rest = module.partition(".")
    spec = find_spec(package)
    assert spec
    if rest:
        assert spec.submodule_search_locations
        path = Path(spec.submodule_search_locations[0], *rest.split("."))
        assert path.with_suffix(".py").exists() or (path / "__init__.py").exists()


def test_no_module_of_this_project_is_preloaded() -> None:
    names = {"shared", "support", *code_locations()}
    done = run("-c", f"import sys; print({names} & {{name.split('.')[0] for name in sys.modules}})")
    assert done.stdout == "set()\n"


def test_without_the_server_a_command_runs_in_a_fresh_python(tmp_path: Path) -> None:
    text = Path(python()).read_text()
    socket = re.search(r'^SOCKET = "(.*)"$', text, re.MULTILINE)
    assert socket
    stand_in = tmp_path / "python"
    stand_in.write_text(text.replace(socket[1], str(tmp_path / "missing")))
    stand_in.chmod(0o755)
    done = subprocess.run(
        [stand_in, "-c", "import sys; print(sys.executable)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"{sys.executable}\n"
