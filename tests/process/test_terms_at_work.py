"""Terms hold with real workers, over categories, deaths and restarts."""

import os
import signal
import time

import pytest
import termed_tasks
from nodes import eventually, is_running, most_at_once, serving

from jobsched import ConcurrencyLimit, DuplicateJob, Every, JobCancelled, JobFailed, QueueFull, Unique
from jobsched.job import State
from jobsched.node import JOBS_PUT_BACK

MODULES = ("termed_tasks", "unseen_tasks")
RATE, PER_S = 4, 0.5
CATEGORIES = {"mail": {}, "reports": {}, "shelf": {}, "short": {"max_pending": 3}, "rated": {"rate": "4/2s"}}


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("terms")
    with serving(folder, *MODULES, categories=CATEGORIES, workers=4) as served:
        served[1].pause("shelf")
        yield served


def until(jobs, category, label, unique, gate=None):
    return jobs.dispatch("tasks:until", category, args=(label, gate or f"gate-{label}"), unique=unique)


# Unique.


def test_a_unique_key_is_kept_until_the_end_of_its_job(served):
    project, jobs = served
    first = until(jobs, "mail", "kept", "key-kept")
    eventually(lambda: project.started("kept"))
    assert until(jobs, "reports", "kept", "key-kept") == first
    project.open("gate-kept")
    assert first.result(20) == "kept"
    again = until(jobs, "reports", "kept", "key-kept")
    assert again != first
    assert again.result(20) == "kept"
    assert len(project.started("kept")) == 2


def test_a_unique_key_until_the_start_is_free_once_its_job_runs(served):
    project, jobs = served
    key = Unique(key="key-start", until="start")
    waiting = until(jobs, "shelf", "start", key)
    assert until(jobs, "shelf", "start", key) == waiting
    waiting.cancel()
    first = until(jobs, "mail", "start", key)
    eventually(lambda: project.started("start"))
    second = until(jobs, "mail", "start", key)
    assert second != first
    eventually(lambda: len(project.started("start")) == 2)
    project.open("gate-start")
    assert [first.result(20), second.result(20)] == ["start", "start"]


def test_a_taken_unique_key_is_refused_where_that_is_asked_for(served):
    project, jobs = served
    first = until(jobs, "mail", "refused", "key-refused")
    with pytest.raises(DuplicateJob, match=first.id.replace("-", "")):
        until(jobs, "mail", "refused", Unique(key="key-refused", on_conflict="refuse"))
    project.open("gate-refused")
    first.result(20)
    assert len(project.started("refused")) == 1


def test_a_job_that_waits_is_replaced_by_one_with_its_unique_key_and_one_that_runs_is_kept(served):
    project, jobs = served
    key = Unique(key="key-replace", on_conflict="replace")
    old = until(jobs, "shelf", "old", key)
    new = until(jobs, "mail", "new", key)
    assert (old.state(), project.cause(old.id)) == ("cancelled", f"replaced by job {new.id.replace('-', '')}")
    eventually(lambda: project.started("new"))
    assert until(jobs, "mail", "newer", key) == new
    project.open("gate-new")
    assert new.result(20) == "new"
    assert project.started("old") == project.started("newer") == []


def test_without_a_key_the_arguments_are_unique(served):
    project, jobs = served
    first = until(jobs, "mail", "same", Unique())
    other = until(jobs, "mail", "same", Unique(), gate="gate-other")
    assert until(jobs, "mail", "same", Unique()) == first != other
    for gate in ("gate-same", "gate-other"):
        project.open(gate)
    assert [first.result(20), other.result(20)] == ["same", "same"]


# Limits of what runs at once.


def test_limits_hold_over_categories_workers_and_the_death_of_the_node(project):
    """Those of a task, known to its dispatcher or not, and those of a key; in order."""
    project.bring(*MODULES)
    categories = {"a": {"max_workers": 2}, "b": {"max_workers": 2}, "c": {"max_workers": 2}}
    project.configure(categories, workers=6, tasks=["tasks", *MODULES])
    jobs = project.dispatcher()
    kinds = {
        "known": lambda category, label: jobs.prepare(termed_tasks.pair, category, args=(label, 0.01)),
        "unseen": lambda category, label: jobs.prepare("unseen_tasks:pair", category, args=(label, 0.01)),
        "keyed": lambda category, label: jobs.prepare(
            "tasks:mark", category, args=(label, 0.01), limit=ConcurrencyLimit("db", 1)
        ),
    }
    labels = [f"{kind}-{category}-{n:02}" for n in range(12) for category in categories for kind in kinds]
    ids = [
        job.id
        for job in jobs.dispatch_many(
            kinds[label.split("-")[0]](label.split("-")[1], label) for label in labels
        )
    ]
    node = project.start()
    eventually(lambda: project.count(State.COMPLETED) > len(ids) // 3)
    node.kill()
    assert project.run_until_idle() == 0
    assert set(project.states(ids)) == {"completed"}
    for kind, most in (("known", 2), ("unseen", 2), ("keyed", 1)):
        runs = [run for run in project.runs() if run.label.startswith(kind)]
        assert most_at_once(runs) == most
        assert len(runs) <= len(labels) // len(kinds) + most
        for category in categories if most == 1 else ():
            starts = [run.label for run in runs if f"-{category}-" in run.label]
            assert list(dict.fromkeys(starts)) == [f"{kind}-{category}-{n:02}" for n in range(12)]
    assert {project.status(job_id).attempt for job_id in ids} == {1}


# Rates.


def most_within(starts_ns, seconds):
    """Return how many starts came within any stretch of so many seconds."""
    return max(sum(start <= other < start + seconds * 1e9 for other in starts_ns) for start in starts_ns)


def test_a_rate_is_kept_in_any_window_and_a_restart_lets_one_more_job_start(project):
    """Starts are noted by the jobs themselves: a tenth of a second is for what is between."""
    project.configure({"calls": {"rate": f"{RATE}/{PER_S * 1000:g}ms"}, "rare": {"rate": "9/1h"}})
    labels = [f"call-{number:02}" for number in range(20)]
    project.dispatch_marks("rare", ["rare-1", "rare-2", "rare-3"])
    ids = project.dispatch_marks("calls", labels)
    node = project.start()
    eventually(lambda: len(project.started("call-09")) == len(project.started("rare-1")) == 1)
    node.kill()
    before = {run.start for run in project.runs()}
    project.start()
    eventually(lambda: set(project.states(ids)) == {"completed"} and project.started("rare-2"))
    calls = [run.start for run in project.runs() if run.label.startswith("call")]
    for starts in (before & set(calls), set(calls) - before):
        assert most_within(starts, PER_S - 0.1) <= RATE
    assert project.started("rare-3") == []


def test_a_rate_is_not_spent_on_jobs_that_are_handed_ahead_and_taken_back(served):
    project, jobs = served
    jobs.dispatch("tasks:mark", "rated", args=("short",)).result(20)  # so the next seem to be short
    (short,) = project.started("short")
    eventually(lambda: time.monotonic() > short.start / 1e9 + 2.1)
    prepared = [jobs.prepare("tasks:until", "rated", args=("long", "gate-long"))]
    prepared += [jobs.prepare("tasks:mark", "rated", args=(f"rated-{number}",)) for number in range(3)]
    long, *others = jobs.dispatch_many(prepared)
    for job in others:
        job.result(20)
    project.open("gate-long")
    long.result(20)
    starts = [project.started(f"rated-{number}")[0].start for number in range(3)]
    assert (max(starts) - project.started("long")[0].start) / 1e9 < 1.5


# Room, time, pauses.


@pytest.mark.parametrize("way", ["through the node", "directly"])
def test_a_category_refuses_what_is_too_much_to_wait(project, served, way):
    if way == "directly":
        project.configure({"short": {"max_pending": 3}, "rated": {"rate": "4/2s"}})
        jobs = project.dispatcher()
    else:
        project, _ = served
        lenient = project.config.with_name("lenient.toml")
        lenient.write_text(project.config.read_text().replace("max_pending = 3", ""))
        jobs = project.dispatcher(lenient)  # the node's word counts
    jobs.pause("short")
    batch = [jobs.prepare("tasks:mark", "short", args=(f"{n}",), delay=1000 * n) for n in range(4)]
    with pytest.raises(QueueFull, match="category 'short' has 0 jobs waiting, max_pending is 3"):
        jobs.dispatch_many(batch)
    first, *_ = jobs.dispatch_many(batch[:3])
    with pytest.raises(QueueFull, match="has 3 jobs waiting"):
        jobs.dispatch("tasks:mark", "short", args=("late",))
    assert jobs.dispatch("tasks:mark", "short", args=("0",), id=first.id) == first  # repeated, not added
    first.cancel()
    jobs.dispatch_many(batch[3:])


def test_a_job_that_comes_too_late_to_start_is_cancelled(served):
    project, jobs = served
    late = jobs.dispatch("tasks:mark", "shelf", args=("late",), expires_in=0.05)
    in_time = jobs.dispatch("tasks:mark", "shelf", args=("in-time",), expires_in=1000)
    until_s = time.monotonic() + 0.06
    eventually(lambda: time.monotonic() > until_s)
    jobs.resume("shelf")
    with pytest.raises(JobCancelled):
        late.result(20)
    assert in_time.result(20) == "in-time"
    jobs.pause("shelf")
    assert project.cause(late.id) == "expired: it had not started in time"
    assert project.started("late") == []


def test_a_pause_may_end_by_itself(served):
    project, jobs = served
    began = time.monotonic()
    jobs.pause("reports", 0.4)
    job = jobs.dispatch("tasks:mark", "reports", args=("rested",))
    assert job.result(20) == "rested"
    assert project.started("rested")[0].start / 1e9 - began >= 0.4


# At most once.


def run_once(project, jobs, name):
    """Dispatch jobs that run at most once, and return them once they run: by the word of their task,
    known to their dispatcher or not, and by their own.
    """
    labels = [f"{name}-{kind}" for kind in ("known", "unseen", "asked")]
    known, unseen, asked = labels
    started = [
        jobs.dispatch(termed_tasks.once, "mail", args=(known, "gate-once")),
        jobs.dispatch("unseen_tasks:once", "mail", args=(unseen, "gate-once")),
        jobs.dispatch("tasks:until", "mail", args=(asked, "gate-once"), at_most_once=True),
    ]
    runs = [eventually(lambda label=label: project.started(label))[0] for label in labels]
    return started, runs


def why_all_failed(project, jobs, runs):
    """Return why jobs failed, the same for all, having run once."""
    assert [len(project.started(run.label)) for run in runs] == [1, 1, 1]
    assert not any(is_running(run.pid) for run in runs)
    stored = [project.stored(job.id) for job in jobs]
    assert {(job.status.state, job.status.attempt) for job in stored} == {(State.FAILED, 1)}
    (cause,) = {job.error.cause for job in stored}
    return cause


def test_jobs_that_run_at_most_once_have_failed_when_their_worker_dies(served):
    project, jobs = served
    once, runs = run_once(project, jobs, "worker")
    for run in runs:
        os.kill(run.pid, signal.SIGKILL)
    for job in once:
        with pytest.raises(JobFailed):
            job.result(20)
    jobs.dispatch("tasks:mark", "mail", args=("after-worker",)).result(20)
    assert why_all_failed(project, once, runs) == "its worker was killed by SIGKILL while it ran"


def test_jobs_that_run_at_most_once_have_failed_when_their_node_dies_or_a_stop_cuts_them_off(project):
    project.bring(*MODULES)
    project.configure({"mail": {}}, workers=3, tasks=["tasks", *MODULES])
    jobs = project.dispatcher()
    node = project.start()
    once, runs = run_once(project, jobs, "node")
    node.kill()
    node = project.start("--grace", "50ms")
    cut_off, late_runs = run_once(project, jobs, "stop")
    assert why_all_failed(project, once, runs).startswith("interrupted: ")
    node.terminate()
    assert node.wait() == JOBS_PUT_BACK
    assert all(node.says(f"job={job.id} failed: it outlasted the stop") for job in cut_off)
    assert project.run_until_idle() == 0
    assert why_all_failed(project, cut_off, late_runs).startswith("interrupted: ")
    assert why_all_failed(project, once, runs).startswith("interrupted: ")


def test_a_job_that_runs_at_most_once_is_not_tried_again(served):
    project, jobs = served
    for options in ({}, {"max_retries": 3}):
        label = f"once-{len(options)}"
        job = jobs.dispatch("termed_tasks:fail_once", "mail", args=(label,), **options)
        with pytest.raises(JobFailed, match="RuntimeError: once"):
            job.result(20)
        assert len(project.started(label)) == 1


@pytest.mark.parametrize(
    "own",
    [{"expires_in": 3600}, {"unique": "own"}, {"limit": ConcurrencyLimit("own")}],
    ids=lambda own: next(iter(own)),
)
def test_the_terms_of_an_unseen_task_hold_beside_those_of_the_dispatch(served, own):
    project, jobs = served
    label = f"unseen-{next(iter(own))}"
    job = jobs.dispatch("unseen_tasks:fail_once", "mail", args=(label,), max_retries=3, **own)
    with pytest.raises(JobFailed, match="RuntimeError: unseen"):
        job.result(20)
    assert len(project.started(label)) == 1


def test_the_terms_of_an_unseen_task_hold_for_what_its_schedule_fires(served):
    project, jobs = served
    in_turn = {"overlap": "queue", "max_retries": 3}
    jobs.schedules.add("unseen", "unseen_tasks:fail_once", Every(3600), "mail", args=("fired",), **in_turn)
    with pytest.raises(JobFailed, match="RuntimeError: fired"):
        jobs.schedules.run_now("unseen").result(20)
    assert len(project.started("fired")) == 1
