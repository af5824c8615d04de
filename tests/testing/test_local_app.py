import asyncio
import threading
from dataclasses import dataclass
from datetime import timedelta

import local_tasks as tasks
import msgspec
import pytest
from local_world import CATEGORIES, START

import jobsched
from jobsched import Dispatcher, Trigger, current_job, dispatch
from jobsched.errors import (
    ConfigError,
    InvalidOption,
    JobCancelled,
    JobFailed,
    JobNotFound,
    QueueFull,
    ResultTimeout,
    TasksNotLoaded,
    UnknownCategory,
    UnknownTask,
)
from jobsched.testing import DispatchesForever, LocalApp, WouldWait

N = tasks.__name__


def test_a_job_runs_when_the_test_says_so(app):
    job = tasks.note.dispatch("a", twice=True)
    assert (job.state(), tasks.done) == ("pending", [])
    (run,) = app.drain()
    assert (job.state(), tasks.done) == ("completed", ["a"])
    assert (run.job, run.task, run.category, run.attempt) == (job, f"{N}:note", "mail", 1)
    assert (run.state, run.cause, run.result) == ("completed", None, ["a", "a"])
    assert run.started == run.ended == START
    assert app.drain() == []


def test_jobs_run_in_the_order_of_their_dispatch_and_by_priority_within_a_category(app):
    for what, category, priority in [
        ("a", "mail", 0),
        ("b", "reports", 0),
        ("c", "mail", 5),
        ("d", "mail", 0),
    ]:
        dispatch(tasks.note, category, args=(what,), priority=priority)
    app.drain()
    # c goes before a; then the heads of the two queues in the order in which they came.
    assert tasks.done == ["b", "c", "a", "d"]


def test_current_job_knows_the_job(app):
    job = dispatch(tasks.about_me, timeout=30, name="label")
    app.drain()
    assert job.result() == [job.id, f"{N}:about_me", "mail", 1, "2026-03-02T09:00:30+00:00", "label"]
    with pytest.raises(jobsched.context.NotInJob):
        current_job()


def test_what_a_job_prints_is_printed_and_kept(app, capsys):
    job = tasks.about_me.dispatch()
    app.drain()
    assert capsys.readouterr().out == "printed\n"
    stored = app.dispatcher.look(jobsched.job_id.parse_id(job.id))
    assert stored.attempts[0].log == "printed\nlogged\n"


def test_what_a_job_prints_is_not_kept_with_the_one_that_waits_for_it(app, capsys):
    job = tasks.print_around.dispatch()
    app.drain()
    assert capsys.readouterr().out == "before\nprinted\nafter\n"
    stored = app.dispatcher.look(jobsched.job_id.parse_id(job.id))
    assert stored.attempts[0].log == "before\nafter\n"


def test_jobs_dispatched_in_a_job_run_too_and_know_their_parent(app):
    parent = tasks.spread.dispatch()
    app.drain()
    assert tasks.done == ["spread", "one", "two"]
    assert [one.by for one in app.dispatched()] == [None, parent.id, parent.id]


def test_what_a_job_dispatches_with_its_completion_comes_with_that(app):
    tasks.spread.dispatch(atomic=True)
    failed = tasks.spread_and_fail.dispatch()
    app.drain()
    assert failed.state() == "failed"
    assert sorted(tasks.done) == ["one", "spread", "two"]
    app.assert_not_dispatched(tasks.note, args=("never",))


def test_an_async_job_runs_and_dispatches_from_its_loop(app):
    job = tasks.in_a_loop.dispatch("a")
    app.drain()
    assert tasks.done == ["a"]
    assert job.result() == app.dispatched(tasks.note)[0].id


def test_async_jobs_run_inside_a_loop_too(app):
    async def test():
        job = tasks.in_a_loop_waiting.dispatch("a")
        app.drain()
        return job.result()

    assert asyncio.run(test()) == app.dispatched(tasks.note)[0].id


def test_the_result_runs_what_is_due(app):
    first, second = tasks.note.dispatch("a"), tasks.note.dispatch("b")
    assert first.result() == "a"
    assert (tasks.done, second.state()) == (["a"], "pending")


def test_the_result_lets_time_pass_up_to_its_timeout(app):
    job = tasks.end_as.dispatch("second try")
    assert job.result(timeout=10) == 2
    assert (app.clock.now - START).total_seconds() == 1
    late = dispatch(tasks.note, delay=60, args=("late",))
    with pytest.raises(ResultTimeout, match="still scheduled after 10 s"):
        late.result(timeout=10)
    assert (app.clock.now - START).total_seconds() == 11


def test_the_result_says_why_it_would_wait_for_ever(app):
    late = dispatch(tasks.note, delay=60, args=("late",))
    with pytest.raises(WouldWait, match=r"it is scheduled, it is due at 2026-03-02T09:01:00\+00:00"):
        late.result()
    held = dispatch(tasks.note, "reports", args=("held",))
    app.dispatcher.pause("reports")
    with pytest.raises(WouldWait, match="category 'reports' is paused"):
        held.result()
    assert app.clock.now == START


def test_the_result_of_what_did_not_complete(app):
    failed, cancelled = tasks.end_as.dispatch("rule"), tasks.note.dispatch("x")
    assert cancelled.cancel()
    with pytest.raises(JobFailed, match="KeyError: 'ruled out'") as caught:
        failed.result()
    frames = [line for line in caught.value.traceback.splitlines() if "File" in line]
    assert len(frames) == 1, "only the user's own frames"
    assert "local_tasks.py" in frames[0]
    with pytest.raises(JobCancelled):
        cancelled.result()


def test_a_job_may_wait_for_another_one(app):
    job = tasks.wait_for_note.dispatch()
    assert job.result() == "waited for"
    assert [run.task for run in app.runs] == [f"{N}:note", f"{N}:wait_for_note"]
    delayed = tasks.wait_for_note.dispatch(delay=5, timeout=9)
    assert delayed.result() == "waited for"
    assert (app.clock.now - START).total_seconds() == 5


@pytest.mark.parametrize(
    ("task", "depth", "why"),
    [
        (tasks.wait_deep, 3, "all 3 workers run jobs that wait for others"),
        (tasks.wait_in_narrow, 1, "category 'narrow' has 1 workers at most"),
        (tasks.wait_for_my_kind, 1, "at a limit of how many may run at once"),
    ],
)
def test_jobs_that_wait_for_each_other_fail_instead_of_hanging(app, task, depth, why):
    assert task.dispatch(0).result() == "deep"
    with pytest.raises(JobFailed, match=f"WouldWait.*{why}"):
        task.dispatch(depth).result()
    if depth > 1:
        assert task.dispatch(depth - 1).result() == "deep"


def test_a_job_that_keeps_dispatching_is_named(app):
    tasks.again.dispatch()
    with pytest.raises(
        DispatchesForever, match=rf"50 steps: task '{N}:again' ran .* '{N}:again' keeps dispatch"
    ):
        app.drain(limit=50)


def test_unique_jobs_and_limits_are_kept_to(app):
    first, second = tasks.only_one.dispatch("a"), tasks.only_one.dispatch("a")
    assert first == second
    app.assert_dispatched(tasks.only_one, times=1)
    app.drain()
    assert tasks.done == ["a"]
    assert tasks.only_one.dispatch("a") != first


def test_what_the_node_refuses_is_refused(tmp_path):
    with LocalApp(categories={"mail": {"max_pending": 1}}) as app:
        with pytest.raises(UnknownTask, match="did you mean"):
            app.dispatcher.dispatch(f"{N}:notes", "mail")
        with pytest.raises(UnknownCategory):
            app.dispatcher.dispatch(tasks.note, "male", args=("a",))
        app.dispatcher.dispatch(tasks.note, args=("a",))
        with pytest.raises(QueueFull):
            app.dispatcher.dispatch(tasks.note, args=("b",))
        app.assert_dispatched(tasks.note, times=1)


def test_a_job_of_an_unknown_task_is_parked(app):
    (job,) = app.dispatcher.dispatch_many([app.dispatcher.prepare("no:where", "mail")], allow_unknown=True)
    (run,) = app.drain()
    assert (run.state, job.state()) == ("parked", "parked")
    assert "unknown task 'no:where'" in run.cause


def test_a_job_whose_arguments_do_not_fit_any_more_is_parked(app):
    fits = app.dispatcher.prepare(tasks.note, args=("a",))
    packed = app.dispatcher.prepare(tasks.wait_for, args=("a", "b", "c"))
    (job,) = app.dispatcher.dispatch_many([msgspec.structs.replace(fits, args=packed.args)])
    (run,) = app.drain()
    assert (run.state, job.state()) == ("parked", "parked")
    assert "too many positional arguments" in run.cause


def test_a_running_job_that_is_cancelled_ends_there(app):
    job = tasks.cancel_me.dispatch()
    (run,) = app.drain()
    assert (job.state(), tasks.done) == ("cancelled", [])
    assert run.cause == "cancelled: by an exception raised in it"


def test_a_running_job_that_asks_is_given_time_to_end(app):
    job = tasks.cancel_me.dispatch(asks=True)
    (run,) = app.drain()
    assert (job.state(), tasks.done) == ("cancelled", ["told"])
    assert run.cause == "cancelled: it stopped by itself"


def test_a_running_job_that_goes_on_when_cancelled_is_ended_after_two_seconds(app, monkeypatch):
    monkeypatch.setattr(tasks, "go_on", lambda: app.clock.advance(1.5))
    assert tasks.cancel_me.dispatch(asks=True).state() == "pending"
    app.drain()
    assert tasks.done == ["told"]
    monkeypatch.setattr(tasks, "go_on", lambda: app.clock.advance(2))
    tasks.cancel_me.dispatch(asks=True)
    (run,) = app.drain()
    assert tasks.done == ["told"]
    assert (run.state, run.cause) == ("cancelled", "cancelled: by an exception raised in it")


def test_a_job_that_waits_for_the_one_that_cancels_it_ends_after_that(app):
    job = tasks.wait_for_my_end.dispatch()
    app.drain()
    assert (job.state(), tasks.done) == ("cancelled", ["cancelled it"])


def test_an_async_job_that_is_cancelled_ends_at_its_next_await(app):
    job = tasks.cancel_me_in_a_loop.dispatch()
    app.drain()
    assert (job.state(), tasks.done) == ("cancelled", ["before"])


def test_paused_categories_wait_and_go_on_by_themselves(app):
    app.dispatcher.pause("mail", 60)
    tasks.note.dispatch("a")
    assert app.drain() == []
    assert len(app.run_due("2m")) == 1
    assert app.runs[0].started.isoformat() == "2026-03-02T09:01:00+00:00"


def test_dispatches_may_come_from_threads(app):
    threads = [threading.Thread(target=tasks.note.dispatch, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(app.drain()) == 8
    assert sorted(tasks.done) == list(range(8))


def test_reset_forgets_everything(app):
    job = tasks.note.dispatch("a")
    app.drain()
    tasks.note.dispatch("b")
    app.dispatcher.schedules.add("s", tasks.note, "0 * * * *", args=("c",))
    app.faults(plan={"worker_before_run": range(1, 99)})
    app.clock.advance("3d")
    app.reset()
    assert (app.runs, app.dispatched(), app.dispatcher.schedules.list()) == ([], [], [])
    assert app.clock.now == START
    with pytest.raises(JobNotFound):
        job.state()
    assert tasks.note.dispatch("d").result() == "d"


def test_the_module_level_functions_go_back_to_where_they_went(app):
    with LocalApp(categories=["mail"]) as other:
        with other.installed():
            job = tasks.note.dispatch("a")
            assert jobsched.default_dispatcher() is other.dispatcher
        assert jobsched.default_dispatcher() is app.dispatcher
        assert other.dispatched()[0].job == job
    assert app.dispatched() == []


@dataclass(frozen=True)
class Minutely(Trigger):
    """A trigger of a program's own: its times are worked out by a job, a hundred at a time."""

    def next_after(self, now):
        return now.replace(second=0, microsecond=0) + timedelta(minutes=1)


def test_the_functions_of_the_package_use_the_app_in_its_jobs_in_any_case():
    with LocalApp(categories=CATEGORIES, start=START) as app:
        app.dispatcher.dispatch(tasks.spread)
        assert len(app.drain()) == 3
        app.dispatcher.schedules.add("own", tasks.note, Minutely(), args=("own",))
        app.run_due("4h")
        app.assert_dispatched(tasks.note, times=240, args=("own",))
        assert {run.state for run in app.runs} == {"completed"}


def test_an_app_is_built_from_a_file(tmp_path, monkeypatch):
    (tmp_path / "shop_of_the_kit.py").write_text(
        "from jobsched import task\n@task(category='mail')\ndef greet(name):\n    return f'Hello, {name}!'\n"
    )
    path = tmp_path / "categories.toml"
    path.write_text(
        "workers = 1\ntasks = ['shop_of_the_kit']\n[categories.mail]\n[schedules.daily]\ncategory = 'mail'\n"
        "task = 'shop_of_the_kit:greet'\ncron = '30 2 * * *'\nargs = ['Ada']\n"
    )
    with LocalApp(path, start=START) as app:
        assert app.dispatcher.dispatch("shop_of_the_kit:greet", args=("Ada",)).result() == "Hello, Ada!"
        app.assert_scheduled("daily", next_at=START.replace(day=3, hour=2, minute=30))
    monkeypatch.chdir(tmp_path)
    with LocalApp() as app:
        assert app.config.path == path
    path.write_text("tasks = ['not_there_at_all']\n[categories.mail]\n")
    with pytest.raises(TasksNotLoaded, match="not_there_at_all"):
        LocalApp(path)


def test_wrong_settings_are_refused_with_what_is_wrong():
    with pytest.raises(ConfigError, match="did you mean 'max_retries'"):
        LocalApp(categories={"mail": {"max_retry": 1}})
    with pytest.raises(InvalidOption, match="a config or categories"):
        LocalApp("categories.toml", categories=["mail"])
    with pytest.raises(InvalidOption, match="go with categories"):
        LocalApp(workers=3)
    with pytest.raises(InvalidOption, match="store must be 'memory' or 'lmdb', got 'redis'"):
        LocalApp(categories=["mail"], store="redis")


def test_the_dispatcher_is_a_real_one(app):
    assert type(app.dispatcher) is Dispatcher
    with app.dispatcher.batch() as batch:
        batch.dispatch(tasks.note, args=("a",))
        batch.schedule_once("later", tasks.note, START.replace(hour=10), args=("b",))
    app.run_due("1h")
    assert tasks.done == ["a", "b"]


def test_what_ends_the_test_is_no_failure_of_the_job(app, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    job = tasks.about_me.dispatch()
    monkeypatch.setattr("builtins.print", interrupted)
    with pytest.raises(KeyboardInterrupt):
        app.drain()
    monkeypatch.undo()
    assert job.state() == "pending"
    app.drain()
    assert job.result()[3] == 1  # the attempt was given back


def test_categories_as_names_or_with_settings():
    with LocalApp(categories=CATEGORIES) as app:
        assert list(app.config.categories) == list(CATEGORIES)
        assert app.config.categories["narrow"].max_workers == 1
