"""Turns as a busy node would make them, by chance that can be repeated."""

import random
from collections.abc import Sequence
from typing import Any

import msgspec

from jobsched.codec import encode_record
from jobsched.job import JobError, JobRecord, Limit, State, Terms
from jobsched.report import Decision
from jobsched.store import retention
from jobsched.store.base import Accepted, Claim, GiveBack, NewJob, Outcome, Request, Slot, Turn, TurnResult

CATEGORIES = ("mail", "reports", "thumbnails")
KINDS = ("dispatch", "run", "retention")
TASK = "tasks:work"

_SECOND = 1_000_000
_MOST_HELD = 40
_MOST_WAITING = 60
_SIZES = (10, 10, 40, 40, 100, 100, 300, 2500)  # bytes; what is over 2000 is split
_HAS_TERMS = "terms" in NewJob.__struct_fields__
_HAS_PRUNE = "prune" in Turn.__struct_fields__
_LARGE = (100, 500, 2500, 4500)


def added_by(turn: Turn, result: TurnResult) -> set[bytes]:
    """Return the jobs that a turn has added: those accepted for which no other one stands."""
    return {
        job.id
        for request, reply in zip(turn.requests, result.replies, strict=True)
        if isinstance(reply, Accepted)
        for place, job in enumerate(request.jobs)
        if place not in getattr(reply, "kept", {})
    }


def deleted_by(turn: Turn) -> set[bytes]:
    """Return the jobs that a turn is asked to delete."""
    return {job_id for request in turn.requests for job_id in getattr(request, "delete", ())}


class RandomTurns:
    """A load of a kind: `dispatch` only adds, `run` has all that happens to jobs, `retention` has
    much that is replaced and deleted. Ask for a turn, apply it, and have its result learnt.
    """

    def __init__(self, rng: random.Random, kind: str) -> None:
        self._rng = rng
        self._kind = kind
        self._now = 1_700_000_000 * _SECOND
        self._made = 0
        self._waiting: list[bytes] = []
        self._held: dict[int, Claim] = {}

    @property
    def now(self) -> int:
        """The time of the last turn."""
        return self._now

    def next(self) -> Turn:
        """Return the next turn."""
        rng = self._rng
        self._now += rng.randrange(_SECOND)
        if self._kind == "dispatch":
            return Turn(now=self._now, requests=self._requests(rng.randint(1, 4)))
        requests = self._requests(1) if len(self._waiting) < _MOST_WAITING and rng.random() < 0.7 else []
        ended = [claim for claim in self._held.values() if rng.random() < 0.5]
        back = [claim for claim in ended if rng.random() < 0.2]
        return Turn(
            now=self._now,
            requests=requests,
            outcomes=[self._outcome(claim) for claim in ended if claim not in back],
            give_back=[GiveBack(claim.job, claim.number, rng.random() < 0.3) for claim in back],
            decisions=[self._decision()] if rng.random() < 0.2 else [],
            release=rng.randrange(20),
            slots=self._slots(),
            **self._prune(),
        )

    def learn(self, turn: Turn, result: TurnResult) -> None:
        """Note what a turn has done."""
        for ended in (*turn.outcomes, *turn.give_back):
            self._held.pop(ended.claim, None)
        for request in turn.requests:
            self._waiting += [job.id for job in request.jobs]
        for claim in result.claims:
            self._held[claim.number] = claim
            if claim.job in self._waiting:
                self._waiting.remove(claim.job)

    def forget(self) -> None:
        """Hold nothing any more: the store was recovered. What waits is not known exactly then."""
        self._held.clear()

    def new_job(self, *, is_plain: bool = False) -> NewJob:
        """Return a job to add; a plain one is refused for nothing."""
        rng = self._rng
        self._made += 1
        job_id = (self._now << 40 | self._made << 20 | rng.randrange(1 << 20)).to_bytes(16, "big")
        category = rng.choice(CATEGORIES)
        priority = rng.choice((0, 0, 0, 5, -5))
        due_at = self._now + rng.randrange(5 * _SECOND) if rng.random() < 0.2 else 0
        record = JobRecord(
            id=job_id,
            task=TASK,
            category=category,
            priority=priority,
            dispatched_at=self._now,
            args=msgspec.Raw(msgspec.msgpack.encode([rng.randbytes(rng.choice(_SIZES))])),
            kwargs=msgspec.Raw(msgspec.msgpack.encode({})),
        )
        return NewJob(
            id=job_id,
            task=TASK,
            category=category,
            priority=priority,
            due_at=due_at,
            record=encode_record(record),
            **({} if is_plain else self._terms()),
        )

    def _requests(self, count: int) -> list[Request]:
        """Return requests that add, and sometimes one that changes what is there."""
        rng = self._rng
        adding = [
            Request(jobs=[self.new_job() for _ in range(rng.choice((1, 1, 2, 5)))]) for _ in range(count)
        ]
        changing = Request(
            cancel=rng.sample(self._waiting, 1) if self._waiting and rng.random() < 0.5 else [],
            resume=CATEGORIES if rng.random() < 0.5 else [],
            **self._further_changes(),
        )
        return [*adding, changing] if rng.random() < 0.4 else adding

    def _further_changes(self) -> dict[str, Any]:
        rng = self._rng
        paused = [rng.choice(CATEGORIES)] if rng.random() < 0.1 else []
        if not _HAS_TERMS:
            return {"pause": paused}
        until = self._now + rng.randrange(3 * _SECOND)
        some = rng.sample(self._waiting, min(2, len(self._waiting)))
        return {"pause": dict.fromkeys(paused, until), "retry": some[:1], "delete": some[1:]}

    def _terms(self) -> dict[str, Any]:
        """Return terms for some jobs: few keys, so that they meet; a limit; a time to start by."""
        rng = self._rng
        if not _HAS_TERMS or rng.random() < 0.6:
            return {}
        terms = Terms(
            at_most_once=rng.random() < 0.2,
            expires_at=self._now + rng.randrange(4 * _SECOND) if rng.random() < 0.2 else 0,
            unique=bytes((rng.randrange(40),)) * 16 if rng.random() < 0.5 else b"",
            limits=(Limit(bytes((rng.randrange(3),)) * 16, 2),) if rng.random() < 0.5 else (),
        )
        return {"terms": terms, "on_conflict": rng.choice(("keep", "refuse", "replace"))}

    def _prune(self) -> dict[str, Any]:
        """Delete some of what has ended, where a turn can."""
        if not _HAS_PRUNE or self._kind != "retention":
            return {}
        orders = [
            retention.Prune(
                state=state,
                before=self._now - 20 * _SECOND,
                keep=10,
                settled=self._now - 2 * _SECOND,
                limit=10,
            )
            for state in sorted(retention.PRUNABLE)
        ]
        return {"prune": orders}

    def _outcome(self, claim: Claim) -> Outcome:
        rng = self._rng
        states: Sequence[State] = (State.COMPLETED, State.COMPLETED, State.FAILED, State.PARKED)
        again = (State.SCHEDULED, State.PENDING)  # a retry; a crash
        retries = 0.7 if self._kind == "retention" else 0.3
        state = rng.choice(again if rng.random() < retries else states)
        sizes = _LARGE if self._kind == "retention" else _SIZES
        return Outcome(
            job=claim.job,
            claim=claim.number,
            state=state,
            started_at=self._now - rng.randrange(_SECOND),
            ended_at=self._now,
            result=rng.randbytes(rng.choice(sizes)) if state is State.COMPLETED else None,
            error=None if state is State.COMPLETED else JobError("failed", "x" * rng.choice(sizes)),
            due_at=self._now + rng.randrange(3 * _SECOND) if state is State.SCHEDULED else 0,
        )

    def _slots(self) -> list[Slot]:
        room = _MOST_HELD - len(self._held)
        return [Slot(category, 1, self._rng.randint(0, room // 6)) for category in CATEGORIES]

    def _decision(self) -> Decision:
        shares = {category: self._rng.randrange(9) for category in CATEGORIES}
        return Decision(
            at=self._now,
            budget=8,
            backlog=shares,
            before=shares,
            after=shares,
            ideal=dict.fromkeys(CATEGORIES, 0.5),
            reasons=dict.fromkeys(CATEGORIES, "by chance"),
        )
