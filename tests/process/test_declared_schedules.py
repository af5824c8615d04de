import json
import subprocess
import sys
from datetime import UTC, datetime

import pytest
from nodes import eventually

FAST = """
[schedules.fast]
task = "scheduled_tasks:tell"
category = "mail"
every = "1s"
args = ["first"]
"""
SLOW = """
[schedules.slow]
task = "scheduled_tasks:tell"
category = "reports"
cron = "0 0 1 1 *"
args = ["slow"]
"""


@pytest.fixture
def declaring(project):
    """A project whose file declares schedules; `declare` writes it."""
    project.bring("scheduled_tasks")

    def declare(text):
        project.configure({"mail": {}, "reports": {}}, tasks=["scheduled_tasks"])
        project.config.write_text(project.config.read_text() + text)

    project.declare = declare
    return project


def told(project):
    file = project.folder / "told"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def command(project, *words):
    ended = subprocess.run(
        [sys.executable, "-m", "jobsched", "-c", str(project.config), "schedule", *words],
        cwd=project.folder, env=project.environment, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    return ended.stdout


def stop(node):
    node.terminate()
    assert node.wait() == 0


def test_declared_schedules_fire_and_follow_their_file(declaring):
    declaring.declare(FAST + SLOW)
    node = declaring.start()
    runs = eventually(lambda: told(declaring)[:2] if len(told(declaring)) > 1 else None)
    assert [(run["label"], run["schedule"]) for run in runs] == [("first", "fast")] * 2
    dues = [datetime.fromisoformat(run["due"]) for run in runs]
    assert (dues[1] - dues[0]).total_seconds() >= 1
    assert dues[0].tzinfo is not None
    assert abs((datetime.now(UTC) - dues[0]).total_seconds()) < 30
    stop(node)
    assert node.says("schedule=fast added (next 20")

    declaring.declare(FAST.replace("first", "second"))
    node = declaring.start()
    eventually(lambda: told(declaring)[-1]["label"] == "second")
    stop(node)
    assert node.says("schedule=fast changed; args: ['first'] -> ['second']")
    assert node.says("schedule=slow removed")
    after = [datetime.fromisoformat(run["due"]) for run in told(declaring)]
    assert {(due - dues[0]).total_seconds() % 1 for due in after} == {0}  # it counts from where it did


def test_what_was_deactivated_at_run_time_stays_so_after_a_start(declaring):
    declaring.declare(FAST + SLOW)
    node = declaring.start()
    assert command(declaring, "deactivate", "fast", "slow") == "fast is not active\nslow is not active\n"
    stop(node)
    count = len(told(declaring))
    declaring.declare(FAST + SLOW + "active = true\n")
    node = declaring.start()
    eventually(lambda: node.says("schedule=slow changed; active: false -> true"))
    rows = {row["name"]: row["active"] for row in json.loads(command(declaring, "list", "--json"))}
    assert rows == {"fast": False, "slow": True}
    stop(node)
    assert len(told(declaring)) == count


def test_a_file_is_shown_then_applied_beside_a_running_node(declaring):
    declaring.declare("")
    node = declaring.start()
    declaring.declare(FAST)
    assert "+ fast: added" in command(declaring, "apply", str(declaring.config), "--diff")
    assert command(declaring, "list") == "no schedules\n"
    assert command(declaring, "apply", str(declaring.config)).endswith("1 added\n")
    run = eventually(lambda: told(declaring)[:1])[0]
    assert run["schedule"] == "fast"
    fired = json.loads(command(declaring, "history", "fast", "--json"))
    assert run["id"] in {row["job"] for row in fired}
    assert {row["kind"] for row in fired} == {"fired"}
    stop(node)


def test_a_schedule_of_a_task_that_nobody_knows_holds_up_no_start(declaring):
    declaring.declare(FAST.replace(":tell", ":none"))
    node = declaring.start()
    eventually(lambda: node.says("schedule=fast fired"))
    eventually(lambda: "parked" in declaring.states(declaring.ids()))
    stop(node)


def test_a_job_that_was_dispatched_has_no_schedule(declaring):
    declaring.declare("")
    declaring.dispatcher().dispatch("scheduled_tasks:tell", "mail", args=("a",))
    assert declaring.run_until_idle() == 0
    [run] = told(declaring)
    assert (run["schedule"], run["due"]) == (None, None)
