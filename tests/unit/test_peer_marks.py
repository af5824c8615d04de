import os

import pytest

from jobsched.bench.peers import marks
from jobsched.bench.peers.marks import MARKS, Marks, Start, drain_rate
from jobsched.bench.peers.rivals import OURS, PEERS, absence, chosen
from jobsched.errors import InvalidOption

SECOND = 1_000_000_000


@pytest.fixture
def seen(tmp_path, monkeypatch):
    """The marks of ten jobs, where `mark` writes in this process."""
    monkeypatch.setenv(MARKS, str(tmp_path / "marks"))
    marks._opened.cache_clear()
    opened = Marks(tmp_path / "marks", 10)
    yield opened
    opened.close()
    marks._opened.cache_clear()


def test_a_mark_says_when_by_whom_and_how_often(seen):
    assert seen.started(0, 10) == 0
    marks.mark(3)
    marks.mark(4)
    first = seen.starts(3, 1)[0]
    marks.mark(3)
    again = seen.starts(3, 1)[0]
    assert (first.worker, first.times) == (os.getpid(), 1)
    assert again == first._replace(times=2)
    assert seen.started(0, 10) == 2
    assert seen.started(4, 6) == 1
    assert (seen.workers(0, 10), seen.workers(5, 5)) == (1, 0)
    assert seen.starts(5, 1) == [Start(0, 0, 0)]


def test_marks_of_a_fork_are_seen(seen):
    child = os.fork()
    if child == 0:
        marks.mark(9)
        os._exit(0)
    os.waitpid(child, 0)
    assert seen.starts(9, 1)[0].worker == child


def starts(worker, *seconds):
    return [Start(int(at * SECOND), worker, 1) for at in seconds]


def test_the_rate_counts_from_when_every_worker_is_ready():
    early = starts(1, *(10 + number / 10 for number in range(21)))  # ten a second, until 12
    late = starts(2, *(11 + number / 10 for number in range(10)), 12)
    # After 11 s: ten of the first and ten of the second within a second.
    assert drain_rate(early + late) == pytest.approx(20)


def test_the_rate_counts_from_the_first_start_where_little_is_left_for_a_late_worker():
    early = starts(1, *(10 + number for number in range(10)))
    late = starts(2, 18.5)
    assert drain_rate(early + late) == pytest.approx(10 / 9)


def test_the_rate_of_one_worker_counts_from_its_first_start():
    assert drain_rate(starts(1, 5, 6, 7)) == pytest.approx(1)


def test_peers_are_chosen_by_the_beginnings_of_their_names():
    assert chosen([]) == list(PEERS)
    assert [peer.name for peer in chosen(["huey"])] == ["huey (redis)", "huey (sqlite)"]
    assert [peer.name for peer in chosen(["rq", "celery (redis)"])] == ["celery (redis)", "rq (redis)"]
    with pytest.raises(InvalidOption, match="unknown peer 'selery', did you mean 'celery'"):
        chosen(["selery"])


def test_what_is_not_installed_is_named_with_the_command_that_helps():
    peer = OURS._replace(packages=("no-such-package", "jobsched", "nor-this"))
    assert absence(peer) == "not installed: pip install no-such-package nor-this"
    assert absence(OURS) is None


def test_a_server_that_is_not_on_the_path_is_named(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    assert absence(OURS._replace(server="redis")) == "redis-server not on the PATH"
    assert absence(OURS._replace(server="postgres")) == "postgres and initdb not on the PATH"


def test_every_peer_has_two_workers_in_its_settings():
    for peer in (OURS, *PEERS):
        assert 0 < peer.share <= 1
        assert "two" in peer.settings
        assert peer.packages
