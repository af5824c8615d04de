import local_tasks as tasks
import pytest
from local_world import CATEGORIES, START

from jobsched import InvalidOption, StoreFull, Unavailable, dispatch
from jobsched.job_id import format_id, new_id, parse_id
from jobsched.testing import LocalApp
from jobsched.testing.faults import KINDS

SEEDS = range(12)


def told(runs):
    return [(run.attempt, run.state) for run in runs]


# Each kind where the plan says.


def test_a_worker_killed_before_the_run_has_done_nothing(app):
    faults = app.faults(plan={"worker_before_run": [1]})
    job = tasks.note.dispatch("a")
    runs = app.drain()
    assert told(runs) == [(1, "pending"), (1, "completed")]
    assert runs[0].cause == "its worker was killed by SIGKILL while it ran"
    assert (tasks.done, job.result()) == (["a"], "a")
    assert [(kind, point) for kind, point, _ in faults.log] == [("worker_before_run", 1)]
    assert app.dispatcher.look(parse_id(job.id)).status.crashes == 1


def test_a_worker_killed_after_the_run_has_done_it_all(app):
    app.faults(plan={"worker_after_run": [1]})
    job = tasks.note.dispatch("a")
    assert told(app.drain()) == [(1, "pending"), (1, "completed")]
    assert (tasks.done, job.result()) == (["a", "a"], "a")


def test_a_job_that_kills_three_workers_is_quarantined(app):
    app.faults(worker_after_run=1)
    job = tasks.note.dispatch("a")
    assert told(app.drain()) == [(1, "pending"), (1, "pending"), (1, "quarantined")]
    assert (len(tasks.done), job.state()) == (3, "quarantined")


def test_what_is_to_run_at_most_once_never_runs_twice(app):
    app.faults(worker_after_run=1)
    job = tasks.once.dispatch("a")
    assert told(app.drain()) == [(1, "failed")]
    assert (tasks.done, job.state()) == (["a"], "failed")


@pytest.mark.parametrize("kind", ["node_before_commit", "node_after_commit"])
def test_a_dispatch_whose_node_is_killed_is_repeated_and_makes_one_job(app, kind):
    faults = app.faults(plan={kind: [1]})
    job = tasks.note.dispatch("a")
    assert [struck.kind for struck in faults.log] == [kind]
    app.assert_dispatched(tasks.note, times=1)
    assert len(app.drain()) == 1
    assert job.result() == "a"


@pytest.mark.parametrize(
    ("kind", "done", "states"),
    [
        ("node_before_commit", ["a", "a"], [(1, "pending"), (1, "completed")]),
        ("node_after_commit", ["a"], [(1, "completed")]),
    ],
)
def test_a_run_whose_outcome_was_not_committed_is_repeated(app, kind, done, states):
    job = tasks.note.dispatch("a")
    app.faults(plan={kind: [2]})  # the claim is 1
    assert told(app.drain()) == states
    assert (tasks.done, job.result()) == (done, "a")


def test_a_claim_that_was_never_handed_out_is_put_back(app):
    job = tasks.note.dispatch("a")
    app.faults(plan={"node_after_commit": [1]})
    assert told(app.drain()) == [(1, "completed")]
    assert (tasks.done, job.result()) == (["a"], "a")


def test_a_job_whose_node_is_killed_under_its_dispatch_goes_no_further(app):
    job = tasks.spread.dispatch()
    app.faults(plan={"node_after_commit": [2]})  # that of the first dispatch in it
    app.drain()
    assert sorted(tasks.done) == ["one", "one", "spread", "two"]
    assert [run.state for run in app.runs if run.job == job] == ["pending", "completed"]


def test_a_node_killed_under_a_job_that_waits_takes_both_jobs_with_it(app):
    job = tasks.wait_for_note.dispatch()
    app.faults(plan={"node_before_commit": [4]})  # claim, dispatch, claim of the inner, its outcome
    app.drain()
    assert tasks.done == ["waited for"] * 3  # the first one's again, and one for the second try
    assert job.result() == "waited for"


def test_a_full_store_refuses_what_is_new_and_nothing_else(app):
    job = tasks.note.dispatch("a")
    app.faults(store_full=1)
    with pytest.raises(StoreFull, match="no room for new jobs"):
        tasks.note.dispatch("b")
    with pytest.raises(StoreFull):
        app.dispatcher.schedules.add("s", tasks.note, "0 * * * *", args=("c",))
    assert job.cancel()
    app.assert_dispatched(tasks.note, times=1)


def test_what_a_job_dispatches_with_its_completion_may_find_the_store_full(app):
    job = tasks.spread.dispatch(atomic=True)
    app.faults(plan={"store_full": [2]})  # the first is that of the other dispatch in it
    app.drain()
    assert job.state() == "failed"
    app.assert_not_dispatched(tasks.note, args=("two",))


def test_a_lost_answer_leaves_open_whether_it_happened(app):
    counts = set()
    for seed in range(8):
        app.reset()
        app.faults(seed, plan={"answer_lost": [1]})
        job_id = format_id(new_id())
        with pytest.raises(Unavailable):
            dispatch(tasks.note, args=("a",), id=job_id)
        counts.add(len(app.dispatched()))
        dispatch(tasks.note, args=("a",), id=job_id)
        app.assert_dispatched(tasks.note, times=1)
    assert counts == {0, 1}


def test_the_wall_clock_may_be_set(app):
    app.faults(plan={"clock_step": [1]})
    tasks.note.dispatch("a")
    assert app.clock.now != START
    assert abs((app.clock.now - START).total_seconds()) <= 3600
    app.drain()
    assert tasks.done == ["a"]


def test_a_node_that_is_restarted_has_what_it_had(app):
    job = tasks.note.dispatch("a")
    app.dispatcher.schedules.add("s", tasks.note, "0 * * * *", args=("b",))
    app.restart()
    app.run_due("1h")
    assert (tasks.done, job.state()) == (["a", "b"], "completed")


def test_a_node_that_is_killed_for_ever_is_said_to_be(app):
    app.faults(node_before_commit=1)
    with pytest.raises(Unavailable, match="killed 50 times"):
        tasks.note.dispatch("a")


# By seed.


def history(seed, **rates):
    """Return what happens to a day's work under faults."""
    tasks.done.clear()
    with LocalApp(categories=CATEGORIES, start=START, seed=1) as app, app.installed():
        app.dispatcher.schedules.add("s", tasks.note, "0 */4 * * *", args=("fired",))
        faults = app.faults(seed, **rates)
        accepted = []
        for n in range(20):
            task = (tasks.note, tasks.once, tasks.alone, tasks.end_as)[n % 4]
            try:
                accepted.append((n, task.dispatch("second try" if task is tasks.end_as else f"{n}")))
            except (StoreFull, Unavailable):
                continue
        app.run_due("1d")
        faults.stop()
        app.run_due("1d")
        runs = [(run.number, run.task, run.attempt, run.state, run.started) for run in app.runs]
        states = [(n, job.state()) for n, job in accepted]
        return runs, faults.log, states, list(tasks.done), [one.id for one in app.dispatched()]


RATES = dict.fromkeys(KINDS, 0.05)


def test_the_same_seed_gives_the_same_history():
    first, second, other = history(7, **RATES), history(7, **RATES), history(8, **RATES)
    assert first[:4] == second[:4]
    assert first[1] != other[1]
    assert len({struck.kind for struck in first[1]}) > 3


@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_fails_the_promises_hold(seed):
    _, log, states, done, ids = history(seed, **RATES)
    assert log
    for n, state in states:
        if n % 4 == 1:
            assert state in ("completed", "failed")
            assert done.count(f"{n}") <= 1, "at most once"
        else:
            assert state in ("completed", "quarantined")
        if state == "completed" and n % 4 != 3:
            assert f"{n}" in done, "at least once"
    assert len(ids) == len(set(ids))
    assert done.count("fired") >= 10


def test_one_kind_does_not_shift_the_points_of_another():
    def crashes(**rates):
        return [struck.point for struck in history(3, **rates)[1] if struck.kind == "worker_before_run"]

    assert crashes(worker_before_run=0.2)[:3] == crashes(worker_before_run=0.2, clock_step=0.5)[:3]


def test_faults_end(app):
    with app.faults(worker_before_run=1) as faults:
        job = tasks.note.dispatch("a")
    app.drain()
    assert (job.result(), faults.log) == ("a", [])


def test_faults_tell_their_seed(app):
    faults = app.faults(41, plan={"worker_before_run": [1]})
    assert str(faults) == "faults of seed 41: none struck"
    tasks.note.dispatch("a").result()
    assert str(faults) == "faults of seed 41: worker_before_run 1"
    assert app.faults().seed != app.faults().seed


def test_what_is_no_fault_is_refused(app):
    with pytest.raises(InvalidOption, match="unknown fault 'store_fll', did you mean 'store_full'"):
        app.faults(store_fll=0.5)
    with pytest.raises(InvalidOption, match="unknown fault 'worker'"):
        app.faults(plan={"worker": [1]})
    with pytest.raises(InvalidOption, match="rate of fault 'store_full' must be from 0 to 1, got 2"):
        app.faults(store_full=2)
