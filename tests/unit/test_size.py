import pytest

from jobsched.size import parse_size


@pytest.mark.parametrize(
    ("value", "size"),
    [
        ("512MiB", 512 << 20),
        ("4GiB", 4 << 30),
        ("1.5GiB", 3 << 29),
        ("64KiB", 65_536),
        ("500MB", 500_000_000),
        ("2GB", 2_000_000_000),
        ("1KB", 1000),
        ("1K", 1024),
        ("1M", 1 << 20),
        ("1G", 1 << 30),
        ("7B", 7),
        ("1.9B", 1),
        (" 16 MiB ", 16 << 20),
        ("0B", 0),
        (4096, 4096),
        (0, 0),
    ],
)
def test_a_size_is_read_as_bytes(value, size):
    assert parse_size(value) == size


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("512", "'512' has no unit, write '512B' for bytes"),
        ("big", "'big' is not a size, expected one like '512MiB', '4GiB' or '500MB'"),
        ("", "'' is not a size"),
        ("-1MiB", "'-1MiB' is not a size"),
        ("1e9B", "'1e9B' is not a size"),
        ("٣B", "is not a size"),
        ("1MiB2KiB", "is not a size"),
        ("512mb", "'512mb' has the unknown unit 'mb' (did you mean 'MB'?), known: B, KB,"),
        ("1TiB", "'1TiB' has the unknown unit 'TiB', known: B, KB, MB, GB, K, M, G, KiB, MiB, GiB"),
        (-1, "a size must not be negative, got -1"),
        (-(10**400), "a size must not be negative, got -1000"),
        (1.5, "expected a size like '512MiB' or a whole number of bytes, got 1.5"),
        (True, "expected a size like '512MiB' or a whole number of bytes, got True"),
        (None, "expected a size like '512MiB' or a whole number of bytes, got None"),
        ("9" * 1000, "has no unit"),
        ("9" * 1000 + "x" * 1000, "has the unknown unit"),
    ],
)
def test_what_is_no_size_is_refused_with_the_reason(value, message):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (the message is compared below)
        parse_size(value)
    assert message in str(caught.value)
    assert len(str(caught.value)) < 250
