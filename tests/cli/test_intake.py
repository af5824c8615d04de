import json
import os
import subprocess

import pytest

GOOD = {"task": "tasks:send", "args": ["a@b.c"]}


def lines(*jobs):
    return "".join(f"{json.dumps(job) if isinstance(job, dict) else job}\n" for job in jobs)


def test_the_jobs_of_a_file_are_dispatched_in_its_order(project):
    project.write("jobs.jsonl", lines(*({"task": "tasks:send", "args": [str(n)]} for n in range(12))))
    assert project("dispatch", "--from", "jobs.jsonl").out == "dispatched 12 jobs\n"
    listed = project("jobs", "--state", "pending", "--json").json
    assert project("show", listed[3]["id"], "--json").json["args"] == ["3"]
    assert len(listed) == 12


def test_json_output_is_an_object_for_each_job(project):
    ran = project("dispatch", "--from", "-", "--json", stdin=lines(GOOD, {**GOOD, "category": "reports"}))
    assert [job["category"] for job in ran.json_lines] == ["mail", "reports"]
    assert {job["id"] for job in ran.json_lines} == {job["id"] for job in project("jobs", "--json").json}


def test_a_line_says_everything_that_the_options_say(project):
    line = {
        "task": "tasks:send", "payload": {"to": "a"}, "category": "reports", "delay": "1h", "priority": 2,
        "max_retries": 0, "name": "x", "id": "01936c4e-7f4b-7a3c-9f8e-2b1c5d3e4f60",
    }  # fmt: skip
    project("dispatch", "--from", "-", stdin=lines(line))
    job = project("show", line["id"], "--json").json
    assert (job["kwargs"], job["category"], job["state"]) == ({"to": "a"}, "reports", "scheduled")
    assert (job["priority"], job["max_retries"], job["name"]) == (2, 0, "x")


def test_the_command_says_what_the_lines_leave_out(project):
    ran = project(
        "dispatch",
        "tasks:send",
        "--category",
        "reports",
        "--from",
        "-",
        "--json",
        stdin=lines({"args": ["a"]}),
    )
    assert [(job["task"], job["category"]) for job in ran.json_lines] == [("tasks:send", "reports")]


def test_empty_lines_and_a_byte_order_mark_are_skipped(project):
    ran = project("dispatch", "--from", "-", stdin=f"\ufeff{lines(GOOD)}\n  \n{json.dumps(GOOD)}")
    assert ran.out == "dispatched 2 jobs\n"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "not JSON"),
        ("[1]", "expected a JSON object"),
        ({**GOOD, "catgory": "mail"}, "unknown key 'catgory', did you mean 'category'?"),
        ({**GOOD, "args": "a"}, "at `$.args`"),
        ({"args": ["a"]}, "no task"),
        ({"task": "tasks:sned"}, "did you mean 'tasks:send'?"),
        ({"task": "tasks:send"}, "missing a required argument"),
        ({**GOOD, "category": "mial"}, "did you mean 'mail'?"),
        ({**GOOD, "delay": "5"}, "delay: '5' has no unit"),
        ({**GOOD, "delay": -1}, "delay must not be negative"),
        ({**GOOD, "at": "soon"}, "at: expected a time"),
        ({**GOOD, "payload": ["b"]}, "not both"),
        ({**GOOD, "id": "x"}, "id must be a UUID"),
        ({"task": "tasks:send", "args": ["x" * 2_000_000]}, "the limit is"),
    ],
)
def test_a_bad_line_is_named_and_nothing_of_the_input_is_dispatched(project, line, message):
    ran = project("dispatch", "--from", "-", stdin=lines(GOOD, GOOD, line), code=2)
    assert "jobsched: stdin:3: " in ran.err
    assert message in ran.err
    assert not (project.folder / ".jobsched").exists()


def test_a_file_is_checked_to_its_end_before_its_first_job_is_dispatched(project):
    project.write("jobs.jsonl", lines(*[GOOD] * 10_500, "bad"))
    ran = project("dispatch", "--from", "jobs.jsonl", code=2)
    assert "jobs.jsonl:10501: not JSON" in ran.err
    assert project("stats", "--json").json["total"]["total"] == 0


def test_what_streams_in_is_dispatched_by_whole_batches(project):
    ran = project("dispatch", "--from", "-", stdin=lines(*[GOOD] * 10_500, "bad"), code=2)
    assert "10,000 jobs were dispatched before this" in ran.err
    assert "stdin:10501: not JSON" in ran.err
    assert project("stats", "--json").json["total"]["total"] == 10_000


def test_a_fifo_is_read_as_a_stream(project):
    os.mkfifo(project.folder / "fifo")
    project.write("jobs.jsonl", lines(GOOD, GOOD))
    with subprocess.Popen(["/bin/sh", "-c", "cat jobs.jsonl > fifo"], cwd=project.folder):
        assert project("dispatch", "--from", "fifo").out == "dispatched 2 jobs\n"


def test_large_jobs_are_split_into_requests_that_the_store_takes(project):
    jobs = [{"task": "tasks:send", "args": ["x" * 1_000_000]}] * 80
    assert project("dispatch", "--from", "-", stdin=lines(*jobs)).out == "dispatched 80 jobs\n"


def test_a_file_that_cannot_be_read_is_named(project):
    assert "cannot read nowhere.jsonl" in project("dispatch", "--from", "nowhere.jsonl", code=2).err
    assert "cannot read home" in project("dispatch", "--from", "home", code=2).err


def test_options_of_one_job_do_not_go_with_many(project):
    assert (
        "--delay does not go with --from" in project("dispatch", "--from", "-", "--delay", "5s", code=2).err
    )
