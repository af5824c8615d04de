"""Commands as a shell runs them: a process each, in a folder of its own, with a clean environment."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import jobsched

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
        """Run a command; it must end with that code, and without a traceback of ours."""
        ended = subprocess.run(
            self.command(*words),
            cwd=self.folder,
            env={**self.environment, **environment},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        ran = Ran(ended.returncode, ended.stdout, ended.stderr)
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
