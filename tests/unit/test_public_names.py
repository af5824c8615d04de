import inspect
import pickle
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import jobsched

HEAVY = [
    "asyncio",
    "croniter",
    "dateutil",
    "dill",
    "jobsched.cli",
    "jobsched.config",
    "jobsched.gateway",
    "jobsched.node",
    "jobsched.store.lmdb",
    "lmdb",
    "multiprocess",
    "pathlib",
    "socket",
    "psutil",
    "rich",
    "typer",
    "zoneinfo",
]

RAISED_IN_JOBS = {jobsched.Retry, jobsched.Snooze, jobsched.Discard}
"""What a task raises to say what becomes of its job: no errors of ours."""


def test_the_public_names_are_sorted_and_each_is_there_once():
    assert jobsched.__all__ == sorted(set(jobsched.__all__))


@pytest.mark.parametrize("name", jobsched.__all__)
def test_every_public_name_can_be_imported_and_says_what_it_is(name):
    thing = getattr(jobsched, name)
    assert thing.__module__.startswith("jobsched.")
    documentation = inspect.getdoc(thing) or ""
    assert documentation.split("\n\n")[0].endswith(".")
    assert not documentation.startswith(f"{name}(")  # what a dataclass writes by itself


@pytest.mark.parametrize(
    ("name", "method"),
    [
        (name, method)
        for name in jobsched.__all__
        if inspect.isclass(getattr(jobsched, name))
        for method, value in vars(getattr(jobsched, name)).items()
        if not method.startswith("_")
        and (inspect.isfunction(value) or isinstance(value, property))
        and method not in getattr(getattr(jobsched, name), "__dataclass_fields__", ())
    ],
)
def test_every_public_method_says_what_it_does(name, method):
    assert inspect.getdoc(getattr(getattr(jobsched, name), method))


def test_there_are_no_other_public_names():
    public = {
        name
        for name, value in vars(jobsched).items()
        if not name.startswith("_") and not isinstance(value, ModuleType)
    }
    assert public == set(jobsched.__all__)


def test_star_import_gives_exactly_the_public_names():
    namespace: dict[str, object] = {}
    exec("from jobsched import *", namespace)
    assert set(namespace) - {"__builtins__"} == set(jobsched.__all__)


def test_importing_the_package_loads_nothing_that_only_the_node_or_the_command_line_needs():
    check = f"import sys, jobsched; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", check],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        cwd=Path(jobsched.__file__).parents[1],
    )
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    "error", [jobsched.JobFailed("id", "failed", "cause", "traceback"), jobsched.UnknownTask("m:send")]
)
def test_errors_survive_the_way_between_processes(error):
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), vars(copy)) == (type(error), str(error), vars(error))


def test_errors_derive_from_one_base():
    errors = [thing for name in jobsched.__all__ if inspect.isclass(thing := getattr(jobsched, name))]
    raised = [thing for thing in errors if issubclass(thing, Exception)]
    assert len(raised) > 10
    assert all(issubclass(thing, jobsched.JobschedError) for thing in raised if thing not in RAISED_IN_JOBS)


def test_what_ends_a_job_from_outside_is_no_exception_that_a_task_would_catch():
    for thing in (jobsched.JobInterrupted, jobsched.JobTimeout, jobsched.JobCancel):
        assert issubclass(thing, jobsched.JobInterrupted)
        assert not issubclass(thing, Exception)
