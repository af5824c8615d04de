"""Commands in a process each, in a folder of their own, with a clean environment."""

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NoReturn

import pytest

import jobsched
from jobsched.cli import main
from jobsched.cli.app import app
from jobsched.errors import ConfigError

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts so what it runs in the background; what the tests start shall mind an interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)

CATEGORIES = """\
store = "lmdb:.jobsched"
workers = 2
tasks = ["tasks"]

[categories.mail]
priority = 5
max_workers = 2
timeout = "30s"

[categories.reports]
"""

TASKS = """\
from jobsched import task

print("tasks imported")

@task(category="mail", max_retries=2)
def send(to: str, subject: str = "") -> str:
    return f"{to}: {subject}"

@task(category="reports")
def fail(why: str) -> None:
    raise ValueError(why)

@task
def homeless() -> None:
    pass
"""


@dataclass(frozen=True)
class Ran:
    """How a command ended, and what it said."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def json_lines(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


class Project:
    """A folder, and the command line in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        home = folder / "home"
        home.mkdir()
        self.environment = {
            "HOME": str(home),
            "LANG": "C.UTF-8",
            "PATH": os.defpath,
            "PYTHONPATH": str(Path(jobsched.__file__).parents[1]),
            "PYTHONDONTWRITEBYTECODE": "1",
            "TZ": "UTC",
        }

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "jobsched", *words]

    def __call__(self, *words: str, stdin: str = "", code: int = 0, **environment: str) -> Ran:
        """Run a command; it must end with that code, and without a traceback of ours.

        In a fork of this process, which has the imports behind it: a tenth of the time.
        """
        with contextlib.ExitStack() as stack:
            files = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(3)]
            files[0].write(stdin.encode())
            files[0].seek(0)
            child = os.fork()
            if child == 0:
                self._become(words, {**self.environment, **environment}, [file.fileno() for file in files])
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            return self._checked(code, Ran(status, *(_text(file) for file in files[1:])))

    def process(self, *words: str, code: int = 0) -> Ran:
        """Run a command as a shell does. A node needs that: it starts processes that import anew."""
        ended = subprocess.run(
            self.command(*words),
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return self._checked(code, Ran(ended.returncode, ended.stdout, ended.stderr))

    @contextlib.contextmanager
    def node(self, *words: str) -> Iterator[subprocess.Popen[str]]:
        """A node that runs meanwhile, with its output to read; stopped at the end."""
        with subprocess.Popen(
            self.command("run", *words),
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as running:
            try:
                assert any("node started" in line for line in running.stderr)
                yield running
            finally:
                running.terminate()
                try:
                    running.communicate(timeout=40)
                except subprocess.TimeoutExpired:
                    running.kill()
                    raise

    def at_a_terminal(self, *words: str, typed: str = "") -> str:
        """What a command shows at a terminal of 80 columns, where somebody has typed something."""
        parent, child = pty.openpty()
        environment = {**self.environment, "TERM": "xterm-256color", "COLUMNS": "80"}
        with subprocess.Popen(
            self.command(*words), cwd=self.folder, env=environment, stdin=child, stdout=child, stderr=child
        ):
            os.close(child)
            os.write(parent, typed.encode())
            shown = b""
            with contextlib.suppress(OSError):  # the end of a terminal
                while data := os.read(parent, 65536):
                    shown += data
        os.close(parent)
        return shown.decode()

    def _become(self, words: tuple[str, ...], environment: dict[str, str], files: list[int]) -> NoReturn:
        """Be the command, in the child."""
        status = 1
        try:
            for number, file in enumerate(files):
                os.dup2(file, number)
            sys.stdin, sys.stdout, sys.stderr = (
                os.fdopen(n, "w" if n else "r", closefd=False) for n in range(3)
            )
            os.chdir(self.folder)
            os.environ.clear()
            os.environ.update(environment)
            sys.argv = ["jobsched", *words]
            main()
        except SystemExit as ended:
            status = ended.code
        except BaseException:  # noqa: BLE001 (as the interpreter does)
            traceback.print_exc()
        finally:
            with contextlib.suppress(ValueError, OSError):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(status)

    def _checked(self, code: int, ran: Ran) -> Ran:
        assert ran.code == code, ran
        assert "jobsched/cli/" not in ran.err, ran
        return ran

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.write_text(text)
        return path

    def dispatch(self, *words: str) -> str:
        """Dispatch a job; return its id."""
        return self("dispatch", *words).out.strip()


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode()


@pytest.fixture(scope="session", autouse=True)
def _imports():
    """Have everything imported that typer imports when it first parses something."""
    with pytest.raises(ConfigError):
        app(["-c", "/nowhere", "stats"], standalone_mode=False)


@pytest.fixture
def empty(tmp_path):
    """A folder with nothing in it."""
    return Project(tmp_path)


@pytest.fixture
def project(empty):
    """A folder with two categories and three tasks."""
    empty.write("categories.toml", CATEGORIES)
    empty.write("tasks.py", TASKS)
    return empty
