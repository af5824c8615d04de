"""Retry, delete, cancel and prune, as a shell sees them."""

import pytest

UNKNOWN = "01936c4e-7f4b-7a3c-9f8e-2b1c5d3e4f60"


def totals(project):
    found = project("stats", "--json").json["total"]
    return {state: count for state, count in found.items() if count and state != "total"}


def fill(project, count, *words):
    lines = '{"task": "tasks:homeless", "category": "mail"}\n' * count
    project("dispatch", "--from", "-", *words, stdin=lines)


@pytest.fixture
def three(project):
    """The ids of three jobs: one of mail, one of mail that is not due, one of reports."""
    return [
        project.dispatch("tasks:send", "--arg", '"a"'),
        project.dispatch("tasks:send", "--arg", '"b"', "--delay", "2h"),
        project.dispatch("tasks:fail", "--arg", '"c"'),
    ]


@pytest.mark.parametrize("verb", ["retry", "delete", "cancel"])
def test_a_verb_wants_ids_or_conditions_and_never_both(project, three, verb):
    assert "which jobs?" in project(verb, code=2).err
    assert "is no condition" in project(verb, "--where", "", code=2).err
    assert "not both" in project(verb, three[0], "--where", "state=failed", code=2).err
    assert totals(project) == {"pending": 2, "scheduled": 1}


@pytest.mark.parametrize("verb", ["retry", "delete", "cancel"])
def test_a_dry_run_changes_nothing_and_says_what_would_be_done(project, three, verb):
    state = "scheduled"
    plan = project(verb, "--where", f"state={state}", "--dry-run")
    assert plan.out.splitlines() == [f"would {verb} 1 job:", f"{three[1]}  scheduled  tasks:send"]
    named = project(verb, three[1], "--dry-run")
    assert named.out == f"{three[1]}  scheduled  would {verb}\n"
    found = project(verb, "--where", f"state={state}", "--dry-run", "--json").json
    assert (found["matched"], found["changed"], found["dry_run"]) == (1, 0, True)
    assert [job["id"] for job in found["jobs"]] == [three[1]]
    assert totals(project) == {"pending": 2, "scheduled": 1}


def test_named_jobs_are_retried(project, three):
    project("cancel", *three)
    assert project("retry", three[0], three[2][-8:]).out == f"{three[0]}  pending\n{three[2]}  pending\n"
    assert totals(project) == {"pending": 2, "cancelled": 1}


def test_retrying_what_cannot_be_fails(project, three):
    ran = project("retry", UNKNOWN, three[1], "--json", code=1)
    assert ran.json == [{"id": UNKNOWN, "state": None}, {"id": three[1], "state": "pending"}]


def test_conditions_without_a_state_leave_delays_alone(project, three):
    assert project("retry", "--where", "category=mail").out == "retried 0 jobs\n"
    assert project("retry", "--where", "category=mail, state!=failed").out == "retried 1 job\n"


def test_a_job_that_is_deleted_is_gone(project, three):
    assert project("delete", three[0], "--json").json == [{"id": three[0], "state": "deleted"}]
    assert project("delete", three[0], code=1).out == f"{three[0]}  not found\n"
    assert "no job" in project("show", three[0], code=2).err
    assert totals(project) == {"pending": 1, "scheduled": 1}


def test_conditions_delete_what_they_mean_and_nothing_else(project, three):
    ran = project("delete", "--where", "category=mail", "--where", "state=pending", "--json")
    assert ran.json == {"matched": 1, "changed": 1, "dry_run": False}
    assert [job["id"] for job in project("jobs", "--json").json] == [three[2], three[1]]


def test_conditions_that_nothing_meets_change_nothing(project, three):
    assert project("retry", "--where", "state=failed").out == "retried 0 jobs\n"
    assert project("delete", "--where", "state=in_progress").out == "deleted 0 jobs\n"


def test_nothing_is_made_where_nothing_is(project):
    assert project("cancel", "--where", "state=pending", "--json").json["matched"] == 0
    assert project("prune", "--json").json["deleted"] == 0
    assert not (project.folder / ".jobsched").exists()


def test_more_jobs_than_one_request_holds_are_changed(project, three):
    fill(project, 4500)
    project("cancel", "--where", "task=tasks:homeless")
    assert totals(project) == {"pending": 2, "scheduled": 1, "cancelled": 4500}
    assert project("retry", "--where", "state=cancelled").out == "retried 4,500 jobs\n"
    assert totals(project) == {"pending": 4502, "scheduled": 1}


def test_at_a_terminal_what_cannot_be_undone_is_asked(project, three):
    shown = project.at_a_terminal("delete", "--where", "state=scheduled", typed="n\n")
    assert "delete 1 job? [y/N]" in shown
    assert totals(project) == {"pending": 2, "scheduled": 1}
    assert "deleted 1 job" in project.at_a_terminal("delete", "--where", "state=scheduled", typed="y\n")
    assert "[y/N]" not in project.at_a_terminal("cancel", "--where", "state=pending", "--yes")
    assert totals(project) == {"cancelled": 2}


def test_a_timeout_of_cancel_is_for_waiting(project, three):
    assert "--wait" in project("cancel", three[0], "--timeout", "1s", code=2).err


def test_prune_keeps_what_has_just_ended_but_for_an_age_that_says_otherwise(project, three):
    project("cancel", *three)
    assert project("prune").out == project("prune", "--keep", "0").out == "deleted 0 jobs\n"
    assert project("prune", "--older-than", "0s", "--dry-run").out == "would delete 3 jobs (3 cancelled)\n"
    assert project("prune", "--older-than", "0s", "--state", "failed").out == "deleted 0 jobs\n"
    assert project("prune", "--older-than", "0s", "--json").json == {
        "deleted": 3,
        "matched": 3,
        "dry_run": False,
        "states": {"completed": 0, "failed": 0, "cancelled": 3},
    }
    assert totals(project) == {}


def test_prune_keeps_the_newest(project):
    fill(project, 700)
    project("cancel", "--where", "state=pending")
    newest = [job["id"] for job in project("jobs", "--state", "cancelled", "--limit", "5", "--json").json]
    assert project("prune", "--older-than", "0s", "--keep", "5").out == "deleted 695 jobs (695 cancelled)\n"
    assert [job["id"] for job in project("jobs", "--state", "cancelled", "--json").json] == newest


def test_prune_is_for_ended_jobs_alone(project, three):
    assert "not parked ones" in project("prune", "--state", "parked", code=2).err
    project("prune", "--older-than", "0s")
    assert totals(project) == {"pending": 2, "scheduled": 1}


def test_purge_deletes_what_waits_in_a_category(project, three):
    assert "would delete 2 jobs" in project("category", "purge", "mail", "--dry-run").out
    assert project("category", "purge", "mail", "--yes").out == "deleted 2 jobs\n"
    assert totals(project) == {"pending": 1}
    assert "did you mean 'mail'?" in project("category", "purge", "mial", code=2).err
