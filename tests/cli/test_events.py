import json
import select
import subprocess

import pytest
from waiting import wait_for

from jobsched import event as events
from jobsched.cli.event_view import line

HOOKS = """
def on_event(event): ...
class Alerts:
    def told(self, event): ...
alerts = Alerts()
NOTHING = 5
"""


def test_without_a_node_it_says_so(project):
    for words in ((), ("--follow",), ("--json",)):
        ran = project("events", *words, code=1)
        assert "no node runs on" in ran.err
        assert "`jobsched run` starts one" in ran.err


def test_the_last_events_are_listed(project):
    project.dispatch("tasks:fail", "--arg", '"\\u001b[2Jhopeless"')
    with project.node():
        wait_for(lambda: project("jobs", "--state", "failed", "--json").json)
        told = project("events", "--json").json_lines
        assert told[0]["kind"] == "node.started"
        [failed] = [event for event in told if event["kind"] == "job.failed"]
        assert failed["cause"] == "ValueError: \x1b[2Jhopeless"
        assert failed["at"].endswith("+00:00")
        assert project("events", "--kind", "job", "--json").json_lines == [failed]
        assert project("events", "--task", "tasks:send", "--json").out == ""
        assert project("events", "-n", "1", "--kind", "worker.ready,worker.started").out.count("\n") == 1
        out = project("events", "--category", "reports").out
        assert "job.failed" in out
        assert "\x1b" not in out
        assert all(len(line) <= 80 for line in project.at_a_terminal("events").splitlines())


def test_events_are_followed_until_the_node_stops(project):
    with project.node() as node:
        with subprocess.Popen(
            project.command("events", "--follow", "--json"),
            cwd=project.folder,
            env=project.environment,
            stdout=subprocess.PIPE,
            text=True,
        ) as following:
            wait_for(lambda: _begun(project, following))
            job = project.dispatch("tasks:send", "--arg", '"a"', "--wait")
            node.terminate()
            told = [json.loads(text) for text in following.stdout]
        assert following.returncode == 0
    assert job
    assert told[-1]["kind"] == "node.stopped"
    kinds = [event["kind"] for event in told if "job" in event and event["kind"].startswith("job.")]
    assert kinds[-3:] == ["job.dispatched", "job.started", "job.completed"]


def _begun(project, following):
    """Have something happen; say whether it was followed."""
    project.dispatch("tasks:send", "--arg", '"first"', "--wait")
    return select.select([following.stdout], [], [], 0.05)[0]


def test_a_node_that_is_killed_is_no_clean_end(project):
    with project.node() as node:
        with subprocess.Popen(
            project.command("events", "--follow", "--json"),
            cwd=project.folder,
            env=project.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as following:
            wait_for(lambda: _begun(project, following))
            node.kill()
            _, said = following.communicate(timeout=30)
        assert following.returncode == 1
    assert "is gone without having stopped" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--kind", "job.faild"), "no event is called 'job.faild', did you mean 'job.failed'?"),
        (("--category", "mial"), "did you mean 'mail'?"),
    ],
)
def test_a_wrong_name_gets_the_nearest_one(project, words, said):
    assert said in project("events", *words, code=2).err


def test_the_check_looks_for_the_hooks(project):
    file = project.folder / "categories.toml"
    text = file.read_text()
    project.write("myhooks.py", HOOKS)
    for hooks, said in [
        ("'myhooks:on_event', 'myhooks:Alerts', 'myhooks:alerts'", "hooks: 'myhooks:alerts' is no callable"),
        ("'myhooks:on_evnt'", "hooks: module 'myhooks' has no 'on_evnt', did you mean 'on_event'?"),
        (
            "'nowhere:f'",
            "hooks: no module 'nowhere'",
        ),
        ("'myhooks.on_event'", "expected a list of callables like ['shop.hooks:on_event']"),
    ]:
        file.write_text(f"hooks = [{hooks}]\n{text}")
        ran = project("check", code=2)
        assert said in ran.err
        assert ran.err.count("\n") == 1
    file.write_text(f"hooks = ['myhooks:on_event', 'myhooks:Alerts']\n{text}")
    assert "no problems" in project("check").out


ABOUT = {
    "at": 1_000_000,
    "job": "01a1fe97-d316-7182-be92-74a7329de0a7",
    "task": "shop:send",
    "category": "mail",
}


@pytest.mark.parametrize(
    ("event", "said"),
    [
        (
            events.JobRetried(**ABOUT, attempt=1, worker=2, due_at=3_500_000, cause="ValueError: no"),
            "job.retried     mail shop:send 329de0a7 due in 2.5 s: ValueError: no",
        ),
        (
            events.BalanceDecided(
                at=1, budget=3, backlog={}, before={"a": 1, "b": 1}, after={"a": 2, "b": 1}, reasons={}
            ),
            "balance.decided a 1→2",
        ),
        (events.Dropped(at=1, count=5), "dropped         5 events are missing here"),
        (events.WorkerMoved(at=1, worker=3, category="a", before="b"), "worker.moved    a 3 from b"),
        (
            events.ScheduleFired(
                at=1, schedule="s", job=ABOUT["job"], due_at=1, until_at=2, count=3, by_hand=True
            ),
            "schedule.fired  s 3 due times: job 329de0a7 by hand",
        ),
    ],
)
def test_an_event_is_one_line(event, said):
    assert line(event)[13:] == said
    assert len(line(event, 40)) <= 40
