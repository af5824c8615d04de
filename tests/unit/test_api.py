import asyncio
import inspect
import math
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from jobsched import InvalidOption, Job, Task, api, task
from jobsched.codec import decode_record
from jobsched.definition import TaskDefinition, known
from jobsched.retry import Backoff
from jobsched.testing import LocalApp

CONFIG = "tasks = ['shop.tasks']\n[categories.mail]\n[categories.reports]\n"


@pytest.fixture
def app():
    """An app to which the module-level functions dispatch."""
    with LocalApp(categories=["mail", "reports"]) as made, made.installed():
        yield made


def greet() -> None: ...


@task
def plain(to: str, subject: str = "") -> str:
    """Greet somebody."""
    return f"{to}:{subject}"


@task()
def bare() -> None: ...


@task(category="mail", priority=3, max_retries=5, timeout=30, backoff=Backoff(base=2))
def send(to: str, *, category: str = "") -> str:
    return f"{to}:{category}"


@task(timeout=timedelta(minutes=1), name="shop.tasks:renamed")
async def moved() -> int:
    return 5


@task(name="short", category="reports", max_retries=0)
def long_name() -> None: ...


short = long_name


# The decorator.


@pytest.mark.parametrize(
    ("made", "name", "defaults"),
    [
        (plain, f"{__name__}:plain", (None, 0, None, None, Backoff())),
        (bare, f"{__name__}:bare", (None, 0, None, None, Backoff())),
        (send, f"{__name__}:send", ("mail", 3, 5, 30, Backoff(base=2))),
        (moved, "shop.tasks:renamed", (None, 0, None, 60, Backoff())),
        (short, "short", ("reports", 0, 0, None, Backoff())),
    ],
)
def test_every_form_of_the_decorator_registers_a_task(made, name, defaults):
    assert isinstance(made, Task)
    assert isinstance(made, TaskDefinition)
    assert made.name == name
    assert known()[name] is made
    assert (made.category, made.priority, made.max_retries, made.timeout_s, made.backoff) == defaults


def test_calling_a_task_runs_the_function_here():
    assert plain("ada", subject="hi") == "ada:hi"
    assert send("ada", category="the function's own") == "ada:the function's own"
    assert asyncio.run(moved()) == 5


def test_a_task_looks_like_its_function():
    assert (plain.__name__, plain.__module__, plain.__qualname__) == ("plain", __name__, "plain")
    assert plain.__doc__ == "Greet somebody."
    assert str(inspect.signature(plain)) == "(to: str, subject: str = '') -> str"
    assert inspect.unwrap(plain) is plain.function
    assert moved.is_async


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_retries": -1}, "max_retries must be a whole number from 0 to 1,000,000, got -1"),
        ({"timeout": 0}, "timeout must be from 0.001 s to 50 years, got 0"),
        ({"timeout": -1.5}, "timeout must be from 0.001 s to 50 years"),
        ({"timeout": timedelta(seconds=-1)}, "timeout must be from 0.001 s to 50 years"),
        ({"timeout": "30s"}, "timeout must be"),
        ({"timeout": math.nan}, "timeout must be"),
        ({"max_retries": "3"}, "max_retries must be"),
        ({"max_retries": 1.5}, "max_retries must be"),
        ({"priority": 30_001}, "priority must be a whole number from -30000 to 30000, got 30001"),
        ({"priority": True}, "priority must be"),
        ({"priority": "high"}, "priority must be"),
    ],
)
def test_a_wrong_default_is_refused_at_once(options, message):
    before = known()
    with pytest.raises(InvalidOption, match=message):
        task(**options)(greet)
    assert known() == before


def test_a_function_that_no_worker_can_import_is_refused():
    with pytest.raises(InvalidOption, match="define the task at the top of a module"):
        task(lambda: 1)
    with pytest.raises(InvalidOption, match="define the task at the top of a module"):

        @task(category="mail")
        def nested() -> None: ...


# Dispatching from a task.


def test_a_task_dispatches_with_its_own_defaults(app):
    job = send.dispatch("ada")
    assert isinstance(job, Job)
    (one,) = app.assert_dispatched(send, args=("ada",), kwargs={}, category="mail")
    assert one.priority == 3
    record = decode_record(app.dispatcher.look(job._id).record)
    assert record.max_retries is None  # the task's own are resolved where it runs


def test_our_options_stay_apart_from_the_users_arguments(app):
    options = send.options(category="reports", priority=9, name="a name", max_retries=0)
    job = options.dispatch("ada", category="x")
    (one,) = app.assert_dispatched(send, args=("ada",), kwargs={"category": "x"}, category="reports")
    assert (one.priority, one.name) == (9, "a name")
    assert decode_record(app.dispatcher.look(job._id).record).max_retries == 0


def test_options_add_up_the_last_one_wins_and_the_task_stays_as_it_was(app):
    late = send.options(delay=5, priority=1)
    later = late.options(delay=timedelta(hours=1))
    assert (dict(send.given), dict(late.given)) == ({}, {"delay": 5, "priority": 1})
    assert dict(later.given) == {"delay": timedelta(hours=1), "priority": 1}
    assert (later.name, later("ada")) == (send.name, "ada:")
    assert known()[f"{__name__}:send"] is send
    later.dispatch("ada")
    (one,) = app.dispatched()
    assert (one.priority, one.due - app.clock.now) == (1, timedelta(hours=1))


def test_an_unknown_option_is_refused(app):
    with pytest.raises(TypeError, match="dely"):
        send.options(dely=5).dispatch("ada")
    app.assert_not_dispatched(send)


def test_a_coroutine_dispatches_without_blocking(app):
    asyncio.run(send.options(priority=2).adispatch("ada"))
    asyncio.run(api.adispatch(send, "reports", args=("bob",)))
    assert [one.category for one in app.dispatched()] == ["mail", "reports"]


# The module-level functions.


def test_dispatch_takes_task_category_and_delay_in_this_order(app):
    api.dispatch(plain, "reports", 5, args=("ada",))
    (one,) = app.assert_dispatched(plain, category="reports")
    assert one.due - app.clock.now == timedelta(seconds=5)


def test_a_task_with_a_name_of_its_own_is_dispatched_by_it(app):
    api.dispatch("short")
    api.dispatch("shop.tasks:renamed", "mail")
    assert [(one.task, one.category) for one in app.dispatched()] == [
        ("short", "reports"),
        ("shop.tasks:renamed", "mail"),
    ]


def test_prepared_jobs_are_dispatched_together(app):
    app.faults(plan={"store_full": [2]})  # there is no second request
    jobs = api.dispatch_many(send.prepare(f"user-{n}") for n in range(3))
    assert [one.job for one in app.dispatched()] == jobs


def test_a_batch_is_one_request(app):
    with api.batch() as batch:
        batch.dispatch(send, args=("ada",))
        batch.dispatch(bare, "reports")
        assert app.dispatched() == []
        app.faults(plan={"store_full": [2]})  # there is no second request
    assert [one.category for one in app.dispatched()] == ["mail", "reports"]


def test_the_default_dispatcher_is_made_once_from_the_environment(monkeypatch, tmp_path):
    (tmp_path / "other.toml").write_text(CONFIG)
    monkeypatch.setattr(api, "_default", None)
    monkeypatch.setenv("JOBSCHED_CONFIG", str(tmp_path / "other.toml"))
    made = api.default_dispatcher()
    assert api.default_dispatcher() is made
    assert made.config.path == tmp_path / "other.toml"
    made.close()


def test_the_default_dispatcher_is_found_in_the_working_directory(monkeypatch, tmp_path):
    (tmp_path / "categories.toml").write_text(CONFIG)
    monkeypatch.setattr(api, "_default", None)
    monkeypatch.delenv("JOBSCHED_CONFIG", raising=False)
    monkeypatch.chdir(tmp_path)
    job = api.dispatch(plain, "mail", args=("ada",))
    assert job.state() == "pending"
    api.default_dispatcher().close()


# A script's own functions.

SCRIPT = """
import sys
from jobsched import Dispatcher, InvalidOption, task
from jobsched.codec import decode_record

@task(category="mail")
def send(to: str) -> None: ...

if __name__ == "__main__":
    jobs = Dispatcher.from_config("categories.toml")
    try:
        job = jobs.dispatch(send, args=("ada",))
    except InvalidOption as error:
        sys.exit(f"refused: {error}")
    print(decode_record(jobs.look(job._id).record).task)
"""


def run_script(directory: Path, module: str) -> subprocess.CompletedProcess[str]:
    (directory / "script.py").write_text(SCRIPT)
    (directory / "categories.toml").write_text(f"tasks = ['{module}']\n[categories.mail]\n")
    path = os.pathsep.join(filter(None, [str(Path(api.__file__).parents[1]), os.environ.get("PYTHONPATH")]))
    return subprocess.run(
        [sys.executable, "script.py"],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_a_script_that_is_a_task_module_dispatches_under_its_modules_name(tmp_path):
    done = run_script(tmp_path, "script")
    assert (done.stdout, done.returncode) == ("script:send\n", 0), done.stderr


@pytest.mark.parametrize(
    "module",
    [
        "json",
        "nowhere.tasks",
    ],
)
def test_a_function_of_another_script_is_refused(tmp_path, module):
    done = run_script(tmp_path, module)
    assert done.returncode == 1
    assert "refused: task 'send' is defined in the script that runs" in done.stderr


def test_an_undecorated_function_is_refused(app):
    with pytest.raises(InvalidOption, match=f"{__name__}:run_script is not a task: put @task above it"):
        api.dispatch(run_script, "mail")
