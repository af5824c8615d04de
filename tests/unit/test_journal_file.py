"""The file of a journal: what was flushed is read, in order, and no more, whatever a power cut leaves."""

import os
import random
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobsched.journal import file
from jobsched.journal.file import (
    LENGTH,
    MOST_BYTES,
    START,
    create,
    journal_files,
    key_of,
    open_journal,
    packed,
    read_entries,
    write,
)
from jobsched.locks import is_locked

SECTOR = 512  # bytes that a disk writes whole or not at all
NAME = "5f" * 16
KEY = key_of(NAME)
BLANK = file._MAGIC.ljust(LENGTH, b"\0")


@pytest.fixture
def handle(tmp_path):
    """An empty journal."""
    path = tmp_path / f"{NAME}.journal"
    path.write_bytes(BLANK)
    handle = open_journal(path)
    yield handle
    os.close(handle)


def appended(handle, offset, *entries, key=KEY):
    """Write entries (number, body) one behind the other; return where the next one is."""
    data = b"".join(packed(key, number, number, body) for number, body in entries)
    write(handle, data, offset)
    return offset + len(data)


def read(handle, number=1, offset=START):
    return [(entry.number, entry.body) for entry in read_entries(handle, KEY, number, offset)]


# Reading.


def test_entries_are_read_in_order_with_their_times_and_ends(handle):
    end = appended(handle, START, (1, b"one"), (2, b""), (3, b"x" * MOST_BYTES))
    found = list(read_entries(handle, KEY, 1))
    assert [(entry.number, entry.at) for entry in found] == [(1, 1), (2, 2), (3, 3)]
    assert [entry.body for entry in found] == [b"one", b"", b"x" * MOST_BYTES]
    assert found[-1].end == end
    assert read(handle, 2) == [(2, b""), (3, b"x" * MOST_BYTES)]
    assert read(handle, 3, found[1].end) == [(3, b"x" * MOST_BYTES)]
    assert read(handle, 4, end) == read(handle, 4) == []


def test_an_empty_journal_has_no_entries(handle):
    assert read(handle) == []


@pytest.mark.parametrize("place", range(24 + 3))
def test_an_entry_with_any_byte_changed_is_none_and_ends_the_reading(handle, place):
    end = appended(handle, START, (1, b"one"))
    appended(handle, end, (2, b"two"))
    [byte] = os.pread(handle, 1, START + place)
    write(handle, bytes([byte ^ 0x10]), START + place)
    assert read(handle) == []
    assert read(handle, 2) == []  # nothing tells where it begins


def test_an_entry_that_would_pass_the_end_is_none(handle):
    data = packed(KEY, 1, 1, b"x" * 100)
    write(handle, data[:50], LENGTH - 50)
    assert read(handle, 1, LENGTH - 50) == []
    assert read(handle, 1, LENGTH - 5) == []


def test_an_entry_of_another_journal_is_none(handle):
    appended(handle, START, (1, b"one"), key=key_of("ab" * 16))
    assert read(handle) == []


# The client has gone back to the beginning.


def test_older_entries_of_equal_length_behind_the_last_one_are_not_read(handle):
    appended(handle, START, *((number, b"abc") for number in range(1, 11)))
    end = appended(handle, START, (11, b"abc"), (12, b"abc"))
    assert read(handle, 11) == [(11, b"abc"), (12, b"abc")]
    assert read(handle, 13, end) == []
    assert read(handle, 13) == []


def test_from_where_the_last_entry_ended_a_later_one_is_not_the_next(handle):
    """The client has gone back, and a later entry has come to lie just there."""
    end = appended(handle, START, (1, b"abc"), (2, b"abc"))
    appended(handle, START, (3, b"abc"), (4, b"abc"), (5, b"abc"))
    assert read(handle, 3, end) == []
    assert read(handle, 3) == [(3, b"abc"), (4, b"abc"), (5, b"abc")]


def test_arguments_that_look_like_the_next_entry_are_not_read_as_one(handle):
    """What lies behind the last entry is an older one's body: that is whatever a user has sent."""
    size = len(packed(KEY, 3, 1, b"abc"))
    guessed = packed(0, 4, 1, b"evil")
    appended(handle, START, (1, b"x" * (size - 24) + guessed + b"x" * 50), (2, b"abc"))
    appended(handle, START, (3, b"abc"))
    assert read(handle, 3) == [(3, b"abc")]


# Making one.


def test_a_new_journal_has_its_full_length_and_is_locked_and_private(tmp_path):
    name, handle = create(tmp_path / "journals")
    path = tmp_path / "journals" / f"{name}.journal"
    assert journal_files(tmp_path / "journals") == [path]
    assert path.stat().st_size == LENGTH
    assert path.stat().st_blocks * 512 >= LENGTH  # none of it is a hole
    assert path.stat().st_mode & 0o777 == 0o600
    assert is_locked(path)
    os.close(handle)
    assert not is_locked(path)


def test_where_there_are_no_journals_none_are_found(tmp_path):
    assert journal_files(tmp_path / "journals") == []


def test_what_is_no_journal_is_refused_and_left(tmp_path):
    path = tmp_path / "a.journal"
    path.write_bytes(b"something else")
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(ValueError, match="is no journal that this jobsched can read"):
        open_journal(path)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert path.read_bytes() == b"something else"


WITHIN_LIMIT = """
import resource, sys
from pathlib import Path
from jobsched.journal.file import LENGTH, create, journal_files, write
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
folder = Path(sys.argv[1])
try:
    name, handle = create(folder)
    write(handle, b"x" * 100, LENGTH - 50)
except OSError as error:
    print("refused", [file.name for file in folder.iterdir()])
"""


@pytest.mark.parametrize(
    ("limit", "left"), [(100_000, False), (LENGTH, True)], ids=["in the making", "in an append"]
)
def test_what_is_written_in_part_only_is_an_error(tmp_path, limit, left):
    """A limit, or a full disk under a file system that copies: a part is written, and no error told."""
    words = [sys.executable, "-c", WITHIN_LIMIT, str(tmp_path), str(limit)]
    said = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    assert said.startswith("refused")
    assert (".journal" in said) is left
    assert ".new" not in said
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


# Power cuts.


class Writer:
    """A client's side of a file in memory: what is flushed, and what is written and not flushed."""

    def __init__(self):
        self.flushed = bytearray(BLANK)
        self.number = 0
        self.offset = START
        self.pending = b""
        self.acknowledged = {}

    def write(self, bodies):
        """Begin an append; return whether there is room."""
        numbers = range(self.number + 1, self.number + 1 + len(bodies))
        self.entries = dict(zip(numbers, bodies, strict=True))
        self.pending = b"".join(packed(KEY, n, n, body) for n, body in self.entries.items())
        return self.offset + len(self.pending) <= LENGTH

    def flush(self):
        self.flushed[self.offset : self.offset + len(self.pending)] = self.pending
        self.offset += len(self.pending)
        self.acknowledged |= self.entries
        self.number += len(self.entries)
        self.pending = b""

    def after_cut(self, rng):
        """Return what a power cut may leave: of what is not flushed, any sectors."""
        wanted = bytearray(self.flushed)
        wanted[self.offset : self.offset + len(self.pending)] = self.pending
        image = bytearray(self.flushed)
        first, last = self.offset // SECTOR, (self.offset + len(self.pending)) // SECTOR
        for sector in range(first, last + 1):
            if rng.random() < 0.5:
                image[sector * SECTOR : (sector + 1) * SECTOR] = wanted[
                    sector * SECTOR : (sector + 1) * SECTOR
                ]
        return image


# Few lengths, so that entries of one lap and another meet.
bodies = st.integers(0, 255).flatmap(
    lambda fill: st.sampled_from([0, 8, 8, 8, 100, 488, 488, 1000, 3000]).map(
        lambda size: bytes([fill]) * size
    )
)
appends = st.lists(bodies, min_size=1, max_size=3)
steps = st.lists(st.tuples(appends, st.booleans()), min_size=1, max_size=25)


@given(steps=steps, last=appends, mark_back=st.integers(0, 9), seed=st.integers(0, 2**32))
@settings(deadline=None, max_examples=300, derandomize=True)
def test_after_a_power_cut_all_that_was_acknowledged_and_is_not_in_the_store_is_read(
    tmp_path_factory, steps, last, mark_back, seed
):
    """The store's mark lies somewhere behind the last time the client has gone back to the beginning."""
    writer = Writer()
    least = 0
    for entries, goes_back in steps:
        if goes_back:
            writer.offset, least = START, writer.number  # all of it is in the store
        assert writer.write(entries)
        writer.flush()
    assert writer.write(last)
    image = writer.after_cut(random.Random(seed))
    mark = max(least, writer.number - mark_back)
    path = Path("/dev/shm") if Path("/dev/shm").is_dir() else tmp_path_factory.getbasetemp()
    path = path / f"{os.getpid()}-{NAME}.journal"
    path.write_bytes(image)
    handle = open_journal(path)
    try:
        found = read(handle, mark + 1)
    finally:
        os.close(handle)
        path.unlink()
    promised = [(n, body) for n, body in writer.acknowledged.items() if n > mark]
    assert found[: len(promised)] == promised
    begun = [(writer.number + 1 + place, body) for place, body in enumerate(last)]
    assert found[len(promised) :] == begun[: len(found) - len(promised)]
