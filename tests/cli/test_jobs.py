import re

import pytest

KEYS = {
    "id", "task", "category", "state", "attempt", "priority", "name", "args", "kwargs", "result", "error",
    "traceback", "dispatched_at", "due_at", "started_at", "ended_at", "crashes", "interruptions",
}  # fmt: skip


@pytest.fixture
def three(project):
    """The ids of three jobs: one of mail, one of mail that is not due, one of reports."""
    return [
        project.dispatch("tasks:send", "--arg", '"a"'),
        project.dispatch("tasks:send", "--arg", '"b"', "--delay", "2h"),
        project.dispatch("tasks:fail", "--arg", '"c"', "--name", "third"),
    ]


def test_a_store_that_does_not_exist_holds_no_jobs_and_is_not_made(project):
    assert project("jobs", "--json").json == []
    assert project("jobs").out == "no jobs\n"
    assert project("stats", "--json").json["total"]["total"] == 0
    assert "no job '123456' in the store" in project("show", "123456", code=2).err
    assert not (project.folder / ".jobsched").exists()


def test_jobs_lists_full_ids(project, three):
    rows = project("jobs").out.splitlines()
    assert rows[0].split() == ["id", "task", "category", "state", "try", "age/due"]
    assert [row.split()[0] for row in rows[1:]] == three[::-1]
    assert rows[2].split()[3:] == ["scheduled", "0", "in", "1h"]


def test_jobs_are_filtered(project, three):
    def ids(*words):
        return [job["id"] for job in project("jobs", "--json", *words).json]

    assert ids("--state", "scheduled") == [three[1]]
    assert ids("--category", "reports") == [three[2]]
    assert ids("--state", "pending", "--category", "mail") == [three[0]]
    assert ids("--state", "in-progress") == []
    assert len(ids("--limit", "2")) == 2


def test_more_jobs_than_a_page_are_listed(project):
    lines = "".join('{"task": "tasks:homeless", "category": "mail"}\n' for _ in range(450))
    project("dispatch", "--from", "-", stdin=lines)
    for words in ([], ["--state", "pending"]):
        listed = [job["id"] for job in project("jobs", "--limit", "420", "--json", *words).json]
        assert len(listed) == len(set(listed)) == 420


def test_unknown_filters_get_the_nearest_name(project):
    assert "did you mean 'pending'?" in project("jobs", "--state", "pendng", code=2).err
    assert "did you mean 'mail'?" in project("jobs", "--category", "mial", code=2).err


def test_show_takes_an_id_its_beginning_or_its_end(project, three):
    for text in (three[2], three[2].upper(), three[2][-6:], three[2][:28]):
        assert project("show", text, "--json").json["id"] == three[2]


def test_show_says_everything_as_json(project, three):
    job = project("show", three[2], "--json").json
    assert set(job) >= KEYS
    assert (job["task"], job["name"], job["args"], job["kwargs"]) == ("tasks:fail", "third", ["c"], {})
    assert job["started_at"] is job["ended_at"] is job["result"] is job["error"] is job["traceback"] is None
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00", job["dispatched_at"])


def test_show_says_everything_to_people(project, three):
    out = project("show", three[1]).out
    assert re.search(r"^arguments +'b'$", out, re.MULTILINE)
    assert re.search(r"^due .*\(in 1h\)$", out, re.MULTILINE)


@pytest.mark.parametrize(
    ("text", "message"),
    [("01", "6 or more"), ("ghijkl", "6 or more"), ("ffffff", "no job 'ffffff' in the store")],
)
def test_what_is_no_id_is_refused(project, three, text, message):
    assert message in project("show", text, code=2).err
    assert message in project("cancel", three[0], text, code=2).err
    assert project("show", three[0], "--json").json["state"] == "pending"


def test_a_beginning_that_two_jobs_share_is_refused(project, three):
    assert "more than one job" in project("show", three[0][:6], code=2).err


def test_cancel_prints_the_state_of_each(project, three):
    ran = project("cancel", three[0], three[1][-8:], "--json")
    assert ran.json == [{"id": job, "state": "cancelled"} for job in three[:2]]
    assert project("cancel", three[2]).out == f"{three[2]}  cancelled\n"
    assert project("stats", "--json").json["total"]["cancelled"] == 3


def test_cancelling_what_is_not_there_fails(project, three):
    unknown = "01936c4e-7f4b-7a3c-9f8e-2b1c5d3e4f60"
    ran = project("cancel", unknown, three[0], code=1)
    assert ran.out == f"{unknown}  not found\n{three[0]}  cancelled\n"


def test_a_table_fits_a_terminal_and_keeps_the_ids_whole(project, three):
    project("dispatch", "some.package.tasks:that_has_a_long_name", "--category", "reports")
    shown = project.at_a_terminal("jobs")
    lines = re.sub(r"\x1b\[[0-9;]*m", "", shown).splitlines()
    assert all(len(line) <= 80 for line in lines)
    assert [line.split()[0] for line in lines[2:5]] == three[::-1]
    assert lines[1].split()[2:5] == ["reports", "pending", "0"]


def test_what_a_job_carries_cannot_steer_the_terminal(project):
    job = project.dispatch("tasks:send", "--arg", '"a\\u001b[31m\\u009b2J\\u202e"', "--name", "\x1b[2Jna\nme")
    for words in (["show", job], ["show", job, "--json"]):
        shown = project.at_a_terminal(*words)
        assert not set(shown) & {"\x1b", "\x9b", "\u202e"}
    assert project("show", job, "--json").json["args"] == ["a\x1b[31m\x9b2J\u202e"]


def test_a_memory_store_cannot_be_read_from_here(project):
    file = project.folder / "categories.toml"
    file.write_text(file.read_text().replace("lmdb:.jobsched", "memory:"))
    for words in (["jobs"], ["stats"], ["category", "list"], ["balance", "log"], ["show", "123456"]):
        assert "memory:" in project(*words, code=2).err
    assert "no node runs" in project("dispatch", "tasks:send", "--arg", '"a"', code=1).err
