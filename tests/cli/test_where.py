import msgspec
import pytest

from jobsched.cli.where import parse_state, parse_where
from jobsched.clock import MICROSECONDS
from jobsched.codec import encode_record
from jobsched.errors import InvalidOption
from jobsched.job import JobError, JobRecord, JobStatus, State
from jobsched.store.base import StoredJob

NOW = 1_900_000_000 * MICROSECONDS
MINUTE = 60 * MICROSECONDS
ID = bytes.fromhex("01936c4e7f4b7a3c9f8e2b1c5d3e4f60")
EMPTY = msgspec.Raw(b"\x90")


def job(**changes) -> StoredJob:
    """A job that was dispatched two hours ago and failed at its third attempt half an hour ago."""
    record = JobRecord(
        id=ID,
        task="shop.tasks:send",
        category="mail",
        priority=5,
        dispatched_at=NOW - 120 * MINUTE,
        args=EMPTY,
        kwargs=EMPTY,
        name=changes.pop("name", "import-42"),
    )
    status = JobStatus(state=State.FAILED, category="mail", priority=5, attempt=3, ended_at=NOW - 30 * MINUTE)
    fields = {"record": encode_record(record), "error": JobError("SMTPError: Connection refused, again")}
    fields |= {key: changes.pop(key) for key in ("record", "error") if key in changes}
    return StoredJob(id=ID, status=msgspec.structs.replace(status, **changes), **fields)


def holds(text: str, **changes) -> bool:
    return parse_where([text], NOW).matches(job(**changes))


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ("state=failed", "state=completed"),
        ("state=completed|Failed", "state=parked|cancelled"),
        ("state!=completed", "state!=failed"),
        ("category=mail", "category=mai"),
        ("category=m*", "category=reports|shop"),
        ("category=reports|mail", "category!=mail"),
        ("task=shop.tasks:send", "task=shop.tasks"),
        ("task=shop.*", "task=SHOP.*"),
        ("task=*:send|*:fetch", "task=*:fetch"),
        ("name=import-*", "name=export-*"),
        ("name!=export-*", "name!=import-*"),
        ("error~connection REFUSED", "error~timeout"),
        ("error~refused, again", "error~refused and again"),
        ("error=SMTPError: Connection refused, again", "error=Connection refused"),
        ("error!=x", 'error=""'),
        ("age>29m", "age>30m"),
        ("age>=30m", "age>=31m"),
        ("age<31m", "age<30m"),
        ("age<=30m", "age<=29m59s"),
        ("attempt>=3", "attempt>3"),
        ("attempt=3", "attempt!=3"),
        ("attempt<=3", "attempt<3"),
        ("priority=5", "priority=-5"),
        ("priority>-1", "priority>5"),
        ("id=01936c4e", "id=01936c4f"),
        ("id=01936c4e-7f4b", "id=5d3e4f60"),
        ("state = failed", " state = parked "),
        ("STATE==failed", "State=pending"),
    ],
)
def test_a_condition_holds_or_not(good, bad):
    assert holds(good)
    assert not holds(bad)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("state=failed,category=mail", True),
        ("state=failed, category=reports", False),
        ("state=failed and attempt>=3 AND age>10m", True),
        ("state=failed and attempt>=4", False),
        ("error~refused, again, category=mail", True),
        ('error~"refused, again", category=reports', False),
        ("error~'again' and state=failed", True),
        ("error~x, y", False),
    ],
)
def test_all_conditions_of_a_text_must_hold(text, values):
    assert holds(text) is values


def test_all_texts_must_hold_and_none_means_every_job():
    assert parse_where(["state=failed", "category=mail"], NOW).matches(job())
    assert not parse_where(["state=failed", "category=reports"], NOW).matches(job())
    assert parse_where([], NOW).matches(job())


@pytest.mark.parametrize(
    ("changes", "minutes"),
    [
        ({"state": State.COMPLETED}, 30),
        ({"state": State.PARKED}, 30),
        ({"state": State.QUARANTINED}, 30),
        ({"state": State.PENDING}, 120),
        ({"state": State.SCHEDULED}, 120),
        ({"state": State.IN_PROGRESS, "ended_at": 0}, 120),
        ({"state": State.CANCELLED, "ended_at": 0}, 120),
    ],
)
def test_the_age_is_since_the_end_else_since_the_dispatch(changes, minutes):
    assert holds(f"age>={minutes}m", **changes)
    assert not holds(f"age>{minutes}m", **changes)


@pytest.mark.parametrize("record", [None, b"damaged"])
def test_a_damaged_record_is_matched_by_its_status_alone(record):
    assert holds("state=failed, category=mail, attempt=3, age>1m, error~smtp", record=record)
    for text in ("task=*", "task!=x", "name=*", "name!=x"):
        assert not holds(text, record=record)
    assert not holds("age>0s", record=record, state=State.PENDING)


def test_a_job_without_a_name_or_an_error_has_empty_ones():
    assert holds("name='', error=''", name=None, error=None)
    assert holds("name!=import-*, error!=x", name=None, error=None)
    assert not holds("error~x", error=None)


@pytest.mark.parametrize(
    ("texts", "states", "category"),
    [
        ([], set(State), None),
        (["state=failed|parked"], {State.FAILED, State.PARKED}, None),
        (["state=failed|parked", "state!=parked"], {State.FAILED}, None),
        (["state=failed, state=parked"], set(), None),
        (["category=mail"], set(State), "mail"),
        (["category=mail, category=m*"], set(State), "mail"),
        (["category=m*"], set(State), None),
        (["category=mail|reports"], set(State), None),
        (["category!=mail"], set(State), None),
    ],
)
def test_the_scan_is_narrowed_to_states_and_a_category(texts, states, category):
    where = parse_where(texts, NOW)
    assert (where.states, where.category) == (frozenset(states), category)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "'' is no condition, expected one like state=failed, category=mail or age>1h"),
        ("failed", "'failed' is no condition, expected one like"),
        ("=failed", "'=failed' is no condition"),
        ("ctegory=mail", "'ctegory=mail': unknown key 'ctegory', did you mean 'category'?"),
        ("state=failed, tsk=x", "'tsk=x': unknown key 'tsk', did you mean 'task'?"),
        ("colour=red", "unknown key 'colour'; known: age, attempt, category, error, id, name, priority,"),
        ("state=faild", "unknown state 'faild', did you mean 'failed'?"),
        ("state=failed|", "unknown state ''"),
        ("state>failed", "'state>failed': state takes = or !=, not >"),
        ("age=1h", "'age=1h': age takes > or >= or < or <=, not ="),
        ("task~send", "'task~send': task takes = or !=, not ~"),
        ("state=", "'state=': a value is missing, like state=failed"),
        ("age>, state=failed", "'age>': a value is missing, like age>1h"),
        ("age>soon", "'age>soon': 'soon' is not a duration"),
        ("age>60", "'age>60': '60' has no unit, write '60s' for seconds"),
        ("attempt>=two", "'attempt>=two': expected a whole number, got 'two'"),
        ("attempt>=", "'attempt>=': a value is missing, like attempt>=3"),
        ("priority=1.5", "'priority=1.5': expected a whole number, got '1.5'"),
        ("id=123", "'id=123': '123' is no part of a job id: 6 or more of its hex digits are needed"),
    ],
)
def test_a_bad_condition_is_refused_with_what_was_expected(text, problem):
    with pytest.raises(InvalidOption) as caught:
        parse_where([text], NOW)
    assert problem in str(caught.value)


@pytest.mark.parametrize("name", ["in_progress", "in-progress", " In Progress "])
def test_a_state_is_written_in_several_ways(name):
    assert parse_state(name) is State.IN_PROGRESS
