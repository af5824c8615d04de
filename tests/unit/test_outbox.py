import random

import pytest

from jobsched.outbox import SIZE, Outbox


@pytest.fixture
def ends():
    memory = memoryview(bytearray(SIZE))
    ends = Outbox(memory), Outbox(memory)
    yield ends
    for end in ends:
        end.close()


def test_what_is_put_is_taken_once(ends):
    worker, node = ends
    mark = [worker.put(thing) for thing in (b"a", b"bc", b"")][-1]
    assert node.mark == mark
    assert node.take(mark) == (3, b"abc")
    assert node.take(mark) == (0, b"")


def test_only_what_is_up_to_the_mark_is_taken(ends):
    worker, node = ends
    first, second = worker.put(b"one"), worker.put(b"two")
    assert node.take(first) == (1, b"one")
    assert node.take(second) == (1, b"two")
    assert node.take(first) == (0, b"")


def test_it_goes_round_for_ever(ends):
    worker, node = ends
    rng = random.Random(5)
    total = 0
    while total < 5 * SIZE:
        things = [rng.randbytes(rng.randrange(1, 200)) for _ in range(rng.randrange(1, 300))]
        mark = [worker.put(thing) for thing in things][-1]
        assert node.take(mark) == (len(things), b"".join(things))
        total += sum(map(len, things))


def test_its_counts_may_run_over(ends):
    worker, node = ends
    worker._put = node._taken = ((1 << 16) - 1) << 48 | ((1 << 48) - 2)
    assert node.take(worker.put(b"abcd")) == (1, b"abcd")
    assert node.take(worker.put(b"ef")) == (1, b"ef")


def test_a_mark_that_was_noted_a_look_ago_can_be_taken(ends):
    worker, node = ends
    mark = worker.put(b"x")
    assert node.take(node.note()) == (0, b"")
    worker.put(b"y")
    assert node.note() == mark
    assert node.take(mark) == (1, b"x")


@pytest.mark.parametrize("mark", [-1, 1 << 63, (1 << 32) - 1, SIZE])
def test_a_mark_that_cannot_be_takes_nothing(ends, mark):
    _, node = ends
    assert node.take(mark) == (0, b"")
