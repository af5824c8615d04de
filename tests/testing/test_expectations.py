from datetime import timedelta
from uuid import UUID

import local_tasks as tasks
import pytest
from local_world import START

from jobsched import Every, InvalidOption, dispatch

N = tasks.__name__
ID = UUID("01234567-89ab-cdef-0123-456789abcdef")


def test_what_was_dispatched_is_on_record(app):
    job = dispatch(tasks.note, "reports", 60, args=("a",), kwargs={"twice": True}, priority=7, name="label")
    tasks.fail.dispatch()
    one, other = app.dispatched()
    assert (one.number, one.job, one.id, one.task, one.category) == (1, job, job.id, f"{N}:note", "reports")
    assert (one.args, one.kwargs, one.priority, one.name) == (("a",), {"twice": True}, 7, "label")
    assert (one.due, other.due) == (START + timedelta(minutes=1), START)
    assert app.dispatched(tasks.fail) == app.dispatched(category="mail") == [other]
    assert app.dispatched(f"{N}:note", "mail") == []
    app.drain()
    assert app.dispatched() == [one, other]


def test_a_dispatch_is_found_by_task_times_arguments_and_category(app):
    tasks.note.dispatch("a")
    dispatch(tasks.note, "reports", args=(ID,), kwargs={"twice": True})
    assert [one.number for one in app.assert_dispatched(tasks.note)] == [1, 2]
    app.assert_dispatched(tasks.note, times=2)
    app.assert_dispatched(tasks.note, times=1, args=("a",))
    app.assert_dispatched(tasks.note, times=1, args=[ID], kwargs={"twice": True}, category="reports")
    app.assert_dispatched(tasks.note.options(delay=5), times=1, kwargs={})
    app.assert_not_dispatched(tasks.fail)
    app.assert_not_dispatched(tasks.note, args=("b",))
    app.assert_not_dispatched(tasks.note, args=("a",), category="reports")
    app.assert_not_dispatched(tasks.note, kwargs={"twice": False})


def test_the_message_says_what_was_dispatched_instead(app):
    with pytest.raises(AssertionError, match="at least once, got 0 times; nothing was dispatched"):
        app.assert_dispatched(tasks.note)
    tasks.note.dispatch("a", twice=True)
    with pytest.raises(AssertionError) as caught:
        app.assert_dispatched(tasks.note, times=2, args=("b",), kwargs={"twice": True}, category="mail")
    assert str(caught.value) == (
        f"expected task '{N}:note' in 'mail' with args=('b',) and kwargs={{'twice': True}} to be dispatched"
        " 2 times, got 0 times; dispatched were:\n"
        f"  1. {N}:note('a', twice=True) in 'mail', due 2026-03-02T09:00:00+00:00"
    )
    with pytest.raises(AssertionError, match="not at all, got once"):
        app.assert_not_dispatched(tasks.note)


def test_of_many_dispatches_the_message_shows_the_last(app):
    for n in range(25):
        tasks.note.dispatch(n)
    with pytest.raises(AssertionError, match=r"(?s)… and 5 before these\n  6\. .*note\(5\).*\n  25\. "):
        app.assert_dispatched(tasks.note, times=3)


def test_what_is_no_task_is_not_looked_for(app):
    with pytest.raises(InvalidOption, match="is not a task"):
        app.assert_dispatched(test_what_is_no_task_is_not_looked_for)


def test_a_job_that_has_completed_is_as_expected(app):
    job = tasks.note.dispatch("a")
    with pytest.raises(AssertionError, match=r"note\('a'\) in 'mail'.* it is pending: drain\(\) runs it"):
        app.assert_completed(job)
    app.drain()
    app.assert_completed(job)
    app.assert_completed(job.id)


def test_a_job_that_has_not_completed_says_why(app):
    failed, late = tasks.fail.dispatch("it"), dispatch(tasks.note, delay=60, args=("a",))
    held = dispatch(tasks.note, "reports", args=("a",))
    app.dispatcher.pause("reports")
    app.drain()
    with pytest.raises(AssertionError, match=r"(?s)it is scheduled: it is due at .*\nTraceback .*ValueError"):
        app.assert_completed(failed)
    with pytest.raises(AssertionError, match=r"it is scheduled: it is due at 2026-03-02T09:01:00\+00:00"):
        app.assert_completed(late)
    with pytest.raises(AssertionError, match="it is pending: category 'reports' is paused"):
        app.assert_completed(held)
    app.run_due("1h")
    with pytest.raises(AssertionError, match=r"(?s)it is failed\nTraceback .*ValueError: it went wrong"):
        app.assert_completed(failed)
    with pytest.raises(AssertionError, match="there is no such job"):
        app.assert_completed(str(ID))


def test_a_schedule_is_as_expected_or_the_message_says_how_it_is(app):
    schedules = app.dispatcher.schedules
    with pytest.raises(AssertionError, match="expected a schedule 'nightly': no schedule 'nightly'"):
        app.assert_scheduled("nightly")
    schedules.add("nightly", tasks.note, "30 2 * * *", args=("a",))
    due = START.replace(day=3, hour=2, minute=30)
    app.assert_scheduled("nightly", next_at=due, task=tasks.note)
    with pytest.raises(
        AssertionError, match=r"to be due at 2026-03-02T09:00:00.*, it is due at 2026-03-03T02:30"
    ):
        app.assert_scheduled("nightly", next_at=START)
    with pytest.raises(AssertionError, match=rf"to fire '{N}:fail', it fires '{N}:note'"):
        app.assert_scheduled("nightly", task=tasks.fail)
    with pytest.raises(AssertionError, match="no schedule 'nigthly', did you mean 'nightly'"):
        app.assert_scheduled("nigthly")
    schedules.deactivate("nightly")
    with pytest.raises(AssertionError, match="to be active, it is not"):
        app.assert_scheduled("nightly")


def test_a_schedule_that_has_ended_is_none(app):
    app.dispatcher.schedules.add("s", tasks.note, Every(timedelta(minutes=1)), args=("a",), max_runs=2)
    app.run_due("1h")
    assert len(tasks.done) == 2
    with pytest.raises(AssertionError, match="to fire again, it has ended at"):
        app.assert_scheduled("s")
