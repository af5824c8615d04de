import os
from pathlib import Path

import pytest

from jobsched.config import (
    BalancerConfig,
    CategoryConfig,
    Config,
    HttpConfig,
    PressureConfig,
    RetentionConfig,
    StorePlace,
    find_config,
    load_config,
    parse_config,
)
from jobsched.duration import parse_duration
from jobsched.errors import ConfigError, UnknownCategory
from jobsched.rate import Rate

HERE = Path("/srv/shop")
SMALL = """\
tasks = ["shop.tasks"]
workers = 4
[categories.mail]
"""


def parse(text: str) -> Config:
    return parse_config(text, HERE)


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    return caught.value.problems


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("30s", 30.0),
        ("1.5s", 1.5),
        ("500ms", 0.5),
        ("9ms", 0.009),
        ("10m", 600.0),
        ("2h", 7200.0),
        ("1d", 86_400.0),
        ("1h30m", 5400.0),
        ("1d2h3m4s5ms", 93_784.005),
        (" 1h 30m ", 5400.0),
        ("0s", 0.0),
        (7, 7.0),
        (0.25, 0.25),
    ],
)
def test_a_duration_is_read_as_seconds(value, seconds):
    assert parse_duration(value) == seconds


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("30", "'30' has no unit, write '30s' for seconds"),
        ("soon", "'soon' is not a duration, expected one like '30s', '500ms', '10m' or '1h30m'"),
        ("", "'' is not a duration"),
        (" ", "' ' is not a duration"),
        ("30S", "'30S' is not a duration"),
        ("30m1h", "'30m1h' is not a duration"),
        ("1s1s", "'1s1s' is not a duration"),
        ("-5s", "'-5s' is not a duration"),
        ("٣s", "is not a duration"),
        ("s", "'s' is not a duration"),
        (-1, "a duration must not be negative, got -1"),
        (float("inf"), "a duration must be finite, got inf"),
        (float("-inf"), "a duration must not be negative"),
        (float("nan"), "a duration must be finite, got nan"),
        (10**400, "a duration must be finite, got 1000"),
        (-(10**400), "a duration must not be negative, got -1000"),
        ("9" * 400 + "s", "a duration must be finite, got '999"),
        (True, "expected a duration like '30s' or a number of seconds, got True"),
        (None, "expected a duration like '30s' or a number of seconds, got None"),
    ],
)
def test_what_is_no_duration_is_refused_with_the_reason(value, message):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (the message is compared below)
        parse_duration(value)
    assert message in str(caught.value)
    assert len(str(caught.value)) < 150


def test_every_setting_of_the_file_arrives():
    config = parse("""
        store = "lmdb:data/jobs"
        workers = 8
        tasks = ["shop.tasks", "billing"]
        grace = "1m"
        quota = "1.5GiB"

        [balancer]
        every = "250ms"
        weigh_by = "work"
        damping = 1

        [retention]
        completed = "1d"
        failed = "forever"
        cancelled = 0
        keep = 5

        [pressure]
        max_cpu = 95
        max_memory = 87.5

        [http]
        allow = ["10.1.0.0/16", "127.0.0.1", "fd00::/8", "hooks.internal"]

        [categories.mail]
        priority = 5
        min_workers = 1
        max_workers = 6
        timeout = "30s"
        max_retries = 5
        kill_after = "2s"
        max_pending = 1000
        rate = "10/30s"
        max_memory = "512MiB"
        max_jobs_per_worker = 100
        max_worker_age = "1h"

        [categories."shop.reports"]
    """)
    assert config == Config(
        path=None,
        directory=HERE,
        store=StorePlace("lmdb", HERE / "data/jobs"),
        workers=8,
        tasks=("shop.tasks", "billing"),
        grace_s=60.0,
        quota_bytes=3 << 29,
        balancer=BalancerConfig(every_s=0.25, weigh_by="work", damping=1.0),
        retention=RetentionConfig(completed_s=86_400.0, failed_s=None, cancelled_s=0.0, keep=5),
        pressure=PressureConfig(max_cpu=95.0, max_memory=87.5),
        http=HttpConfig(allow=("10.1.0.0/16", "127.0.0.1", "fd00::/8", "hooks.internal")),
        categories={
            "mail": CategoryConfig(
                priority=5.0,
                min_workers=1,
                max_workers=6,
                max_retries=5,
                timeout_s=30.0,
                kill_after_s=2.0,
                max_pending=1000,
                rate=Rate(10, 30.0),
                max_memory_bytes=512 << 20,
                max_jobs_per_worker=100,
                max_worker_age_s=3600.0,
            ),
            "shop.reports": CategoryConfig(),
        },
    )


def test_what_the_file_leaves_out_has_a_default():
    config = parse("tasks = ['shop']\n[categories.mail]")
    assert config.store == StorePlace("lmdb", HERE / ".jobsched")
    assert config.workers == os.cpu_count()
    assert config.grace_s == 30.0
    assert config.balancer == BalancerConfig(every_s=1.0, weigh_by="backlog", damping=0.5)
    assert config.quota_bytes == 4 << 30
    assert config.retention == RetentionConfig(
        completed_s=604_800.0, failed_s=2_592_000.0, cancelled_s=604_800.0, keep=100_000
    )
    assert config.pressure == PressureConfig(max_cpu=None, max_memory=None)
    assert config.http == HttpConfig(allow=())
    assert config.category("mail") == CategoryConfig(priority=1, min_workers=0, max_workers=None)


@pytest.mark.parametrize(
    ("line", "setting"),
    [
        ("quota = '1MiB'", lambda config: config.quota_bytes == 1 << 20),
        ("quota = 64424509440", lambda config: config.quota_bytes == 60 << 30),
        ("retention.completed = '3650d'", lambda config: config.retention.completed_s == 315_360_000),
        ("retention.keep = 0", lambda config: config.retention.keep == 0),
        ("retention.keep = 'all'", lambda config: config.retention.keep is None),
        ("pressure.max_cpu = 10", lambda config: config.pressure.max_cpu == 10),
        ("pressure.max_memory = 100", lambda config: config.pressure.max_memory == 100),
    ],
)
def test_the_ends_of_the_ranges_are_taken(line, setting):
    assert setting(parse(f"{line}\n{SMALL}"))


def test_the_values_cannot_be_changed():
    config = parse(SMALL)
    with pytest.raises(AttributeError):
        config.workers = 5
    with pytest.raises(AttributeError):
        config.category("mail").priority = 5


def test_an_unknown_category_is_refused_with_the_nearest_name():
    with pytest.raises(UnknownCategory, match="unknown category 'mial', did you mean 'mail'"):
        parse(SMALL).category("mial")


@pytest.mark.parametrize(
    ("store", "place"),
    [
        ("lmdb:.jobsched", StorePlace("lmdb", HERE / ".jobsched")),
        ("lmdb:/var/lib/jobs", StorePlace("lmdb", Path("/var/lib/jobs"))),
        ("memory:", StorePlace("memory", HERE / ".jobsched")),
    ],
)
def test_a_store_path_is_relative_to_the_file(store, place):
    assert parse(f"store = '{store}'\n{SMALL}").store == place


def test_a_relative_folder_is_made_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = parse_config(SMALL, Path("deploy"))
    assert config.directory == tmp_path / "deploy"
    assert config.store.path == tmp_path / "deploy/.jobsched"


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("store = 5", "store: expected 'lmdb:FOLDER' or 'memory:', got 5"),
        ("store = '.jobsched'", "store: expected 'lmdb:FOLDER' or 'memory:', got '.jobsched'"),
        ("store = 'redis://:secret@host'", "store: expected 'lmdb:FOLDER' or 'memory:', got 'redis:...'"),
        ("store = 'memory:x'", "store: expected 'lmdb:FOLDER' or 'memory:', got 'memory:...'"),
        (
            "store = 'postgresql://me:secret@host/db'",
            "store: postgresql:// is not available in this version; use lmdb:",
        ),
        (
            "store = 'lmdb:'",
            "store: expected a folder like 'lmdb:.jobsched' or 'lmdb:/var/lib/jobs', got 'lmdb:'",
        ),
        ("store = 'lmdb: x'", "store: expected a folder like"),
        ("store = 'lmdb://x'", "store: expected a folder like"),
        ("store = 'lmdb:~/jobs'", "store: expected a folder like"),
        ('store = "lmdb:a\\u0000b"', "store: expected a folder like"),
        ("grace = 'soon'", "grace: 'soon' is not a duration"),
        ("grace = -1", "grace: a duration must not be negative, got -1"),
        ("grace = '2d'", "grace: expected a duration of at most 1d, got '2d'"),
        ("quota = '1GB/s'", "quota: '1GB/s' is not a size, expected one like '512MiB'"),
        ("quota = '512KiB'", "quota: expected a size from 1MiB to 60GiB, got '512KiB'"),
        ("quota = '61GiB'", "quota: expected a size from 1MiB to 60GiB, got '61GiB'"),
        (f"quota = '{'9' * 400}GiB'", "quota: expected a size from 1MiB to 60GiB, got '999"),
        ("quota = true", "quota: expected a size like '512MiB' or a whole number of bytes, got True"),
        ("retention = 5", "retention: expected a table, got 5"),
        ("retention.completed = '11y'", "retention.completed: '11y' is not a duration"),
        (
            "retention.completed = '3651d'",
            "retention.completed: expected a duration of at most 3650d, got '3651d'; 'forever' lifts",
        ),
        (
            "retention.keep = 'forever'",
            "retention.keep: expected a whole number from 0 to 100000000, got 'forever'; 'all' lifts",
        ),
        ("retention.keep = -1", "retention.keep: expected a whole number from 0 to 100000000, got -1"),
        ("retention.parked = '1d'", "retention.parked: unknown key"),
        ("pressure.max_cpu = 9.9", "pressure.max_cpu: expected a number of percent from 10 to 100, got 9.9"),
        ("pressure.max_cpu = '95%'", "pressure.max_cpu: expected a number of percent from 10 to 100"),
        ("pressure.max_memory = 101", "pressure.max_memory: expected a number of percent from 10 to 100"),
        ("http.allow = '127.0.0.1'", "http.allow: expected a list of addresses, networks and host names"),
        ("http.allow = [1]", "http.allow: expected a list of addresses, networks and host names"),
        ("http.alow = []", "http.alow: unknown key, did you mean 'allow'?"),
        ("http = 1", "http: expected a table, got 1"),
        ("pressure.max_mem = 90", "pressure.max_mem: unknown key, did you mean 'max_memory'?"),
        ("schedule = {}", "schedule: unknown key, did you mean 'schedules'?"),
        ("gracee = 5", "gracee: unknown key, did you mean 'grace'?"),
        ("balancer = 5", "balancer: expected a table, got 5"),
        ("balancer.every = '10ms'", "balancer.every: expected a duration from 50ms to 1h, got '10ms'"),
        ("balancer.every = true", "balancer.every: expected a duration like '30s'"),
        ("balancer.weigh_by = 'wait'", "balancer.weigh_by: expected 'backlog' or 'work', got 'wait'"),
        ("balancer.damping = -0.5", "balancer.damping: expected a number from 0 to 10000, got -0.5"),
        ("balancer.damping = nan", "balancer.damping: expected a number from 0 to 10000, got nan"),
        ("balancer.weight_by = 'work'", "balancer.weight_by: unknown key, did you mean 'weigh_by'?"),
    ],
)
def test_a_bad_line_is_named_with_its_number_and_what_was_expected(line, problem):
    [found] = problems(f"# comment\n{line}\n{SMALL}")
    assert found.startswith(f"categories.toml:2: {problem}")
    assert "secret" not in found


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ("10.0.0.256", "does not appear to be an IPv4 or IPv6 network"),
        ("10.1.2.3/16", "10.1.2.3/16 has host bits set"),
        ("http://hooks", "does not appear to be"),
        ("hooks:80", "does not appear to be"),
        ("Hooks.internal", "does not appear to be"),
        ("hooks..internal", "does not appear to be"),
        ("", "does not appear to be"),
    ],
)
def test_what_the_http_task_may_reach_is_an_address_a_network_or_a_name_in_lower_case(entry, reason):
    [found] = problems(f"http.allow = ['ok', '{entry}']\n{SMALL}")
    expected = "categories.toml:1: http.allow: expected a list of addresses, networks and host names like"
    assert found.startswith(expected)
    assert f"got {entry!r}: " in found
    assert reason in found


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("workers = 0", "expected a whole number from 1 to 10000, got 0"),
        ("workers = '4'", "expected a whole number from 1 to 10000, got '4'"),
        ("workers = 4.5", "expected a whole number from 1 to 10000, got 4.5"),
        ("workers = true", "expected a whole number from 1 to 10000, got true"),
        ("workers = {}", "expected a whole number from 1 to 10000, got a table"),
    ],
)
def test_the_budget_is_a_positive_whole_number(line, problem):
    text = SMALL.replace("workers = 4", line)
    assert problems(text) == [f"categories.toml:2: workers: {problem}"]


@pytest.mark.parametrize(
    ("tasks", "problem"),
    [
        ("[]", "expected at least one module name like 'shop.tasks', got none"),
        ("'shop.tasks'", "expected a list of module names like ['shop.tasks'], got 'shop.tasks'"),
        ("['shop', 5]", "expected a list of module names like ['shop.tasks'], got ['shop', 5]"),
        ("['shop/tasks.py']", "expected module names like 'shop.tasks', got 'shop/tasks.py'"),
        ("['shop:send', '']", "expected module names like 'shop.tasks', got 'shop:send', ''"),
        ("['.tasks']", "expected module names like 'shop.tasks', got '.tasks'"),
        ("['shop.class']", "expected module names like 'shop.tasks', got 'shop.class'"),
        ("['shop', 'billing', 'shop']", "named more than once: 'shop'"),
    ],
)
def test_tasks_are_names_of_modules(tasks, problem):
    text = SMALL.replace('["shop.tasks"]', tasks)
    assert problems(text) == [f"categories.toml:1: tasks: {problem}"]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("priorty = 5", "priorty: unknown key, did you mean 'priority'?"),
        ("priority = 0", "priority: expected a number from 0.000001 to 1000000, got 0"),
        ("priority = inf", "priority: expected a number from 0.000001 to 1000000, got inf"),
        ("priority = nan", "priority: expected a number from 0.000001 to 1000000, got nan"),
        ("priority = 'high'", "priority: expected a number from 0.000001 to 1000000, got 'high'"),
        ("min_workers = -1", "min_workers: expected a whole number from 0 to 10000, got -1"),
        ("max_workers = 0", "max_workers: expected a whole number from 1 to 10000, got 0"),
        ("max_retries = 1.5", "max_retries: expected a whole number from 0 to 1000000, got 1.5"),
        ("timeout = '0s'", "timeout: expected a duration from 1ms to 365d, got '0s'"),
        ("timeout = '30'", "timeout: '30' has no unit, write '30s' for seconds"),
        ("kill_after = '2h'", "kill_after: expected a duration of at most 1h, got '2h'"),
        ("max_pending = 0", "max_pending: expected a whole number from 1 to 100000000, got 0"),
        ("rate = 100", "rate: 100 is not a rate, expected one like '100/m', '5/s' or '10/30s'"),
        ("rate = '0/s'", "rate: a rate allows from 1 to 100000000 starts, got '0/s'"),
        ("rate = '5/5'", "rate: '5' has no unit, write '5s' for seconds"),
        ("max_memory = '15MiB'", "max_memory: expected a size of at least 16MiB, got '15MiB'"),
        (
            "max_jobs_per_worker = 0",
            "max_jobs_per_worker: expected a whole number from 1 to 100000000, got 0",
        ),
        ("max_worker_age = '1ms'", "max_worker_age: expected a duration from 1s to 365d, got '1ms'"),
        ("timeout_s = 30", "timeout_s: unknown key, did you mean 'timeout'?"),
    ],
)
def test_a_bad_setting_of_a_category_is_named_with_its_place(line, problem):
    assert problems(f"{SMALL}{line}") == [f"categories.toml:4: categories.mail.{problem}"]


@pytest.mark.parametrize(
    ("key", "problem"),
    [
        ('"mail "', "category 'mail ' ends with a space"),
        ('" mail"', "category ' mail' starts with a space"),
        ('""', "category '' is empty, expected a name like 'mail'"),
        ("Mail", "category 'Mail' contains 'M', expected lower-case letters, digits, '_', '.' and '-' only"),
        ('"a/b"', "category 'a/b' contains '/', expected lower-case letters"),
        ('"mail\\n"', "category 'mail\\n' ends with a space"),
        ("-mail", "category '-mail' starts with '-', expected a lower-case letter or a digit"),
        ("x" * 65, f"category '{'x' * 65}' has 65 characters, the limit is 64"),
    ],
)
def test_a_bad_category_name_is_explained(key, problem):
    found = problems(f"tasks = ['shop']\n\n[categories.{key}]\n")
    assert len(found) == 1
    assert problem in found[0]


@pytest.mark.parametrize("name", ["m", "0", "a.b-c_d", "x" * 64])
def test_a_good_category_name_is_taken(name):
    assert list(parse(f"tasks = ['shop']\n[categories.'{name}']").categories) == [name]


def test_a_dotted_category_name_without_quotes_is_explained():
    [found] = problems("tasks = ['shop']\n[categories.shop.mail]\n")
    assert found.startswith("categories.toml:2: categories.shop.mail: unknown key")
    assert found.endswith('a category name with a dot is quoted: [categories."shop.mail"]')


@pytest.mark.parametrize("text", ["", "categories = {}", "categories = 5", "[categories]"])
def test_a_file_without_categories_is_refused(text):
    [found] = problems(f"tasks = ['shop']\n{text}")
    assert found.endswith("categories: expected at least one category, like [categories.mail]")


def test_a_category_that_is_no_table_is_refused():
    assert problems("tasks = ['shop']\n[categories]\nmail = 5") == [
        "categories.toml:3: categories.mail: expected a table, got 5"
    ]


def test_a_file_without_tasks_is_refused_without_a_line():
    assert problems("[categories.mail]") == [
        "categories.toml: tasks: missing; name the modules that define tasks, like tasks = ['shop.tasks']"
    ]


def test_a_minimum_above_the_maximum_is_refused():
    assert problems(f"{SMALL}max_workers = 2\nmin_workers = 3") == [
        "categories.toml:5: categories.mail.min_workers: 3 is above max_workers, which is 2"
    ]


def test_minimums_above_the_budget_are_refused():
    assert problems(f"{SMALL}min_workers = 3\n[categories.reports]\nmin_workers = 2") == [
        "categories.toml:2: workers: 4 is below the sum of min_workers, which is 5"
    ]


def test_minimums_above_the_number_of_cpus_say_where_the_budget_comes_from(monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    assert problems("tasks = ['shop']\n[categories.mail]\nmin_workers = 2") == [
        "categories.toml: workers: 1 (the number of CPUs) is below the sum of min_workers, which is 2"
    ]


def test_minimums_that_add_up_to_the_budget_are_taken():
    config = parse(f"{SMALL}min_workers = 3\nmax_workers = 3\n[categories.reports]\nmin_workers = 1")
    assert config.workers == 4


def test_all_problems_come_at_once_in_the_order_of_the_file():
    with pytest.raises(ConfigError) as caught:
        parse("workers = 0\nstor = 'lmdb:x'\n[categories.'mail ']\npriorty = 5\n[balancer]\nevery = 0\n")
    assert caught.value.problems == [
        "categories.toml:1: workers: expected a whole number from 1 to 10000, got 0",
        "categories.toml:2: stor: unknown key, did you mean 'store'?",
        "categories.toml:3: category 'mail ' ends with a space",
        "categories.toml:4: categories.\"mail \".priorty: unknown key, did you mean 'priority'?",
        "categories.toml:6: balancer.every: expected a duration from 50ms to 1h, got 0",
        "categories.toml: tasks: missing; name the modules that define tasks, like tasks = ['shop.tasks']",
    ]
    assert str(caught.value) == "\n".join(caught.value.problems)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[categories]\nmail.priorty = 1", 2),
        ("[categories]\nmail = { priority = 1, priorty = 1 }", 2),
        ("categories.mail.priority = 1\ncategories.mail.priorty = 1", 2),
        ("[ categories . 'mail' ] # the mail\n\n  \"priorty\"  = 1", 3),
        ("[categories.reports]\npriority = 1\n[categories.mail]\npriorty = 1", 4),
    ],
)
def test_the_line_is_found_however_the_key_is_written(text, line):
    [found] = problems(f"tasks = ['shop']\n{text}")
    assert (
        found == f"categories.toml:{line + 1}: categories.mail.priorty: unknown key, did you mean 'priority'?"
    )


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("tasks = [\n  'shop'\nworkers = 4", "categories.toml:3:1: not valid TOML: unclosed array"),
        ("workers = four", "categories.toml:1:11: not valid TOML: invalid value"),
        ("workers = 1\nworkers = 2", "categories.toml:2:12: not valid TOML: cannot overwrite a value"),
        ("workers = 1\nworkers = 2\n", "categories.toml:2:12: not valid TOML: cannot overwrite a value"),
        ("workers = ", "categories.toml:1:11: not valid TOML: invalid value"),
        ("workers = " + "9" * 5000, "categories.toml: not valid TOML: exceeds the limit"),
    ],
)
def test_broken_toml_is_located(text, problem):
    [found] = problems(text)
    assert found.startswith(problem)


def test_a_long_value_is_shortened_in_the_message():
    [found] = problems(SMALL.replace("4", f"'{'x' * 1000}'"))
    assert len(found) < 150


def test_a_file_is_loaded_with_absolute_places(tmp_path, monkeypatch):
    (tmp_path / "deploy").mkdir()
    (tmp_path / "deploy/jobs.toml").write_bytes(b"\xef\xbb\xbf" + SMALL.replace("\n", "\r\n").encode())
    monkeypatch.chdir(tmp_path)
    config = load_config(Path("deploy/jobs.toml"))
    assert config.path == tmp_path / "deploy/jobs.toml"
    assert config.directory == tmp_path / "deploy"
    assert config.store.path == tmp_path / "deploy/.jobsched"


def test_a_link_to_the_file_does_not_move_the_store(tmp_path):
    (tmp_path / "revision-1").mkdir()
    (tmp_path / "revision-1/categories.toml").write_text(SMALL)
    link = tmp_path / "categories.toml"
    link.symlink_to("revision-1/categories.toml")
    assert load_config(link).store.path == tmp_path / ".jobsched"


def test_problems_name_the_file_as_it_was_given(tmp_path, monkeypatch):
    (tmp_path / "jobs.toml").write_text(f"{SMALL}priorty = 5")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"^jobs\.toml:4: categories\.mail\.priorty: unknown key"):
        load_config(Path("jobs.toml"))


def test_a_file_that_is_not_utf8_is_refused_with_the_line(tmp_path):
    path = tmp_path / "categories.toml"
    path.write_bytes("workers = 4\n# Aufträge\n".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"categories\.toml:2: not UTF-8 text"):
        load_config(path)


def test_a_folder_in_place_of_the_file_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load_config(tmp_path)


def test_the_given_file_comes_before_the_environment_and_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("given.toml", "variable.toml", "categories.toml"):
        (tmp_path / name).write_text(SMALL)
    monkeypatch.setenv("JOBSCHED_CONFIG", str(tmp_path / "variable.toml"))
    assert find_config("given.toml") == Path("given.toml")
    assert find_config() == tmp_path / "variable.toml"
    monkeypatch.setenv("JOBSCHED_CONFIG", "")
    assert find_config() == Path("categories.toml")


@pytest.mark.parametrize(
    ("given", "variable", "place"),
    [
        ("given.toml", "variable.toml", "given.toml (as given)"),
        (None, "variable.toml", "variable.toml (from JOBSCHED_CONFIG)"),
        (None, None, "categories.toml (in {here}; no JOBSCHED_CONFIG is set)"),
    ],
)
def test_a_missing_file_is_refused_saying_where_it_was_looked_for(
    given, variable, place, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("JOBSCHED_CONFIG", raising=False)
    if variable:
        monkeypatch.setenv("JOBSCHED_CONFIG", variable)
    with pytest.raises(ConfigError) as caught:
        find_config(given)
    where = place.format(here=tmp_path)
    assert caught.value.problems == [f"no configuration at {where}; `jobsched init` writes one"]
