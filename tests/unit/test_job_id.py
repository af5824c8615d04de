import os
import threading
import time
import uuid

import pytest

from jobsched.job_id import format_id, new_id, new_ids, parse_id, part_of_id


def test_an_id_is_a_uuid_of_version_7_with_the_time_in_front():
    before = time.time_ns() // 1_000_000
    made = uuid.UUID(bytes=new_id())
    assert made.version == 7
    assert made.variant == uuid.RFC_4122
    assert made.int >> 80 >= before


def test_ids_grow_within_a_millisecond():
    made = [new_id() for _ in range(5000)]
    assert made == sorted(set(made))


def test_ids_grow_while_the_clock_stands_still_or_steps_back(monkeypatch):
    first = new_id()
    now = time.time_ns()
    moments = iter([now, now, now - 3600 * 10**9, 0, now])
    monkeypatch.setattr("jobsched.job_id.time.time_ns", lambda: next(moments))
    made = [first, *(new_id() for _ in range(5))]
    assert made == sorted(set(made))


def test_each_thread_sees_its_ids_grow_and_none_twice():
    made: list[list[bytes]] = [[] for _ in range(8)]
    start = threading.Barrier(8)

    def make(own: list[bytes]) -> None:
        start.wait()
        own += [new_id() for _ in range(500)]

    threads = [threading.Thread(target=make, args=(own,)) for own in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(own == sorted(own) for own in made)
    assert len({job_id for own in made for job_id in own}) == 8 * 500


def test_parent_and_child_of_a_fork_draw_different_randoms():
    new_id()  # which draws some ahead
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(writer, b"".join(new_id() for _ in range(50)))
        os._exit(0)
    own = {new_id()[8:] for _ in range(50)}
    os.waitpid(pid, 0)
    theirs = os.read(reader, 4096)
    os.close(reader)
    os.close(writer)
    assert len(theirs) == 50 * 16
    assert not own & {theirs[at + 8 : at + 16] for at in range(0, len(theirs), 16)}


def test_the_text_form_sorts_like_the_bytes_and_reads_back():
    made = [new_id() for _ in range(100)]
    texts = [format_id(job_id) for job_id in made]
    assert texts == sorted(texts)
    assert [parse_id(text) for text in texts] == made


@pytest.mark.parametrize("text", ["", "0198", "z" * 32, "0" * 31, "0" * 33])
def test_what_is_no_id_is_refused(text):
    with pytest.raises(ValueError, match=r"hexadecimal|invalid literal"):
        parse_id(text)


@pytest.mark.parametrize(
    ("text", "digits"),
    [("0198e0", "0198e0"), ("0198E0A0-00", "0198e0a000"), ("-abc-def-", "abcdef"), ("f" * 32, "f" * 32)],
)
def test_a_part_of_an_id_is_its_digits(text, digits):
    assert part_of_id(text) == digits


@pytest.mark.parametrize(
    "text", ["", "01234", "0-1-2-3-4", "0123456g", "012345 ", "\N{FULLWIDTH DIGIT ONE}" * 6]
)
def test_too_few_digits_or_other_characters_are_no_part_of_an_id(text):
    with pytest.raises(ValueError, match="is no part of a job id"):
        part_of_id(text)


@pytest.mark.parametrize("count", [0, 1, 2, 4096, 10_000])
def test_many_ids_grow_between_those_made_before_and_after(count):
    before = new_id()
    made = new_ids(count)
    after = new_id()
    assert len(made) == count
    assert [before, *made, after] == sorted({before, *made, after})
    parsed = [uuid.UUID(bytes=job_id) for job_id in made]
    assert {(one.version, one.variant) for one in parsed} <= {(7, uuid.RFC_4122)}


def test_the_random_part_of_many_ids_is_random_in_each_bit():
    lower = [int.from_bytes(job_id[8:], "big") for job_id in new_ids(2000)]
    assert len(set(lower)) == 2000
    assert [sum(half >> bit & 1 for half in lower) for bit in (63, 62)] == [2000, 0]
    assert all(700 < sum(half >> bit & 1 for half in lower) < 1300 for bit in range(62))


def test_many_ids_of_many_threads_are_all_different():
    made: list[list[bytes]] = []
    threads = [threading.Thread(target=lambda: made.append(new_ids(3000))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({job_id[:8] for own in made for job_id in own}) == 8 * 3000
