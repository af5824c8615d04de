from datetime import UTC, datetime
from uuid import UUID

import pytest

from jobsched.job_id import format_id, new_id


def only_job(project):
    """The one job in the store, with everything that is known of it."""
    (listed,) = project("jobs", "--json").json
    return project("show", listed["id"], "--json").json


def test_a_job_is_on_disk_when_its_id_is_printed(project):
    ran = project("dispatch", "tasks:send", "--payload", '{"to": "a@b.c"}')
    job = only_job(project)
    assert ran.out == f"{UUID(job['id'])}\n"
    assert (job["task"], job["category"], job["state"]) == ("tasks:send", "mail", "pending")
    assert (job["args"], job["kwargs"]) == ([], {"to": "a@b.c"})


def test_json_output_is_one_object_whatever_the_modules_print(project):
    ran = project("dispatch", "tasks:send", "--arg", '"a@b.c"', "--json")
    assert ran.json == {"id": only_job(project)["id"], "task": "tasks:send", "category": "mail"}
    assert "tasks imported" in ran.err


def test_positional_arguments_come_one_by_one_or_as_an_array(project):
    one = project.dispatch("tasks:send", "--arg", '"a@b.c"', "--arg", '"hi"')
    two = project.dispatch("tasks:send", "--payload", '["a@b.c", "hi"]')
    for job in (one, two):
        assert project("show", job, "--json").json["args"] == ["a@b.c", "hi"]


def test_all_options_reach_the_job(project):
    job_id = format_id(new_id())
    project(
        "dispatch", "tasks:send", "--arg", '"a"', "--category", "reports", "--priority", "3",
        "--max-retries", "7", "--name", "first", "--id", job_id, "--delay", "1h",
    )  # fmt: skip
    job = only_job(project)
    assert (job["id"], job["category"], job["priority"], job["name"]) == (job_id, "reports", 3, "first")
    assert (job["max_retries"], job["state"]) == (7, "scheduled")
    wait = datetime.fromisoformat(job["due_at"]) - datetime.fromisoformat(job["dispatched_at"])
    assert wait.total_seconds() == 3600


def test_the_same_id_again_is_no_second_job(project):
    words = ["tasks:send", "--arg", '"a"', "--id", format_id(new_id())]
    assert project.dispatch(*words) == project.dispatch(*words)
    assert project("stats", "--json").json["total"]["total"] == 1


def test_a_job_can_be_due_at_a_time(project):
    project.dispatch("tasks:send", "--arg", '"a"', "--at", "2100-01-31T08:00:00+01:00")
    assert datetime.fromisoformat(only_job(project)["due_at"]) == datetime(2100, 1, 31, 7, tzinfo=UTC)


def test_with_a_category_the_module_is_not_imported(project):
    project.write("tasks.py", "1 / 0\n")
    project.dispatch("tasks:anything", "--category", "mail")
    assert only_job(project)["task"] == "tasks:anything"


def test_a_module_that_fails_to_import_shows_where_and_what_helps(project):
    project.write("tasks.py", "x = 1\nx / 0\n")
    ran = project("dispatch", "tasks:send", code=2)
    assert "ZeroDivisionError" in ran.err
    assert 'tasks.py", line 2' in ran.err
    assert "pass --category" in ran.err
    assert "importlib" not in ran.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "no task given"),
        (["tasks:sned"], "unknown task 'tasks:sned', did you mean 'tasks:send'?"),
        (["task:send"], "unknown task 'task:send', did you mean 'tasks:send'?"),
        (["tasks:homeless"], "no category"),
        (
            ["tasks:send", "--arg", '"a"', "--category", "mial"],
            "unknown category 'mial', did you mean 'mail'?",
        ),
        (["tasks:send"], "missing a required argument: 'to'"),
        (["tasks:send", "--payload", '{"to": "a", "too": "a"}'], "unexpected keyword argument 'too'"),
        (["tasks:send", "--payload", "5"], "--payload: expected an object"),
        (["tasks:send", "--payload", "{"], "--payload: not JSON"),
        (["tasks:send", "--arg", "a@b.c"], "--arg: not JSON"),
        (["tasks:send", "--arg", "1", "--payload", "[1]"], "not both"),
        (["tasks:send", "--arg", '"a"', "--delay", "5"], "--delay: '5' has no unit, write '5s'"),
        (["tasks:send", "--arg", '"a"', "--delay", "1s", "--at", "2100-01-01T00:00Z"], "not both"),
        (["tasks:send", "--arg", '"a"', "--at", "tomorrow"], "--at: expected a time like"),
        (["tasks:send", "--arg", '"a"', "--at", "2100-01-01T00:00"], "has no time zone"),
        (["tasks:send", "--arg", '"a"', "--id", "7"], "id must be a UUID"),
        (["tasks:send", "--arg", '"a"', "--max-retries", "-1"], "max_retries must be"),
        (["tasks:send", "--arg", '"a"', "--priority", "high"], "--priority"),
        (["tasks:send", "--arg", "123456789012345678901234567890"], "args.to of task 'tasks:send'"),
    ],
)
def test_bad_input_is_refused_in_a_sentence(project, words, message):
    ran = project("dispatch", *words, code=2)
    (line,) = [line for line in ran.err.splitlines() if line.startswith("jobsched: ")]
    assert message in line
    assert not (project.folder / ".jobsched").exists()


def test_waiting_is_bounded_and_says_that_no_node_runs(project):
    ran = project("dispatch", "tasks:send", "--arg", '"a"', "--wait", "--timeout", "100ms", "--json", code=1)
    assert ran.json["state"] == "pending"
    assert "still pending after 0.1 s" in ran.json["error"]
    assert "jobsched run" in ran.err


def test_terms_reach_the_job(project):
    project.dispatch(
        "tasks:send", "--arg", '"a"', "--run-timeout", "5s", "--expires-in", "10m", "--unique", "k",
        "--limit-key", "shop", "--max-running", "3", "--at-most-once",
    )  # fmt: skip
    job = only_job(project)
    assert job["timeout_s"] == 5
    assert job["terms"]["at_most_once"] is True
    assert job["terms"]["unique_until"] == "end"
    assert [limit["max_running"] for limit in job["terms"]["limits"]] == [3]
    wait = datetime.fromisoformat(job["terms"]["expires_at"]) - datetime.fromisoformat(job["dispatched_at"])
    assert wait.total_seconds() == 600


def test_lines_have_the_same_terms(project):
    line = (
        '{"task": "tasks:send", "args": ["a"], "run_timeout": "5s", "expires_in": 600, "unique": "k",'
        ' "on_conflict": "keep", "limit_key": "shop", "max_running": 3, "at_most_once": true}\n'
    )
    ran = project("dispatch", "--from", "-", "--json", stdin=line + line)
    first, second = ran.json_lines
    assert second == {**first, "kept": True}
    assert f"job {first['id']} has the same unique key" in ran.err
    job = only_job(project)
    assert (job["timeout_s"], job["terms"]["at_most_once"]) == (5, True)


def test_a_taken_key_keeps_refuses_or_replaces(project):
    words = ["tasks:send", "--arg", '"a"', "--unique", "k"]
    first = project.dispatch(*words)
    kept = project("dispatch", *words)
    assert kept.out == f"{first}\n"
    assert "stands for it" in kept.err
    assert "same unique key" in project("dispatch", *words, "--on-conflict", "refuse", code=1).err
    assert project.dispatch(*words, "--on-conflict", "replace") != first
    assert project("show", first, "--json").json["state"] == "cancelled"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--on-conflict", "keep"], "--on-conflict is for --unique"),
        (["--max-running", "2"], "--max-running is for --limit-key"),
        (["--unique", "k", "--on-conflict", "fight"], "'keep', 'refuse' or 'replace'"),
        (["--limit-key", "k", "--max-running", "0"], "from 1 to"),
        (["--run-timeout", "soon"], "--run-timeout: 'soon' is not a duration"),
    ],
)
def test_terms_that_make_no_sense_are_refused(project, words, message):
    assert message in project("dispatch", "tasks:send", "--arg", '"a"', *words, code=2).err
