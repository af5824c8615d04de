import pytest

from jobsched.amount import byte_size, many


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
