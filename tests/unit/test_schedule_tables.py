import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from jobsched.clock import to_micros
from jobsched.config import load_config, load_schedules, parse_config
from jobsched.config_keys import (
    BALANCER_KEYS,
    CATEGORY_KEYS,
    HTTP_KEYS,
    PRESSURE_KEYS,
    RETENTION_KEYS,
    TOP_KEYS,
)
from jobsched.errors import ConfigError
from jobsched.schedule import Schedule
from jobsched.schedule_tables import SCHEDULE_KEYS

HERE = Path("/srv/shop")
TOP = 'tasks = ["shop"]\n[categories.mail]\n'
JOB = 'task = "shop:send"\ncategory = "mail"\n'
NO_ZONE = "timezone must be a name like 'Europe/Berlin' that this machine knows"
GOOD = f"[schedules.a]\n{JOB}every = 60\n"


def parse(text):
    return parse_config(TOP + text, HERE).schedules


def problems(text):
    with pytest.raises(ConfigError) as caught:
        parse(text)
    return [problem.removeprefix("categories.toml:") for problem in caught.value.problems]


def test_every_key_arrives():
    declared = parse("""
        [schedules.nightly]
        task = "shop.tasks:Mail.send"
        category = "mail"
        cron = "0 30 2 * * *"
        timezone = "Europe/Berlin"
        seconds = true
        args = [1, "a"]
        kwargs = { to = "a@b.c" }
        start = 2030-01-01T00:00:00Z
        end = "2031-01-01T00:00:00+01:00"
        max_runs = 7
        jitter = "5m"
        misfire = "run_all"
        most = 3
        grace = "1h"
        overlap = "queue"
        priority = -2
        max_retries = 4
        timeout = "30s"
        expires_in = "10m"
        active = false
    """)["nightly"]
    assert not declared.is_active
    assert declared.is_active is not None
    assert declared.schedule == Schedule(
        name="nightly",
        task="shop.tasks:Mail.send",
        category="mail",
        trigger=["cron", "0 30 2 * * *", "Europe/Berlin", True],
        args=msgspec.msgpack.encode([1, "a"]),
        kwargs=msgspec.msgpack.encode({"to": "a@b.c"}),
        priority=-2,
        max_retries=4,
        timeout_s=30.0,
        expires_in_s=600.0,
        by_name=True,
        start_at=to_micros(datetime(2030, 1, 1, tzinfo=UTC)),
        end_at=to_micros(datetime(2030, 12, 31, 23, tzinfo=UTC)),
        max_runs=7,
        jitter_s=300.0,
        misfire="run_all",
        most=3,
        grace_s=3600.0,
        overlap="queue",
        source="categories.toml",
    )


@pytest.mark.parametrize(
    ("when", "trigger"),
    [
        ('cron = "@daily"', ["cron", "@daily", "UTC", False]),
        ('every = "1h30m"', ["every", 5_400_000_000, None]),
        ("every = 1", ["every", 1_000_000, None]),
        ("at = 2020-01-01T01:00:00+01:00", ["once", 1_577_836_800_000_000]),
        ('at = "2020-01-01T00:00:00Z"', ["once", 1_577_836_800_000_000]),
    ],
)
def test_each_kind_of_trigger_is_read(when, trigger):
    declared = parse(f"[schedules.a]\n{JOB}{when}")["a"]
    assert (declared.schedule.trigger, declared.is_active) == (trigger, None)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('cron = "0 0 30 2 *"', "cron: cron '0 0 30 2 *' never fires: there is no such day"),
        ('cron = "* * *"', "cron: cron '* * *'"),
        ('cron = "* * * * * *"', "cron: cron '* * * * * *': expected 5 fields, got 6"),
        ("cron = 5", "cron: expected a text, got 5"),
        ('every = "0.5s"', "every: expected a duration from 1s on, got '0.5s'"),
        ("every = true", "every: expected a duration like '30s'"),
        ("at = 2030-01-01T08:00:00", "at: 2030-01-01T08:00:00 has no time zone"),
        ("at = 2030-01-01", "at: expected a time like 2030-01-31T08:00:00+01:00, got 2030-01-01"),
        ('at = "soon"', "at: expected a time like 2030-01-31T08:00:00+01:00, got 'soon'"),
    ],
)
def test_a_bad_trigger_is_named_with_its_place(line, problem):
    [found] = problems(f"[schedules.a]\n{JOB}{line}")
    assert found.startswith(f"6: schedules.a.{problem}")


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('timezone = "UTC"', "timezone: goes with cron, not with every"),
        ("seconds = false", "seconds: goes with cron, not with every"),
        ("args = 1", "args: expected an array of arguments, got 1"),
        ("kwargs = []", "kwargs: expected a table of arguments by name, got []"),
        ("max_runs = 0", "max_runs: expected a whole number from 1 to 1000000, got 0"),
        ('jitter = "-1s"', "jitter: '-1s' is not a duration"),
        ('misfire = "once"', "misfire: expected 'run_once', 'run_all' or 'skip', got 'once'"),
        ('overlap = ["skip"]', "overlap: expected 'allow', 'skip' or 'queue', got ['skip']"),
        ("priority = 1.5", "priority: expected a whole number from "),
        ("timeout = 0", "timeout: expected a duration from 1ms on, got 0"),
        ("active = 1", "active: expected true or false, got 1"),
        ('gracce = "1m"', "gracce: unknown key, did you mean 'grace'?"),
    ],
)
def test_a_bad_setting_is_named_with_its_place(line, problem):
    [found] = problems(f"{GOOD}{line}")
    assert found.startswith(f"7: schedules.a.{problem}")


def test_all_problems_of_all_schedules_come_at_once():
    found = problems("""
[schedules.a]
task = "send"
category = "mial"
every = "5m"
cron = "@daily"
[schedules.b]
[schedules.c]
task = "shop:send"
category = "mail"
cron = "0 0 31 2 *"
timezone = "Europe/Berln"
start = 2030-01-02T00:00:00Z
end = 2030-01-01T00:00:00Z
[schedules.d.e]
task = "shop:send"
[schedules." f"]
task = "shop:send"
category = "mail"
at = 2030-01-01T00:00:00Z
""")
    assert found == [
        "4: schedules.a: expected one of cron, every and at, got cron and every",
        "5: schedules.a.task: expected a task's name like 'shop.tasks:send', got 'send'",
        "6: schedules.a.category: unknown category 'mial', did you mean 'mail'?",
        "9: schedules.b.task: missing; name the task to dispatch, like task = 'shop.tasks:send'",
        "9: schedules.b.category: missing; name the category of its jobs",
        "9: schedules.b: expected one of cron, every and at, got none of them",
        "13: schedules.c.cron: cron '0 0 31 2 *' never fires: there is no such day",
        f"14: schedules.c.timezone: {NO_ZONE}, got 'Europe/Berln', did you mean 'Europe/Berlin'?",
        "16: schedules.c.end: is before start",
        '17: schedules.d.e: unknown key; a schedule name with a dot is quoted: [schedules."d.e"]',
        "19: a schedule's name has neither spaces around it nor control characters, got ' f'",
    ]


@pytest.mark.parametrize(("text", "shown"), [("schedules = 1", "1"), ("schedules = []", r"\[\]")])
def test_schedules_are_tables(text, shown):
    with pytest.raises(ConfigError, match=f"schedules: expected tables like .*, got {shown}"):
        parse_config(f"{text}\n{TOP}", HERE)


def test_who_declares_no_schedules_does_not_wait_for_triggers(tmp_path):
    code = (
        "import sys; from pathlib import Path; from jobsched.config import parse_config\n"
        f"parse_config({TOP!r}, Path('/')); assert 'jobsched.schedule_tables' not in sys.modules\n"
        f"parse_config({TOP + GOOD!r}, Path('/')); assert 'croniter' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_file_of_its_own_holds_schedules_alone(tmp_path):
    (tmp_path / "categories.toml").write_text(TOP + GOOD)
    config = load_config(tmp_path / "categories.toml")
    (tmp_path / "more").mkdir()
    file = tmp_path / "more/some.toml"
    file.write_text(GOOD.replace(".a]", ".b]"))
    source, declared = load_schedules(file, config)
    assert (source, list(declared)) == ("more/some.toml", ["b"])
    assert declared["b"].schedule.source == "more/some.toml"
    assert load_schedules(tmp_path / "categories.toml", config) == ("categories.toml", config.schedules)
    file.write_text(f"worker = 3\n{GOOD.replace('mail', 'mial')}")
    with pytest.raises(ConfigError) as caught:
        load_schedules(file, config)
    assert [problem.removeprefix(str(file)) for problem in caught.value.problems] == [
        ":1: worker: unknown key; known: schedules",
        ":4: schedules.a.category: unknown category 'mial', did you mean 'mail'?",
    ]
    with pytest.raises(ConfigError, match="cannot be read"):
        load_schedules(tmp_path / "none.toml", config)


def test_the_manual_has_a_row_for_every_key():
    text = (Path(__file__).parents[2] / "docs/configuration.md").read_text()
    rows = {
        key
        for row in re.findall(r"^\| (`[^|]+) \|", text, flags=re.MULTILINE)
        for key in re.findall(r"`(\w+)`", row)
    }
    tables = [TOP_KEYS, BALANCER_KEYS, RETENTION_KEYS, PRESSURE_KEYS, HTTP_KEYS, CATEGORY_KEYS, SCHEDULE_KEYS]
    keys = {name for table in tables for name, key in table.items() if key.field is not None}
    assert keys <= rows
