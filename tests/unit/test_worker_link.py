import contextlib
import os
import signal
import socket
from pathlib import Path

import msgspec
import pytest

from jobsched import wire
from jobsched.channel import Channel
from jobsched.errors import WireError
from jobsched.job import State
from jobsched.store.base import Accepted, Claim, GiveBack, Outcome
from jobsched.worker import Worker
from jobsched.worker_link import Held, WorkerLink

NOW = 100.0


class FarEnd:
    """The worker at the far ends of a link, played by the test."""

    def __init__(self, link: WorkerLink) -> None:
        self.socket = socket.socket(fileno=os.dup(link.far_end.fileno()))
        self.tokens = os.dup(link.far_tokens)
        self._channel = Channel(self.socket)
        self._outbox = link.board.outbox
        link.let_go_of_far_ends()

    def take_token(self) -> int | None:
        """Return the generation on the next token; None when no more will come."""
        token = os.read(self.tokens, 1)
        return token[0] if token else None

    def hear(self) -> Channel:
        """Return the worker's own view, after reading all that has been sent."""
        self.socket.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                self._channel.receive()
        self.socket.setblocking(True)
        return self._channel

    def claims(self) -> list[int]:
        return [claim.number for claim in self.hear().claims]

    def finish(self, number: int, *, tells: bool = True) -> Outcome:
        """Put the outcome of a claim into the outbox, and tell of it."""
        outcome = Outcome(job_id(number), number, State.COMPLETED, 1, 2)
        mark = self._outbox.put(msgspec.msgpack.encode(outcome))
        if tells:
            self.say(wire.Filled(mark))
        return outcome

    def finish_long(self, number: int) -> Outcome:
        """Send the outcome of a claim that is too long for the outbox."""
        outcome = Outcome(job_id(number), number, State.COMPLETED, 1, 2, b"x" * 100_000)
        self.say(wire.Filled(self._outbox.put(b"\xc0")))
        self.say(wire.Done(outcome))
        return outcome

    def say(self, message: msgspec.Struct) -> None:
        self.socket.sendall(wire.frame(message))

    def die(self) -> None:
        self.socket.close()
        with contextlib.suppress(OSError):
            os.close(self.tokens)


@pytest.fixture
def blocked():
    """The links that have told that something waits."""
    return []


@pytest.fixture
def link(blocked):
    link = WorkerLink(7, "mail", NOW, blocked.append)
    yield link
    if link.fileno() >= 0:
        link.close()


@pytest.fixture
def worker(link):
    worker = FarEnd(link)
    yield worker
    worker.die()


def job_id(number: int) -> bytes:
    return number.to_bytes(16, "big")


def claims(*numbers: int, size: int = 10) -> list[Claim]:
    return [Claim(number, 7, 1, job_id(number), bytes(size)) for number in numbers]


def given_back(*numbers: int) -> list[GiveBack]:
    return [GiveBack(job_id(number), number) for number in numbers]


def held(link: WorkerLink) -> list[int]:
    return [one.claim for one in link.held]


# Handing out.


def test_a_hand_out_is_work_and_one_token_for_each_job(link, worker):
    link.hand_out(claims(1, 2, 3), "mail", NOW + 1)
    assert worker.claims() == held(link) == [1, 2, 3]
    assert [worker.take_token() for _ in range(3)] == [0, 0, 0]
    assert (link.serving, link.progress_at) == ("mail", NOW + 1)
    link.dismiss()
    assert worker.take_token() is None


def test_more_for_a_busy_worker_queues_behind_and_is_no_progress(link, worker):
    link.hand_out(claims(1), "mail", NOW + 1)
    link.hand_out(claims(2, 3), "mail", NOW + 5)
    assert worker.claims() == held(link) == [1, 2, 3]
    assert link.progress_at == NOW + 1


def test_big_jobs_come_in_several_frames(link, worker):
    link.hand_out(claims(*range(5), size=400_000), "mail", NOW)
    arrived: list[int] = []
    while link.has_unsent:
        link.flush()
        arrived = worker.claims()
    assert (arrived or worker.claims()) == [0, 1, 2, 3, 4]
    assert [worker.take_token() for _ in range(5)] == [0] * 5


def test_a_worker_is_idle_when_it_is_up_holds_nothing_and_stays(link, worker):
    assert not link.is_idle
    link.is_ready = True
    assert link.is_idle
    link.hand_out(claims(1), "mail", NOW)
    assert not link.is_idle
    link.held.clear()
    link.dismiss()
    assert not link.is_idle


# Taking back.


@pytest.mark.parametrize("taken", range(4))
def test_what_has_not_started_can_be_taken_back_and_nothing_else(link, worker, taken):
    link.hand_out(claims(1, 2, 3), "mail", NOW)
    for _ in range(taken):
        worker.take_token()
    assert link.revoke() == given_back(*range(taken + 1, 4))
    assert held(link) == worker.claims() == [1, 2, 3][:taken]
    assert link.revoke() == []


def test_a_finished_job_is_not_taken_back_even_before_its_outcome_is_read(link, worker):
    link.hand_out(claims(1, 2, 3), "mail", NOW)
    worker.take_token()
    done = worker.finish(1)
    worker.take_token()
    assert link.revoke() == given_back(3)
    assert held(link) == [1, 2]
    assert link.receive() == []
    assert list(link.ended()) == [done]


def test_tokens_after_a_revocation_carry_the_next_generation(link, worker):
    for generation in range(300):
        link.hand_out(claims(2 * generation, 2 * generation + 1), "mail", NOW)
        assert worker.take_token() == generation % 256
        assert len(link.revoke()) == 1
        assert worker.hear().generation == (generation + 1) % 256
        worker.hear().claims.clear()
        link.held.clear()


def test_a_revocation_of_nothing_says_nothing(link, worker):
    assert link.revoke() == []
    link.hand_out(claims(1), "mail", NOW)
    worker.take_token()
    assert link.revoke() == []
    assert worker.hear().generation == 0


def test_revoked_jobs_and_new_ones_do_not_mix(link, worker):
    link.hand_out(claims(1, 2, 3), "mail", NOW)
    assert worker.take_token() == 0
    assert link.revoke() == given_back(2, 3)
    link.hand_out(claims(4, 5), "mail", NOW)
    assert [worker.take_token(), worker.take_token()] == [1, 1]
    assert worker.claims() == held(link) == [1, 4, 5]


def test_what_is_unstarted_can_be_taken_back_from_a_worker_that_leaves(link, worker):
    link.hand_out(claims(1, 2), "mail", NOW)
    worker.take_token()
    link.dismiss()
    link.dismiss()
    assert link.revoke() == given_back(2)


@pytest.fixture
def alarm():
    """Keeps the handlers that a worker replaces."""
    before = {number: signal.getsignal(number) for number in (signal.SIGALRM, signal.SIGUSR1)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_taken_token_is_worth_a_job_even_when_the_rest_is_revoked_before_it_is_read(link, worker, alarm):
    # A worker takes the token first and reads its socket after: it may find `Work` and `Drop` there.
    taken, give = os.pipe()
    link.hand_out(claims(1, 2), "mail", NOW)
    os.write(give, os.read(worker.tokens, 1))
    os.close(give)
    assert link.revoke() == given_back(2)
    worker.socket.settimeout(0.2)
    with os.fdopen(taken), contextlib.suppress(TimeoutError):
        Worker(Channel(worker.socket), taken, link.board, {}).run()
    assert [type(message) for message in link.receive()] == [wire.Ready]
    assert [outcome.claim for outcome in link.ended()] == [1]


def test_a_worker_that_leaves_has_told_of_all_that_has_ended(link, worker, alarm):
    # It may take its time to leave, and believes to hold a job of which it has not read that it is revoked.
    taken, give = os.pipe()
    link.hand_out(claims(1, 2, 3), "mail", NOW)
    os.write(give, os.read(worker.tokens, 2))
    os.close(give)
    with os.fdopen(taken):
        Worker(Channel(worker.socket), taken, link.board, {}).run()
    link.receive()
    assert [outcome.claim for outcome in link.ended()] == [1, 2]


def test_an_answer_that_nobody_waits_for_any_more_is_not_kept(link, worker):
    channel = Channel(worker.socket)
    with pytest.raises(TimeoutError):
        channel._look(job_id(1), 0.0, ended=True)  # the time is up
    (look,) = link.receive()
    link.send(wire.Seen(look.number, None))
    channel.receive()
    assert channel._answers == {}


# After a death.


@pytest.mark.parametrize(
    ("taken", "finished", "left"),
    [
        (0, 0, (None, given_back(1, 2, 3))),
        (1, 0, (Held(job_id(1), 1), given_back(2, 3))),
        (1, 1, (None, given_back(2, 3))),
        (2, 1, (Held(job_id(2), 2), given_back(3))),
        (2, 0, (Held(job_id(1), 1), given_back(2, 3))),  # it was killed before it put them there
        (3, 2, (Held(job_id(3), 3), [])),
        (3, 3, (None, [])),
    ],
)
def test_after_a_death_the_running_job_is_told_from_the_unstarted(link, worker, taken, finished, left):
    link.hand_out(claims(1, 2, 3), "mail", NOW)
    for number in range(1, taken + 1):
        worker.take_token()
        if number <= finished:
            worker.finish(number, tells=False)
    worker.die()
    link.receive_rest()
    for _ in link.ended():
        link.held.popleft()
    assert link.fall() == left


def test_a_death_between_revocation_and_new_work_charges_the_right_job(link, worker):
    link.hand_out(claims(1, 2, 3), "mail", NOW)
    worker.take_token()
    link.revoke()
    link.hand_out(claims(4, 5), "mail", NOW)
    worker.finish(1)
    worker.take_token()
    worker.die()
    link.receive_rest()
    for _ in link.ended():
        link.held.popleft()
    assert link.fall() == (Held(job_id(4), 4), given_back(5))


def test_work_for_a_dead_worker_comes_back_unstarted(link, worker):
    worker.die()
    link.hand_out(claims(1, 2), "mail", NOW)
    assert link.revoke() == given_back(1, 2)
    link.hand_out(claims(3), "mail", NOW)
    assert link.fall() == (None, given_back(3))


# Messages.


def test_what_the_worker_says_is_heard_and_its_end_too(link, worker):
    assert link.receive() == []
    worker.socket.sendall(wire.frame(wire.Ready(5)) + wire.frame(wire.Look(1, b"i" * 16)))
    assert link.receive() == [wire.Ready(5), wire.Look(1, b"i" * 16)]
    worker.die()
    with pytest.raises(ConnectionResetError):
        link.receive()


def test_a_message_cut_short_by_a_death_is_no_message(link, worker):
    worker.finish(1)
    worker.socket.sendall(wire.frame(wire.Ready(5))[:-1])
    worker.die()
    assert link.receive_rest() == []
    assert len(list(link.ended())) == 1


def test_a_death_with_unread_work_loses_no_outcome(link, worker):
    link.send(wire.Work(claims(1)))
    done = worker.finish(1)
    worker.die()
    assert link.receive_rest() == []
    assert list(link.ended()) == [done]


def test_outcomes_keep_their_order_however_long_they_are(link, worker):
    done = [worker.finish(1), worker.finish_long(2), worker.finish(3), worker.finish_long(4)]
    found = []
    while len(found) < len(done):
        assert link.receive() == []
        found += link.ended()
    assert found == done


def test_an_outcome_that_nobody_told_of_is_taken_at_the_second_look(link, worker):
    done = [worker.finish(number, tells=False) for number in (1, 2)]
    link.look()
    assert list(link.ended()) == []
    worker.finish(3, tells=False)
    link.look()
    assert list(link.ended()) == done


def test_a_mark_that_was_overtaken_by_a_look_is_ignored(link, worker):
    worker.finish(1)
    link.look()
    link.look()
    assert len(list(link.ended())) == 1
    assert link.receive() == []
    assert list(link.ended()) == []


def test_an_outcome_that_the_outbox_does_not_announce_is_refused(link, worker):
    worker.say(wire.Done(Outcome(job_id(1), 1, State.COMPLETED, 1, 2)))
    with pytest.raises(WireError, match="worker 7 sent an outcome that its outbox does not announce"):
        link.receive()


def test_what_is_no_outcome_in_the_outbox_names_the_worker(link, worker):
    worker.say(wire.Filled(link.board.outbox.put(b"\x93\x01\x02\x03")))
    with pytest.raises(WireError, match="worker 7 put what is no outcome into its outbox"):
        link.receive()


def test_what_is_nested_without_end_in_the_outbox_names_the_worker(link, worker):
    outcome = msgspec.msgpack.encode(Outcome(job_id(1), 1, State.COMPLETED, 1, 2))
    longer = bytes((outcome[0] + 1,)) + outcome[1:]  # by a field more than there are
    worker.say(wire.Filled(link.board.outbox.put(longer + b"\x91" * 50_000)))
    with pytest.raises(WireError, match="worker 7 put what is no outcome into its outbox"):
        link.receive()


@pytest.mark.parametrize("body", [b"", b"\xc1", msgspec.msgpack.encode(["Work", []]), b"\x93\x01\x02\x03"])
def test_what_is_no_message_names_the_worker(link, worker, body):
    worker.socket.sendall(len(body).to_bytes(4, "big") + body)
    with pytest.raises(WireError, match="worker 7 sent what is no message"):
        link.receive()


def test_what_does_not_fit_at_once_is_told_and_sent_later(link, worker, blocked):
    answers = [wire.Answer(number, Accepted([None] * 1000)) for number in range(500)]
    for answer in answers:
        link.send(answer)
    assert link.has_unsent
    assert set(blocked) == {link}
    reader = wire.FrameReader()
    arrived: list[bytes] = []
    while len(arrived) < len(answers):
        arrived += reader.feed(worker.socket.recv(1 << 16))
        link.flush()
    assert not link.has_unsent
    assert [msgspec.msgpack.decode(body, type=wire.ToWorker) for body in arrived] == answers


def test_what_fits_at_once_is_not_told(link, worker, blocked):
    link.send(wire.Answer(1, Accepted()))
    assert (link.has_unsent, blocked) == (False, [])


def test_sending_to_a_dead_worker_is_harmless(link, worker):
    worker.die()
    link.send(wire.Answer(1, Accepted()))
    assert not link.has_unsent


def test_an_answer_to_a_worker_that_was_buried_meanwhile_is_harmless(link, worker):
    link.close()
    link.send(wire.Answer(1, Accepted()))
    assert not link.has_unsent


def test_a_closed_link_leaves_no_descriptor_behind():
    before = sorted(Path("/proc/self/fd").iterdir())
    link = WorkerLink(7, "mail", NOW, lambda _: None)
    link.let_go_of_far_ends()
    link.close()
    assert sorted(Path("/proc/self/fd").iterdir()) == before
