import pytest

from jobsched.amount import byte_size, many, span
from jobsched.duration import parse_duration


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (1023, "1,023 bytes"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (5 << 20, "5.0 MiB"),
        (3 << 30, "3.0 GiB"),
        (5000 << 30, "5,000.0 GiB"),
    ],
)
def test_bytes_are_said_in_their_largest_unit(count, text):
    assert byte_size(count) == text


@pytest.mark.parametrize(
    ("number", "what", "text"),
    [(1, "job", "1 job"), (2000, "job", "2,000 jobs"), (2, "process", "2 processes")],
)
def test_things_are_counted(number, what, text):
    assert many(number, what) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (0.5, "0.5s"), (300, "5m"), (5400, "1h30m"), (90_061.5, "1d1h1m1.5s"), (86_400, "1d")],
)
def test_a_span_is_written_as_the_configuration_has_it(seconds, text):
    assert span(seconds) == text
    assert parse_duration(text) == seconds
