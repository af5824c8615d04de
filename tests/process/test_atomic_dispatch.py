"""What a job dispatches with its own completion, and what becomes of that if it does not complete."""

import pytest
from nodes import eventually, serving

from jobsched import InvalidOption, JobFailed
from jobsched.codec import decode_arguments, decode_record


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    categories = {"mail": {}, "narrow": {"max_pending": 10}}
    with serving(
        tmp_path_factory.mktemp("atomic"), "carrying_tasks", categories=categories, workers=2
    ) as served:
        yield served


def everything(project):
    """Return all jobs of the store."""
    return [project.stored(job_id) for job_id in project.ids()]


def stepped(project, label):
    """Return how many jobs were dispatched with a label."""
    records = [decode_record(stored.record) for stored in everything(project)]
    return sum(decode_arguments(record)[0] == [label] for record in records if record.task.endswith(":step"))


def is_scheduled(jobs, label):
    return label in [schedule.name for schedule in jobs.schedules.list()]


def test_all_of_it_is_there_when_the_job_has_completed(served):
    project, jobs = served
    assert jobs.dispatch("carrying_tasks:carry", "mail", args=("all",)).result(20) == 3
    assert stepped(project, "all") == 3
    assert is_scheduled(jobs, "all")


def test_it_is_not_there_before(served):
    _, jobs = served
    before = len(jobs.schedules.list())
    assert jobs.dispatch("carrying_tasks:carry", "mail", args=("before", "look")).result(20) == before


@pytest.mark.parametrize("ending", ["raise", "die"])
def test_a_job_that_fails_has_dispatched_nothing(served, ending):
    project, jobs = served
    job = jobs.dispatch("carrying_tasks:carry", "mail", args=(ending, ending))
    with pytest.raises(JobFailed):
        job.result(30)
    assert stepped(project, ending) == 0
    assert not is_scheduled(jobs, ending)


def test_a_job_that_completes_at_the_second_try_has_dispatched_once(served):
    project, jobs = served
    jobs.dispatch("carrying_tasks:carry_at_the_second_try", "mail", args=("second",)).result(20)
    assert stepped(project, "second") == 3


@pytest.mark.parametrize(
    ("task", "why"),
    [
        ("carry_unknown", "UnknownTask: unknown task 'nowhere:gone'"),
        ("carry_too_much", "a job dispatches up to 2 MiB with its completion"),
        ("carry_over_the_limit", "what it dispatched with its completion was refused: category 'narrow' has"),
    ],
)
def test_a_job_fails_whose_dispatches_are_refused(served, task, why):
    project, jobs = served
    count = len(everything(project))
    job = jobs.dispatch(f"carrying_tasks:{task}", "mail")
    with pytest.raises(JobFailed, match=why):
        job.result(20)
    assert len(everything(project)) == count + 1


def test_a_unique_key_holds_among_what_a_job_dispatches(served):
    project, jobs = served
    jobs.dispatch("carrying_tasks:carry_twice_the_same_key", "mail", args=("one",)).result(20)
    assert stepped(project, "one") == 1


def test_what_was_dispatched_runs(served):
    project, jobs = served
    jobs.dispatch("carrying_tasks:carry", "mail", args=("runs",)).result(20)

    def all_ran():
        found = [stored for stored in everything(project) if stored.result == b"\xa4runs"]
        return len(found) == 3

    eventually(all_ran)


def test_atomic_is_refused_where_no_job_runs(served):
    _, jobs = served
    with pytest.raises(InvalidOption, match="atomic is for a job that runs"):
        jobs.dispatch("carrying_tasks:step", "mail", args=("x",), atomic=True)
