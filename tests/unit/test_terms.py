import pytest

from jobsched.errors import InvalidOption
from jobsched.job import KEY_BYTES, Limit, Terms
from jobsched.terms import ConcurrencyLimit, Unique, key_limit, task_limit, unique_key


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"key": ""}, "a unique key must be 1 to 1000 characters, got ''"),
        ({"key": "x" * 1001}, "a unique key must be 1 to 1000 characters"),
        ({"key": 5}, "a unique key must be 1 to 1000 characters, got 5"),
        ({"until": "never"}, "until must be 'end' or 'start', got 'never'"),
        ({"on_conflict": "raise"}, "on_conflict must be 'keep', 'refuse' or 'replace', got 'raise'"),
    ],
)
def test_a_unique_option_that_is_none_is_refused(options, complaint):
    with pytest.raises(InvalidOption, match=complaint):
        Unique(**options)


@pytest.mark.parametrize(
    ("key", "most", "complaint"),
    [
        ("", 1, "the key of a limit must be 1 to 1000 characters, got ''"),
        ("x" * 1001, 1, "the key of a limit must be 1 to 1000 characters"),
        (None, 1, "the key of a limit must be 1 to 1000 characters, got None"),
        ("shop", 0, "max_running must be from 1 to 1,000,000, got 0"),
        ("shop", 1_000_001, "max_running must be from 1 to 1,000,000"),
        ("shop", True, "max_running must be a whole number, got True"),
        ("shop", 1.0, "max_running must be a whole number, got 1.0"),
    ],
)
def test_a_limit_that_is_none_is_refused(key, most, complaint):
    with pytest.raises(InvalidOption, match=complaint):
        ConcurrencyLimit(key, most)


def test_what_is_at_the_bounds_is_taken():
    assert Unique(key="x" * 1000).key == "x" * 1000
    assert ConcurrencyLimit("é", 1_000_000).max_running == 1_000_000
    assert ConcurrencyLimit("x").max_running == 1


def test_keys_meet_only_where_task_kind_and_text_are_the_same():
    keys = [
        unique_key("shop:send", Unique(key="a"), b""),
        unique_key("shop:send", Unique(key="b"), b""),
        unique_key("shop:rebuild", Unique(key="a"), b""),
        unique_key("shop:send", Unique(), b"a"),
        unique_key("shop:send", Unique(), b"b"),
        task_limit("shop:send", 1).key,
        task_limit("a", 1).key,
        key_limit(ConcurrencyLimit("a")).key,
        key_limit(ConcurrencyLimit("shop:send")).key,
    ]
    assert len(set(keys)) == len(keys)
    assert {len(key) for key in keys} == {KEY_BYTES}


def test_a_key_of_its_own_does_not_depend_on_the_arguments_or_on_the_other_options():
    found = {
        unique_key("shop:send", Unique(key="a", until=until, on_conflict=what), arguments)
        for until in ("end", "start")
        for what in ("keep", "refuse", "replace")
        for arguments in (b"1", b"2")
    }
    assert len(found) == 1


def test_a_key_stays_what_it_is_on_disk():
    assert unique_key("t", Unique(key="k"), b"").hex() == "c5a3ca6da0d3bdc26df931a911538c0f"
    assert key_limit(ConcurrencyLimit("k", 3)) == Limit(bytes.fromhex("e4f6485fdb7c727ec732b9a6112a2fdd"), 3)


@pytest.mark.parametrize(
    ("terms", "is_alone"),
    [
        (Terms(), False),
        (Terms(expires_at=5, unique=b"u" * 16), False),
        (Terms(at_most_once=True), True),
        (Terms(limits=(Limit(b"l" * 16, 9),)), True),
    ],
)
def test_a_job_that_is_limited_or_runs_at_most_once_is_handed_out_alone(terms, is_alone):
    assert terms.is_alone is is_alone
