import contextlib
import os
import re
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

from jobsched import Dispatcher
from jobsched.clock import MICROSECONDS
from jobsched.firing import fire
from jobsched.job_id import new_id
from jobsched.store.base import Turn
from jobsched.store.lmdb import open_store
from jobsched.template import CATEGORIES_TOML, TASKS_PY

ADD = ("schedule", "add", "nightly", "tasks:send", "--arg", '"a"')
NIGHTLY = (*ADD[:4], "--cron", "30 2 * * *", "--timezone", "Europe/Berlin", "--payload", '{"to": "a"}')
IN_THEIR_ORDER = (
    *("add", "update", "list", "get", "next", "run-now", "history", "deactivate", "activate", "apply"),
    *("lint", "remove", "clear"),
)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
DECLARED = """
[schedules.a]
task = "tasks:send"
category = "mail"
every = "5m"
args = ["a"]

[schedules.b]
task = "tasks:send"
category = "mail"
cron = "0 3 * * *"
"""


def get(project, name="nightly"):
    return project("schedule", "get", name, "--json").json


@dataclass(frozen=True)
class Quarterly:
    """A trigger of a program's own."""

    minutes: int

    def next_after(self, now):
        step = timedelta(minutes=self.minutes)
        return EPOCH + ((now - EPOCH) // step + 1) * step


def names(project):
    return [row["name"] for row in project("schedule", "list", "--json").json]


def at(text):
    return datetime.fromisoformat(text)


def test_a_schedule_is_added_and_its_next_times_are_printed(project):
    lines = project(*NIGHTLY).out.splitlines()
    assert lines[0] == "added nightly: tasks:send in mail, 30 2 * * * Europe/Berlin"
    assert len(lines) == 2 + 5
    assert re.match(r"20..-..-.. 0[23]:..:00\+0[12]:00 +in ", lines[2])
    row = get(project)
    assert (row["task"], row["category"], row["kwargs"]) == ("tasks:send", "mail", {"to": "a"})
    assert row["trigger"] == {"cron": "30 2 * * *", "timezone": "Europe/Berlin", "seconds": False}
    assert (row["active"], row["runs"], row["source"]) == (True, 0, None)
    assert at(row["next_at"]) > datetime.now(UTC)


def test_every_option_of_a_schedule_arrives(project):
    made = project(
        *ADD, "--every", "5m", "--category", "reports", "--start", "2030-01-01T00:00:00Z",
        "--end", "2031-01-01T00:00:00Z", "--max-runs", "7", "--jitter", "1m", "--misfire", "run_all",
        "--most", "3", "--grace", "1h", "--overlap", "skip", "--priority", "2", "--max-retries", "4",
        "--timeout", "30s", "--expires-in", "10m", "--inactive", "--json",
    ).json  # fmt: skip
    assert made["next"] == []
    row = get(project)
    assert (made["args"], made["most"]) == (["a"], 3)
    assert (row["category"], row["trigger"]["every_s"], row["active"]) == ("reports", 300, False)
    assert (row["start"], row["end"]) == (
        "2030-01-01T00:00:00.000000+00:00",
        "2031-01-01T00:00:00.000000+00:00",
    )
    assert (row["max_runs"], row["jitter_s"], row["misfire"], row["grace_s"]) == (7, 60, "run_all", 3600)
    assert (row["overlap"], row["priority"], row["max_retries"]) == ("skip", 2, 4)
    assert (row["timeout_s"], row["expires_in_s"]) == (30, 600)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "when? give --cron, --every or --at"),
        (
            ["--cron", "@daily", "--every", "5m"],
            "give one of --cron, --every and --at, got --cron and --every",
        ),
        (["--cron", "0 0 30 2 *"], "never fires"),
        (["--cron", "@daily", "--timezone", "Europe/Berln"], "got 'Europe/Berln'"),
        (["--cron", "* * * * * *"], "expected 5 fields, got 6"),
        (["--every", "5"], "--every: '5' has no unit, write '5s' for seconds"),
        (["--every", "5m", "--timezone", "UTC"], "--timezone goes with --cron"),
        (["--every", "5m", "--seconds"], "--seconds goes with --cron"),
        (["--at", "2030-01-01T00:00:00"], "has no time zone"),
        (["--at", "2020-01-01T00:00:00Z"], "never fires"),
        (
            ["--every", "5m", "--misfire", "once"],
            "misfire must be one of run_once, run_all, skip, got 'once'",
        ),
        (["--every", "5m", "--payload", "1"], "--payload: expected an object"),
        (["--every", "5m", "--category", "mial"], "did you mean 'mail'?"),
    ],
)
def test_what_cannot_be_scheduled_is_bad_input(project, words, message):
    assert message in project(*ADD, *words, code=2).err
    assert names(project) == []


def test_an_unknown_task_is_refused_with_the_nearest_name(project):
    words = ("schedule", "add", "a", "tasks:snd", "--every", "5m")
    assert "did you mean 'tasks:send'?" in project(*words, code=2).err
    assert "pass one" in project("schedule", "add", "a", "tasks:homeless", "--every", "5m", code=2).err


def test_a_name_is_taken_once_unless_it_is_replaced(project):
    project(*ADD, "--every", "5m")
    assert "nightly" in project(*ADD, "--every", "6m", code=1).err
    assert get(project)["trigger"]["every_s"] == 300
    project(*ADD, "--every", "6m", "--replace")
    assert get(project)["trigger"]["every_s"] == 360


def test_an_update_changes_what_it_names(project):
    project(*NIGHTLY, "--end", "2040-01-01T00:00:00Z", "--max-runs", "3")
    project("schedule", "update", "nightly", "--timezone", "UTC", "--priority", "3")
    row = get(project)
    assert row["trigger"] == {"cron": "30 2 * * *", "timezone": "UTC", "seconds": False}
    assert (row["priority"], row["kwargs"], row["max_runs"]) == (3, {"to": "a"}, 3)
    ran = project(
        "schedule", "update", "nightly", "--every", "1h", "--end", "none", "--max-runs", "0", "--json"
    )
    assert (ran.json["trigger"]["every_s"], ran.json["end"], ran.json["max_runs"]) == (3600, None, None)
    assert "nothing to change" in project("schedule", "update", "nightly", code=2).err
    assert (
        "--timezone goes with --cron"
        in project("schedule", "update", "nightly", "--timezone", "UTC", code=2).err
    )


def test_an_unknown_schedule_is_named_with_the_nearest(project):
    project(*NIGHTLY)
    for verb in ("get", "remove", "activate", "deactivate", "next", "run-now", "history", "lint"):
        assert "did you mean 'nightly'?" in project("schedule", verb, "nihgtly", code=2).err
    assert "nightly" in project("schedule", "update", "nihgtly", "--priority", "1", code=2).err


def test_schedules_are_removed_in_one_commit(project):
    for name in ("a", "b", "c"):
        project("schedule", "add", name, "tasks:send", "--arg", '"a"', "--every", "5m")
    assert "no schedule 'd'" in project("schedule", "remove", "a", "d", code=2).err
    assert names(project) == ["a", "b", "c"]
    assert project("schedule", "remove", "a", "b").out == "a is removed\nb is removed\n"
    assert names(project) == ["c"]


def test_schedules_are_switched(project):
    project(*NIGHTLY)
    assert project("schedule", "deactivate", "nightly").out == "nightly is not active\n"
    row = get(project)
    assert (row["active"], row["next_at"]) == (False, None)
    assert "not active" in project("schedule", "list").out
    assert "nightly is not active: it fires at none" in project("schedule", "next", "nightly").err
    assert project("schedule", "activate", "nightly").out.startswith("nightly is active, next 20")
    assert project("schedule", "activate", "nightly", "--json").json[0]["active"]


def test_clear_asks_and_forgets_all(project):
    project(*NIGHTLY)
    shown = project.at_a_terminal("schedule", "clear", typed="n\n")
    assert "forget 1 schedule and their history? [y/N]" in shown
    assert names(project) == ["nightly"]
    assert project("schedule", "clear", "--yes", "--json").json == {"removed": 1}
    assert project("schedule", "clear").out == "removed 0 schedules\n"


def test_the_list_fits_a_terminal_of_80_columns(project):
    assert project("schedule", "list").out == "no schedules\n"
    assert not (project.folder / ".jobsched").exists()
    project(*NIGHTLY)
    project(
        "schedule",
        "add",
        "a-name-that-is-long-enough",
        "tasks:send",
        "--arg",
        '"a"',
        "--every",
        "1h30m",
        "--inactive",
    )
    rows = project("schedule", "list").out.splitlines()
    assert rows[0].split() == ["name", "trigger", "task", "next", "last", "note"]
    assert "every 1h30m" in rows[1]
    shown = project.at_a_terminal("schedule", "list")
    plain = re.sub(r"\x1b\[[0-9;]*m", "", shown).splitlines()
    assert len(plain) == 3
    assert max(map(len, plain)) <= 80
    assert plain[1].rstrip().endswith("not active")


def test_an_expression_is_looked_at_without_a_configuration(empty):
    words = (
        "schedule",
        "next",
        "30 2 * * *",
        "--timezone",
        "Europe/Berlin",
        "--from",
        "2027-03-26T12:00:00Z",
    )
    rows = empty(*words, "-n", "3", "--json").json
    assert [row["local"] for row in rows] == [
        "2027-03-27 02:30:00+01:00",
        "2027-03-28 03:00:00+02:00",
        "2027-03-29 02:30:00+02:00",
    ]
    assert [row["note"] for row in rows] == [
        None, "the clock leaves out 02:30, fires right after the jump", None,
    ]  # fmt: skip
    assert "leaves out" not in empty(*words).out
    explained = empty(*words, "--explain", "-n", "2").out.splitlines()
    assert explained[0].split() == ["due", "from", "now", "gap", "note"]
    assert "23:30:00  the clock leaves out 02:30" in explained[2]
    assert len(empty("schedule", "next", "@daily").out.splitlines()) == 11
    assert len(empty("schedule", "next", "*/5 * * * * *", "--seconds", "-n", "2", "--json").json) == 2
    assert "never fires" in empty("schedule", "next", "0 0 31 2 *", code=2).err


def test_the_next_times_of_a_schedule_keep_to_its_bounds(project):
    project(
        *ADD, "--cron", "0 0 * * *", "--start", "2030-01-05T00:00:00Z", "--end", "2030-01-07T00:00:00Z"
    )  # fmt: skip
    rows = project("schedule", "next", "nightly", "--json").json
    assert [row["local"][:10] for row in rows] == ["2030-01-05", "2030-01-06", "2030-01-07"]
    project("schedule", "update", "nightly", "--max-runs", "2")
    assert len(project("schedule", "next", "nightly", "--json").json) == 2
    later = project("schedule", "next", "nightly", "--from", "2030-01-07T00:00:00Z")
    assert later.out == "it has no time to come\n"
    assert (
        "--timezone goes with an expression"
        in project("schedule", "next", "nightly", "--timezone", "UTC", code=2).err
    )


def test_a_trigger_of_a_program_is_shown_as_far_as_it_is_known(project):
    with contextlib.closing(Dispatcher.from_config(project.folder / "categories.toml")) as dispatcher:
        dispatcher.schedules.add("own", "tasks:send", Quarterly(15), "mail", args=("a",))
    assert get(project, "own")["trigger"] == {"own": f"{__name__}:Quarterly", "fields": {"minutes": 15}}
    assert "Quarterly(minutes=15)" in project("schedule", "list").out
    assert 90 < len(project("schedule", "next", "own", "-n", "500", "--json").json) <= 100
    assert project("schedule", "lint").out == "nothing odd about 1 schedule\n"
    assert (
        "--timezone goes with --cron" in project("schedule", "update", "own", "--timezone", "UTC", code=2).err
    )


def test_a_job_is_run_by_hand_and_says_who_fired_it(project):
    project(*NIGHTLY)
    before = get(project)["next_at"]
    job = project("schedule", "run-now", "nightly").out.strip()
    shown = project("show", job, "--json").json
    assert (shown["schedule"], shown["kwargs"], shown["state"]) == ("nightly", {"to": "a"}, "pending")
    assert at(shown["schedule_due_at"]) <= datetime.now(UTC)
    assert re.search(r"^schedule +nightly, due 20\d\d-", project("show", job).out, flags=re.MULTILINE)
    [row] = project("schedule", "history", "nightly", "--json").json
    assert (row["kind"], row["job"], row["count"]) == ("by_hand", job, 1)
    assert get(project)["next_at"] == before
    other = project("show", project.dispatch("tasks:send", "--arg", '"a"'), "--json").json
    assert (other["schedule"], other["schedule_due_at"]) == (None, None)
    waited = project("schedule", "run-now", "nightly", "--wait", "--timeout", "10ms", code=1)
    assert "is on disk, and starts when a node does" in waited.err


def test_the_history_says_what_became_of_each_due_time(project):
    assert "it has not been due yet" in (project(*NIGHTLY), project("schedule", "history", "nightly"))[1].out
    store = open_store(project.folder / ".jobsched")
    stored = store.schedule("nightly")
    now = stored.state.next_at + 3 * 86_400 * MICROSECONDS + 10 * MICROSECONDS
    store.apply(Turn(now=now, firings=[fire(stored, now, new_id)]))
    store.close()
    [row] = project("schedule", "history", "nightly", "--json").json
    assert (row["kind"], row["count"], row["is_counted"]) == ("fired", 4, True)
    assert at(row["until"]) - at(row["due_at"]) >= timedelta(days=2, hours=23)
    assert row["lateness_s"] == pytest.approx(3 * 86_400 + 10, abs=3601)
    lines = project("schedule", "history", "nightly").out.splitlines()
    assert lines[0].split() == ["due", "decided", "late", "what", "job", "note"]
    assert f"fired  {row['job'][-8:]}  4 due times up to 20" in lines[1]


def test_what_is_odd_is_found_with_exit_code_1(project):
    assert project("schedule", "lint").out == "nothing odd about 0 schedules\n"
    project(*ADD, "--cron", "0 0 31 * *")
    project("schedule", "add", "fine", "tasks:send", "--arg", '"a"', "--cron", "15 3 * * *")
    [found] = project("schedule", "lint", "--json", code=1).json
    assert (found["name"], found["code"]) == ("nightly", "missing-days")
    assert "write L for the last day" in project("schedule", "lint", "nightly", code=1).out
    assert project("schedule", "lint", "fine").out == "nothing odd about 1 schedule\n"
    file = project.write("own.toml", DECLARED.replace('cron = "0 3 * * *"', 'every = "5s"'))
    [found] = project("schedule", "lint", str(file), "--json", code=1).json
    assert (found["name"], found["code"]) == ("b", "sub-minute")


def test_a_file_is_shown_then_applied(project):
    project.write("own.toml", DECLARED)
    project("schedule", "add", "b", "tasks:send", "--arg", '"a"', "--cron", "0 3 * * *")
    shown = project("schedule", "apply", "own.toml", "--diff")
    assert shown.out.splitlines()[0].startswith("+ a: added (next 20")
    assert "~ b: taken over (from a program)" in shown.out
    assert shown.out.endswith("1 added, 1 taken over; nothing was changed\n")
    assert names(project) == ["b"]
    ran = project("schedule", "apply", "own.toml", "--json").json
    assert (ran["source"], ran["applied"]) == ("own.toml", True)
    assert [(row["name"], row["kind"]) for row in ran["changes"]] == [("a", "added"), ("b", "taken_over")]
    assert get(project, "a")["source"] == "own.toml"
    assert project("schedule", "apply", "own.toml").out == "2 unchanged\n"
    project.write("own.toml", DECLARED.partition("[schedules.b]")[0].replace("5m", "10m"))
    lines = project("schedule", "apply", "own.toml").out.splitlines()
    assert lines == [
        "~ a: changed", "    trigger: every 5m -> every 10m", "- b: removed", "1 changed, 1 removed",
    ]  # fmt: skip
    project.write("own.toml", "")
    assert project("schedule", "apply", "own.toml").out == "- a: removed\n1 removed\n"


def test_the_configuration_itself_is_applied_without_a_start(project):
    file = project.folder / "categories.toml"
    file.write_text(file.read_text() + DECLARED)
    assert project("schedule", "apply", "categories.toml").out.endswith("2 added\n")
    assert "the next start of a node" in project("schedule", "remove", "a").err
    assert (
        "categories.toml, which has the last word"
        in project("schedule", "update", "b", "--priority", "1").err
    )


def test_a_bad_file_is_refused_with_every_problem(project):
    project.write("own.toml", DECLARED.replace("mail", "mial").replace("5m", "5"))
    ran = project("schedule", "apply", "own.toml", code=2)
    assert len(ran.err.splitlines()) == 3
    assert "own.toml:4: schedules.a.category: unknown category 'mial', did you mean 'mail'?" in ran.err
    assert names(project) == []


def test_the_check_finds_a_schedule_without_its_task(project):
    file = project.folder / "categories.toml"
    file.write_text(file.read_text() + DECLARED.replace("tasks:send", "tasks:sned", 1))
    ran = project.process("check", code=2)
    assert "schedules.a.task: unknown task 'tasks:sned', did you mean 'tasks:send'?" in ran.err
    file.write_text(file.read_text().replace("sned", "send"))
    assert project.process("check").out.endswith("3 tasks, 2 categories, 2 schedules\n")
    file.write_text(file.read_text().replace("0 3 * * *", "0 3 30 2 *"))
    assert "schedules.b.cron: cron '0 3 30 2 *' never fires" in project.process("check", code=2).err


def is_in_time(project, words):
    """Whether a command takes less than a second; or on a slow machine, or one that others load, less than
    six starts of a process that only imports what commands are made of. Where more than one and a half
    processes want each core, only what hangs is found: the time says more about the others.
    """
    began = time.monotonic()
    project("schedule", *words, "--json")
    ended = time.monotonic()
    is_crowded = os.getloadavg()[0] > 1.5 * (os.cpu_count() or 1)
    if ended - began < (20 if is_crowded else 1):
        return True
    subprocess.run([sys.executable, "-c", "import jobsched.cli.app"], env=project.environment, check=True)
    return ended - began < 6 * (time.monotonic() - ended)


def test_all_of_it_works_beside_a_node_and_within_a_second(project):
    with project.node():
        project(*NIGHTLY)
        project.write("own.toml", DECLARED)
        ran = project("schedule", "run-now", "nightly", "--wait", "--json").json
        assert (ran["state"], ran["result"]) == ("completed", "a: ")
        assert (
            "did you mean 'tasks:send'?"
            in project(
                "schedule", "add", "x", "tasks:sned", "--category", "mail", "--every", "5m", code=2
            ).err
        )
        for words in (
            ["list"], ["get", "nightly"], ["history", "nightly"], ["next", "nightly"], ["lint", "own.toml"],
            ["apply", "own.toml"], ["deactivate", "a"], ["activate", "a"], ["update", "a", "--every", "1h"],
            ["remove", "a"], ["clear", "--yes"],
        ):  # fmt: skip
            tries = 1 if words[0] == "remove" else 3
            assert any(is_in_time(project, words) for _ in range(tries)), words
        assert names(project) == []


def test_the_examples_of_the_help_run_as_written_in_a_new_project(empty):
    empty.write("categories.toml", CATEGORIES_TOML)
    empty.write("tasks.py", TASKS_PY)
    empty.write("nightly.toml", DECLARED.replace("tasks:send", "tasks:greet"))
    for verb in IN_THEIR_ORDER:
        text = empty("schedule", verb, "--help").out
        examples = re.findall(r"^ +jobsched (schedule .*)$", text, flags=re.MULTILINE)
        assert examples, verb
        for example in examples:
            if "--wait" not in example:  # there is no node
                has_findings = verb == "lint" and "nightly.toml" not in example
                empty(*shlex.split(example), code=int(has_findings))


def test_the_help_of_the_group_cuts_no_line(empty):
    assert "...\n" not in empty("schedule", "--help").out.partition("Commands:")[2]


def test_no_example_of_the_help_is_wider_than_a_terminal(empty):
    for verb in IN_THEIR_ORDER:
        assert max(map(len, empty("schedule", verb, "--help").out.splitlines())) <= 80, verb
