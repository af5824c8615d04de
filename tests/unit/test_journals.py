"""The node's journals, with the files, boards and locks of real clients, driven step by step."""

import os
import select
import signal
import time
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest

from jobsched import wire
from jobsched.config import parse_config
from jobsched.errors import NoRoom, StoreError
from jobsched.job import State, Terms
from jobsched.journal import file
from jobsched.journal.board import JournalBoard
from jobsched.journal.file import journal_files
from jobsched.journal.intake import take_in
from jobsched.journal.own import OwnJournal
from jobsched.journal.writer import Journal
from jobsched.journals import Journals
from jobsched.reception import Reception
from jobsched.store import lmdb
from jobsched.store.base import Accepted, NewJob, Query, Refused, Request, Turn
from jobsched.store.place import JOURNALS

CONFIG = """
tasks = ["m"]
store = "lmdb:store"
[categories.mail]
[categories.few]
max_pending = 3
"""
_numbers = count(1)


def new_job(category="mail", *, size=10, **changes):
    number = next(_numbers)
    return NewJob(number.to_bytes(16, "big"), "m:send", category, 0, 0, bytes(size), **changes)


class World:
    """A store with its node's journals."""

    def __init__(self, folder):
        self.config = parse_config(CONFIG, folder)
        self.place = self.config.store.path
        self.folder = self.place / JOURNALS
        self.store = lmdb.open_store(self.place)
        self.now = 0.0
        self.journals = None
        self.begin()

    def begin(self):
        """Begin a node's life."""
        reception = Reception(self.config)
        reception.tasks = ["m:send"]
        self.journals = Journals(self.config, reception)
        self.journals.open(self.store)

    def turn(self, *requests, is_behind=False):
        """Do what a node does in a turn, a second after the last one; return the replies."""
        self.now += 1
        self.journals.gather(self.now)
        asked = self.journals.request(self.now, is_behind=is_behind)
        requests = [*requests, *([asked] if asked else [])]
        turn = Turn(now=1, requests=requests, forget_journals=self.journals.forgotten())
        result = self.store.apply(turn)
        self.journals.learn(turn, result, self.store, self.now)
        return result.replies

    def ids(self):
        """Return the jobs in the store, in the order of their places."""
        found = [self.store.get(job.id) for job in self.store.find(Query(limit=200)).jobs]
        return [job.id for job in sorted(found, key=lambda job: job.status.sequence)]

    def names(self):
        return {path.name for path in self.folder.iterdir()} if self.folder.exists() else set()

    def close(self):
        self.journals.close()
        self.store.close()


def without_room(store):
    """Return how a store applies turns that has no room for any new job."""
    apply = store._apply

    def no_room(turn, refused):
        if any(place not in refused for place, request in enumerate(turn.requests) if request.jobs):
            raise NoRoom("the disk is full")
        return apply(turn, refused)

    return no_room


class Side:
    """A client: its connection, on both sides of it."""

    def __init__(self, world):
        self.world = world
        self.is_there = True
        self.is_told = []

    def send(self, message):
        self.is_told.append(message)

    def attach(self, journal):
        self.world.journals.attach(self, wire.Attach(len(self.is_told), journal))
        return self.is_told[-1]

    def is_silent(self):
        return self.is_there

    def hang_up(self):
        self.is_there = False
        self.world.journals.detach(self)


@pytest.fixture
def world(tmp_path):
    made = World(tmp_path)
    yield made
    made.close()


@pytest.fixture
def attached(world):
    """A function that makes a client with a journal; all are closed."""
    made = []

    def attach():
        side = Side(world)
        journal = Journal(world.folder)
        assert journal.attach(side)
        made.append(journal)
        return side, journal

    yield attach
    for journal in made:
        journal.let_go()


def append(journal, *jobs):
    assert journal.append([Request(jobs=jobs)])
    return [job.id for job in jobs]


# What goes in.


def test_what_clients_have_written_is_in_the_store_in_the_order_of_their_times(world, attached):
    (_, one), (_, other) = attached(), attached()
    ids = append(one, new_job(), new_job()) + append(other, new_job()) + append(one, new_job())
    world.turn()
    assert world.ids() == ids
    assert sorted(world.store.journals().values()) == [1, 2]


def test_an_entry_is_in_the_store_once_though_the_file_still_has_it(world, attached):
    _, journal = attached()
    ids = append(journal, new_job())
    world.turn()
    world.store.apply(Turn(now=1, requests=[Request(delete=ids)]))
    world.turn()
    world.journals.close()
    world.begin()
    world.turn()
    take_in(world.store, world.place, 1)
    assert world.ids() == []


def test_a_client_goes_back_to_the_beginning_once_all_is_in_the_store(world, attached):
    _, journal = attached()
    ids = []
    for _ in range(30):  # many times the length of the file
        ids += append(journal, new_job(size=40_000))
        world.turn()
    assert world.ids() == ids
    assert journal._offset < 50_000


def test_a_client_asks_the_node_where_its_journal_has_no_room(world, attached):
    _, journal = attached()
    ids = []
    while journal.append([Request(jobs=[job := new_job(size=40_000)])]):
        ids.append(job.id)
    assert len(ids) == 6
    assert not journal.append([Request(jobs=[new_job(size=70_000)])])
    world.turn()
    assert world.ids() == ids
    assert journal.append([Request(jobs=[new_job()])])


@pytest.mark.parametrize(
    "request_",
    [
        Request(jobs=[new_job("few")]),
        Request(jobs=[new_job("unknown")]),
        Request(jobs=[msgspec.structs.replace(new_job(), task="m:other")]),
        Request(jobs=[new_job(terms=Terms(unique=b"u" * 16))]),
        Request(jobs=[new_job()], max_pending={"mail": 3}),
        Request(jobs=[new_job()], takes_unknown=True),
        Request(cancel=[bytes(16)]),
        Request(),
    ],
    ids=["limited", "unknown category", "unknown task", "unique", "max_pending", "unsure", "cancel", "none"],
)
def test_what_a_node_might_refuse_goes_into_no_journal(attached, request_):
    _, journal = attached()
    assert journal.takes([Request(jobs=[new_job()])])
    assert not journal.takes([Request(jobs=[new_job()]), request_])


# The order.


def test_an_entry_that_came_while_others_were_read_waits_for_the_next_turn(world, attached, monkeypatch):
    """Another journal, which was read before, may hold an older one."""
    (_, one), (_, other) = attached(), attached()
    first = new_job()
    late = []
    read = world.journals._read

    def read_then_write(reader):
        read(reader)
        if not late:  # the first journal has been read: one entry comes there, and then one in the other
            late.extend(append(one if reader.name == one._name else other, new_job()))
            late.extend(append(other if reader.name == one._name else one, new_job()))

    append(one, first)
    append(other, second := new_job())
    monkeypatch.setattr(world.journals, "_read", read_then_write)
    world.turn()
    assert world.ids() == [first.id, second.id]
    world.turn()
    assert world.ids() == [first.id, second.id, *late]


def test_entries_of_another_boot_are_taken_in_though_their_times_are_to_come(world, attached, monkeypatch):
    """The clock starts again with the machine; a full store may have kept them waiting until then."""
    _, journal = attached()
    times = time.monotonic_ns() + 10**15
    monkeypatch.setattr("jobsched.journal.writer.time.monotonic_ns", lambda: times)
    ids = append(journal, new_job())
    monkeypatch.undo()
    world.turn()
    world.turn()
    assert world.ids() == ids
    assert world.journals.is_empty


def test_what_was_accepted_comes_in_over_the_quota_and_others_are_refused_then(world, attached):
    _, journal = attached()
    ids = append(journal, new_job(size=30_000))
    world.store._space._quota = 1
    refused, accepted = world.turn(Request(jobs=[new_job()]))
    assert (refused.kind, type(accepted)) == ("StoreFull", Accepted)
    assert world.ids() == ids
    assert not journal.takes([Request(jobs=[new_job()])])
    assert isinstance(world.turn(Request(jobs=[new_job()]))[0], Refused)
    assert not journal.takes([Request(jobs=[new_job()])])
    world.store._space._quota = 1 << 30
    world.turn(Request(jobs=[later := new_job()]))
    assert world.ids() == [*ids, later.id]
    assert journal.takes([Request(jobs=[new_job()])])


# Clients come and go.


def test_the_journal_of_a_client_that_is_gone_is_deleted_and_its_mark_forgotten(world, attached):
    side, journal = attached()
    ids = append(journal, new_job())
    world.turn()
    ids += append(journal, new_job())
    side.hang_up()
    journal.close()
    for _ in range(4):
        world.turn()
    assert world.ids() == ids
    assert journal_files(world.folder) == []
    assert world.store.journals() == {}


def test_a_client_that_comes_again_goes_on_with_its_journal(world, attached):
    side, journal = attached()
    ids = append(journal, new_job())
    world.turn()
    side.hang_up()
    world.turn()
    side = Side(world)
    assert journal.attach(side)
    ids += append(journal, new_job())
    world.turn()
    assert world.ids() == ids


def test_a_journal_is_read_where_the_client_was_dropped_and_does_not_know_it_yet(world, attached):
    side, journal = attached()
    world.journals.detach(side)
    ids = append(journal, new_job())
    world.turn()
    assert world.ids() == ids


def test_a_client_that_was_dropped_disturbs_no_other_one(world, attached):
    """Until it finds out it writes to the board: its slot is nobody else's."""
    dropped, late = attached()
    append(late, new_job())
    world.turn()
    world.journals.detach(dropped)
    world.turn()
    _, other = attached()
    late._board.set_written(late._slot, 1000)
    ids = append(other, new_job())
    world.turn()
    assert ids[0] in world.ids()
    for _ in range(300):
        world.journals.gather(world.now)
    assert {path.suffix for path in world.folder.iterdir()} == {".journal"}
    assert not other.is_given_up


def test_slots_are_free_again_once_their_clients_are_gone(world, attached):
    for _ in range(2 * 64 + 5):
        side, journal = attached()
        append(journal, new_job())
        side.hang_up()
        journal.close()
        world.turn()
        world.turn()
    assert len(world.ids()) == 133


def test_a_dispatch_during_which_the_node_went_is_asked_again(world, attached, monkeypatch):
    """A new node may have read all journals before it was written: later ones may be before it there."""
    side, journal = attached()
    flush = os.fdatasync

    def flush_late(handle):
        side.is_there = False
        flush(handle)

    monkeypatch.setattr("jobsched.journal.writer.os.fdatasync", flush_late)
    with pytest.raises(ConnectionResetError):
        journal.append([Request(jobs=[job := new_job()])])
    monkeypatch.undo()
    side.hang_up()
    side = Side(world)
    assert journal.attach(side)
    ids = append(journal, new_job())  # nothing of the first one is overwritten
    world.turn()
    assert world.ids() == [job.id, *ids]


@pytest.mark.parametrize("is_used", [False, True])
def test_a_fork_leaves_the_journal_to_the_parent(world, attached, is_used):
    _, journal = attached()
    ids = append(journal, new_job()) if is_used else []
    child = os.fork()
    if child == 0:
        os._exit(journal._handle >= 0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    ids += append(journal, new_job())
    world.journals.close()  # the node is killed: what counts is in the file
    take_in(world.store, world.place, 1)
    assert world.ids() == ids


def test_a_client_whose_journal_was_put_aside_makes_another(world, monkeypatch):
    """By a restore, while no node ran."""
    monkeypatch.setattr("jobsched.journal.own._WAITS_S", (0.0, 0.0))
    own = OwnJournal(world.place)
    side = Side(world)
    while not own.write(side, [Request(jobs=[new_job()])]):
        pass
    own.detach()
    world.journals.close()
    world.folder.rename(world.place / "aside")
    world.begin()
    side = Side(world)
    assert not own.write(side, [Request(jobs=[new_job()])])
    assert own.write(side, [Request(jobs=[job := new_job()])])
    world.turn()
    assert world.ids() == [job.id]
    own.close()


def test_a_journal_that_no_node_wants_is_not_left(world, monkeypatch):
    monkeypatch.setattr("jobsched.journal.own._WAITS_S", (0.0, 0.0))
    own = OwnJournal(world.place)
    with monkeypatch.context() as patch:
        patch.setattr(world.journals, "_may_attach", lambda *_: False)
        assert not any(own.write(Side(world), [Request(jobs=[new_job()])]) for _ in range(20))
    assert journal_files(world.folder) == []
    assert own.write(Side(world), [Request(jobs=[new_job()])])
    own.close()


def test_as_many_clients_are_heard_as_there_are_slots(world, attached):
    ids = []
    for _ in range(64):
        _, journal = attached()
        ids += append(journal, new_job())
        assert not world.journals.is_quiet()
        world.turn()
        assert world.journals.is_quiet()
    assert world.ids() == ids
    assert not Journal(world.folder).attach(Side(world))


def test_a_process_that_dispatches_seldom_has_no_journal(world):
    own = OwnJournal(world.place)
    side = Side(world)
    assert not any(own.write(side, [Request(jobs=[new_job()])]) for _ in range(7))
    assert journal_files(world.folder) == []
    assert own.write(side, [Request(jobs=[new_job()])])
    own.close()


# One node after another.


def test_the_next_node_goes_on_where_the_last_one_was_killed(world, attached):
    _, journal = attached()
    ids = append(journal, new_job())
    world.turn()
    ids += append(journal, new_job())
    world.journals.gather(world.now)  # read, and not in the store
    world.begin()
    world.turn()
    assert world.ids() == ids
    assert journal.attach(Side(world))
    ids += append(journal, new_job())
    world.turn()
    assert world.ids() == ids


def test_a_stop_closes_the_journals_and_takes_in_the_rest(world, attached):
    _, journal = attached()
    ids = append(journal, new_job())
    world.journals.shut()
    assert not journal.takes([Request(jobs=[new_job()])])
    world.journals.take_in_rest(world.store, 1)
    assert world.ids() == ids


def test_a_node_of_a_store_in_memory_leaves_the_journals_of_another_store(world, attached):
    """Both may lie at the same place: the default one."""
    _, journal = attached()
    ids = append(journal, new_job())
    journal.let_go()
    world.journals.close()
    other = Journals(world.config, Reception(world.config))
    other.take_in_rest(lmdb.open_store(world.place.with_name("other")), 1)
    take_in(world.store, world.place, 1)
    assert world.ids() == ids


def test_a_board_that_cannot_be_reached_or_is_another_nodes_gives_no_journal(world, attached):
    """As where the node runs in a container with process numbers of its own."""
    _, journal = attached()
    told = [JournalBoard.new(), JournalBoard.new()]
    answers = [
        wire.Attached(1, 0, "/proc/1/fd/999999", 5),
        wire.Attached(1, 0, told[0].path, told[1].token),
        wire.Attached(1, 0, __file__, 5),
    ]
    for answer in answers:
        assert not journal.attach(SimpleNamespace(attach=lambda _name, answer=answer: answer))
    assert journal.attach(Side(world)) is False  # it has a place already
    for board in told:
        board.close()


def test_a_client_wakes_a_node_that_sleeps_and_does_not_wait_where_others_rang_too_often(world, attached):
    _, journal = attached()
    bell = world.journals.bell
    world.journals.is_quiet()
    append(journal, new_job())
    assert select.select([bell], [], [], 0)[0] == [bell]
    bell.hear()
    world.turn()
    world.journals.is_quiet()
    assert select.select([bell], [], [], 0)[0] == []
    client = JournalBoard.opened(bell.path, bell.token)
    for _ in range(1 << 17):  # more than a pipe holds
        client.ring()
    world.turn()
    world.journals.is_quiet()
    append(journal, new_job())
    client.close()


def test_a_client_that_rings_for_a_node_that_is_gone_is_not_killed(world):
    board = JournalBoard.opened(world.journals.bell.path, world.journals.bell.token)
    world.journals.close()
    before = signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        board.ring()
    finally:
        signal.signal(signal.SIGPIPE, before)
        board.close()


def test_a_board_that_is_closed_rings_no_other_file(world):
    board = JournalBoard.opened(world.journals.bell.path, world.journals.bell.token)
    near, far = os.pipe2(os.O_NONBLOCK)
    handle = board.fileno()
    board.close()
    os.dup2(far, handle)
    with pytest.raises(OSError, match="Bad file descriptor"):
        board.ring()
    with pytest.raises(BlockingIOError):
        os.read(near, 1)
    for one in (near, far, handle):
        os.close(one)


def test_a_node_begins_without_room_for_a_board_and_takes_in_what_there_is(world, attached, monkeypatch):
    _, journal = attached()
    ids = append(journal, new_job())
    world.journals.close()

    def no_room():
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("jobsched.journals.JournalBoard.new", no_room)
    world.begin()
    assert not journal.attach(Side(world))
    assert not world.journals.is_quiet()
    world.turn()
    assert world.journals.is_quiet()
    assert world.ids() == ids


def test_what_clients_have_not_finished_making_is_deleted(world):
    left = world.folder / f"{'ab' * 16}.new"
    left.write_bytes(b"")
    world.begin()
    assert not left.exists()


def test_nothing_is_sure_to_be_accepted_that_was_refused_until_it_is(world, attached, monkeypatch):
    _, journal = attached()
    ids = append(journal, new_job(size=30_000))
    monkeypatch.setattr(world.store, "_apply", without_room(world.store))
    world.journals.gather(world.now)
    assert world.journals.sure(world.now) is not None
    world.turn()
    world.now += 10
    assert world.journals.sure(world.now) is None
    monkeypatch.undo()
    world.turn()
    assert world.ids() == ids
    append(journal, new_job())
    world.journals.gather(world.now)
    assert world.journals.sure(world.now) is not None


# Without a node.


def test_a_store_over_its_quota_takes_them_in(world, attached):
    _, journal = attached()
    ids = append(journal, new_job(size=30_000))
    journal.let_go()
    world.journals.close()
    world.store._space._quota = 1
    assert take_in(world.store, world.place, 1) is None
    assert world.ids() == ids
    assert journal_files(world.folder) == []


def test_a_store_with_no_room_at_all_leaves_them_as_they_are(world, attached, monkeypatch):
    _, journal = attached()
    ids = append(journal, new_job(size=30_000))
    journal.let_go()
    world.journals.close()
    monkeypatch.setattr(world.store, "_apply", without_room(world.store))
    assert take_in(world.store, world.place, 1).kind == "StoreFull"
    monkeypatch.undo()
    assert take_in(world.store, world.place, 1) is None
    assert world.ids() == ids
    assert journal_files(world.folder) == []


def test_what_a_node_has_taken_in_that_was_killed_before_it_noted_the_commit_is_known(
    world, attached, monkeypatch
):
    """LMDB shows readers the last commit but one then, until the next one begins to write."""
    _, journal = attached()
    append(journal, new_job())
    world.turn()
    before = world.store.journals()
    append(journal, new_job())
    world.journals.gather(world.now)
    world.store.apply(Turn(now=1, requests=[world.journals.request(world.now, is_behind=True)]))
    append(journal, new_job())
    apply, is_behind = world.store.apply, [True]

    def heal(turn):
        is_behind.clear()
        return apply(turn)

    journals = world.store.journals
    monkeypatch.setattr(world.store, "apply", heal)
    monkeypatch.setattr(world.store, "journals", lambda: before if is_behind else journals())
    assert take_in(world.store, world.place, 1) is None
    assert len(world.ids()) == 3


def test_a_journal_that_cannot_be_opened_now_is_not_set_aside(world, attached, monkeypatch):
    """A process that has as many files open as it may have knows nothing about a journal."""
    _, journal = attached()
    ids = append(journal, new_job())

    def too_many(path):
        raise OSError(24, "Too many open files", str(path))

    with monkeypatch.context() as patch:
        patch.setattr("jobsched.journal.reader.file.open_journal", too_many)
        with pytest.raises(StoreError, match="Too many open files"):
            take_in(world.store, world.place, 1)
    take_in(world.store, world.place, 1)
    assert world.ids() == ids


@pytest.mark.parametrize("with_node", [True, False])
def test_what_is_no_journal_is_set_aside(world, attached, with_node):
    _, journal = attached()
    ids = append(journal, new_job())
    journal.let_go()
    bad = world.folder / f"{'ab' * 16}.journal"
    bad.write_bytes(b"something else")
    world.journals.close()
    if with_node:
        world.begin()
        world.turn()
    else:
        take_in(world.store, world.place, 1)
    assert world.ids() == ids
    assert bad.with_suffix(".unreadable").read_bytes() == b"something else"


@pytest.mark.parametrize("with_node", [True, False])
def test_entries_before_one_that_holds_no_jobs_are_taken_in_and_the_file_is_kept(world, attached, with_node):
    _, journal = attached()
    ids = append(journal, new_job(), new_job())
    entry = file.packed(journal._key, 2, time.monotonic_ns(), b"\xc1")
    file.write(journal._handle, entry, journal._offset)
    journal.let_go()
    world.journals.close()
    if with_node:
        world.begin()
    for _ in range(4):
        if with_node:
            world.turn()
        else:
            take_in(world.store, world.place, 1)
    assert world.ids() == ids
    assert [path.suffix for path in world.folder.iterdir()] == [".unreadable"]


@pytest.mark.parametrize("with_node", [True, False])
def test_a_journal_whose_mark_is_damaged_or_too_old_is_set_aside_and_the_others_are_not(
    world, attached, with_node
):
    _, journal = attached()
    append(journal, new_job())
    world.turn()
    append(journal, new_job())  # from the beginning again
    _, other = attached()
    ids = append(other, new_job())
    journal.let_go()
    world.journals.close()
    with world.store._env.begin(write=True) as txn:
        txn.put(journal._name.encode(), b"damaged", db=world.store._dbs.journals)
    if with_node:
        world.begin()
        world.turn()
    else:
        assert take_in(world.store, world.place, 1) is None
    assert world.ids()[1:] == ids
    assert (world.folder / f"{journal._name}.unreadable").exists()


def test_a_journal_whose_client_says_more_than_there_is_is_given_up_without_loss(world, attached):
    _, journal = attached()
    ids = append(journal, new_job())
    journal._board.set_written(journal._slot, 5)
    for _ in range(300):
        world.journals.gather(world.now)
    assert not journal.is_given_up  # what could be read is not in the store yet
    world.turn()
    assert world.ids() == ids
    for _ in range(300):
        world.journals.gather(world.now)
    assert journal.is_given_up
    assert Path(world.folder / f"{journal._name}.unreadable").exists()


def test_a_failing_store_loses_nothing(world, attached, monkeypatch):
    _, journal = attached()
    ids = append(journal, new_job())

    def failing(_turn):
        raise NoRoom("no")

    with monkeypatch.context() as patch:
        patch.setattr(world.store, "apply", failing)
        with pytest.raises(NoRoom):
            world.turn()
    ids += append(journal, new_job())
    world.turn()
    assert world.ids() == ids
    assert world.store.stats()["mail"][State.PENDING] == 2
