import dataclasses
import enum
import uuid
import zlib
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobsched.codec import (
    BadRecord,
    decode_arguments,
    decode_record,
    decode_result,
    encode_arguments,
    encode_record,
    encode_result,
    seal,
    unseal,
)
from jobsched.errors import ArgumentError, PayloadTooLarge
from jobsched.job import MAX_PAYLOAD, JobRecord
from jobsched.job_id import new_id

plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text() | st.integers(0, 99), inner, max_size=4)
    ),
    max_leaves=8,
)


class Connection:
    """Something that cannot be sent."""


@dataclasses.dataclass
class User:
    name: str
    conn: Any = None


class Order(msgspec.Struct):
    lines: list[Any]


class Colour(enum.Enum):
    RED = "red"


def record(args: bytes = b"\x90", kwargs: bytes = b"\x80") -> JobRecord:
    return JobRecord(
        id=new_id(),
        task="shop.tasks:send",
        category="mail",
        priority=-3,
        dispatched_at=1,
        args=msgspec.Raw(args),
        kwargs=msgspec.Raw(kwargs),
        name="a name",
        max_retries=2,
    )


def nested(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


def cycle() -> list[Any]:
    value: list[Any] = [1]
    value.append({"again": value})
    return value


# Arguments and results.


@settings(max_examples=40, deadline=None)
@given(plain)
def test_plain_values_come_back_as_they_were(value):
    packed = encode_arguments("m:send", [value, 1], {"to": value})
    assert decode_arguments(record(*packed)) == ([value, 1], {"to": value})
    assert decode_result(encode_result(value)) == value


@pytest.mark.parametrize(
    ("value", "form"),
    [
        ((1, 2), [1, 2]),
        ({3}, [3]),
        (uuid.UUID(int=5), "00000000-0000-0000-0000-000000000005"),
        (Decimal("1.50"), "1.50"),
        (date(2026, 2, 28), "2026-02-28"),
        (timedelta(seconds=90), "PT90S"),
        (datetime(2026, 2, 28, 12, tzinfo=UTC), datetime(2026, 2, 28, 12, tzinfo=UTC)),
        (Colour.RED, "red"),
        (User("ada"), {"name": "ada", "conn": None}),
        (Order([1]), {"lines": [1]}),
        (bytearray(b"ab"), b"ab"),
    ],
)
def test_other_values_travel_in_their_plain_form(value, form):
    assert decode_result(encode_result(value)) == form


@pytest.mark.parametrize(
    ("args", "kwargs", "path"),
    [
        ([Connection()], {}, f"args.to of task 'm:send': a {__name__}.Connection cannot be sent"),
        ([1, 2, Connection()], {}, "args[2] of task"),
        ([], {"user": User("ada", Connection())}, "args.user.conn of task"),
        ([], {"user": {"conn": Connection()}}, "args.user.conn of task"),
        ([], {"user": {5: Connection()}}, "args.user[5] of task"),
        ([[1, (2, Connection())]], {}, "args.to[1][1] of task"),
        ([Order([1, Connection()])], {}, "args.to.lines[1] of task"),
        ([{frozenset((1, Connection))}], {}, "args.to{}{} of task"),
        ([lambda: 1], {}, "args.to of task 'm:send': a builtins.function cannot be sent"),
        ([Connection], {}, "args.to of task 'm:send': a builtins.type cannot be sent"),
        ([open], {}, "args.to of task"),
        (["fine", "\ud800"], {}, "args.subject of task 'm:send': 'utf-8' codec can't encode"),
        ([{"rows": [1, 2**64]}], {}, "args.to.rows[1] of task 'm:send': can't serialize ints"),
        ([-(2**63) - 1], {}, "args.to of task 'm:send': can't serialize ints"),
        ([], {"tree": cycle()}, "contains itself"),
        ([nested(100_000)], {}, "nested more than 100 levels deep"),
    ],
)
def test_a_bad_argument_is_named_by_its_path(args, kwargs, path):
    with pytest.raises(ArgumentError) as caught:
        encode_arguments("m:send", args, kwargs, ["to", "subject"])
    assert path in str(caught.value)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (Connection(), f"result: a {__name__}.Connection cannot be sent"),
        ({"rows": [{"conn": Connection()}]}, f"result.rows[0].conn: a {__name__}.Connection"),
        (2**64, "result: can't serialize ints"),
        (cycle(), "contains itself"),
        ((n for n in range(3)), "result: a builtins.generator cannot be sent"),
    ],
)
def test_a_bad_result_is_named_by_its_path(value, message):
    with pytest.raises(ArgumentError) as caught:
        encode_result(value)
    assert message in str(caught.value)


def test_arguments_may_take_exactly_the_limit():
    filler = MAX_PAYLOAD - len(b"".join(encode_arguments("m:send", [b"x" * 70_000], {}))) + 70_000
    assert sum(map(len, encode_arguments("m:send", [b"x" * filler], {}))) == MAX_PAYLOAD
    with pytest.raises(PayloadTooLarge, match=r"task 'm:send' take 1,048,577 bytes, the limit is 1,048,576"):
        encode_arguments("m:send", [b"x" * (filler + 1)], {})


def test_positional_and_keyword_arguments_share_the_limit():
    half = b"x" * (MAX_PAYLOAD // 2)
    with pytest.raises(PayloadTooLarge):
        encode_arguments("m:send", [half], {"more": half})


def test_a_result_over_the_limit_is_refused():
    encode_result("x" * (MAX_PAYLOAD - 5))
    with pytest.raises(PayloadTooLarge):
        encode_result("x" * (MAX_PAYLOAD - 4))


# Records.


def test_a_record_comes_back_as_it_was():
    sent = record(*encode_arguments("m:send", [1], {"to": "ada"}))
    assert decode_record(encode_record(sent)) == sent


@settings(max_examples=30, deadline=None)
@given(st.binary(max_size=200))
def test_a_sealed_body_comes_back_as_it_was(body):
    assert unseal(seal(body)) == body


def test_every_single_flipped_bit_is_detected():
    sealed = encode_record(record(*encode_arguments("m:send", ["ada", 1.5], {"subject": b"hi"})))
    decode_record(sealed)
    for place in range(len(sealed) * 8):
        damaged = bytearray(sealed)
        damaged[place // 8] ^= 1 << place % 8
        with pytest.raises(BadRecord):
            decode_record(bytes(damaged))


def test_every_shortened_record_is_detected():
    sealed = encode_record(record())
    for size in range(len(sealed)):
        with pytest.raises(BadRecord):
            decode_record(sealed[:size])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda _: b"", "unknown version nothing"),
        (lambda sealed: b"\x02" + sealed[1:], "unknown version 02"),
        (lambda sealed: b"\x00" + sealed[1:], "unknown version 00"),
        (lambda sealed: sealed + b"\0", "CRC-32"),
    ],
)
def test_what_is_wrong_with_a_record_is_said(make: Callable[[bytes], bytes], message):
    with pytest.raises(BadRecord, match=message):
        unseal(make(seal(b"body")))


@pytest.mark.parametrize(
    "body", [b"", b"\xc1", b"\x90", msgspec.msgpack.encode({"id": 1}), b"\x93\x01\x02\x03"]
)
def test_a_sound_seal_around_something_else_is_a_bad_record(body):
    with pytest.raises(BadRecord):
        decode_record(seal(body))


def test_a_record_begins_with_its_version_and_its_checksum():
    assert seal(b"body") == b"\x01" + zlib.crc32(b"body").to_bytes(4, "big") + b"body"
