"""Flips single bits anywhere in copies of a store, and works off what is left of each.

`python bit_flip_pages.py BASE FOLDER SEED COUNT SKIP`. A process of its own: a damaged store may end
whoever opens it, or never let it go.
"""

import json
import random
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import lmdb as engine
from invariants import read_environment, read_store
from lmdb import verify
from random_turns import CATEGORIES, RandomTurns

from jobsched.codec import BadRecord, decode_arguments, decode_record
from jobsched.errors import JobschedError
from jobsched.job import JobError, State
from jobsched.store.base import Claim, Outcome, Request, Slot, Turn
from jobsched.store.lmdb import LmdbStore, open_store

_TURNS = 60
_LATER = 1 << 52
_MOST_TURNS = 200
_PATIENCE_S = 20


def build(path: Path, seed: int) -> None:
    """Make the store of which the copies are made: it has jobs of all states, and free pages."""
    load = RandomTurns(random.Random(seed), "run")
    store = open_store(path)
    for _ in range(_TURNS):
        turn = load.next()
        load.learn(turn, store.apply(turn))
    more = RandomTurns(random.Random(seed + 1), "dispatch")
    for _ in range(10):
        store.apply(more.next())
    store.close()


class Trial:
    """One copy with one bit flipped."""

    def __init__(self, folder: Path, records: dict[bytes, bytes]) -> None:
        self._folder = folder
        self._records = records
        self.found: set[str] = set()
        self.altered: list[str] = []
        self.ran: set[bytes] = set()

    def run(self, data: bytes) -> None:
        """Look at the file's structure, open the store and run its jobs, as far as that goes."""
        (self._folder / "lock.mdb").unlink(missing_ok=True)
        (self._folder / "data.mdb").write_bytes(data)
        try:
            if verify.verify(str(self._folder / "data.mdb")):
                self.found.add("found by verify")
        except Exception:  # noqa: BLE001 (it says so in its way)
            self.found.add("found by verify")
        try:
            store = open_store(self._folder)
        except Exception as error:  # noqa: BLE001 (what it is, is noted)
            self._note("refused at the opening", error)
            return
        try:
            self._work(store)
        except Exception as error:  # noqa: BLE001 (what it is, is noted)
            self._note("failed in use", error)
        finally:
            store.close()

    def _note(self, when: str, error: Exception) -> None:
        is_ours = isinstance(error, JobschedError)
        self.found.add(when if is_ours else f"{when} with a {type(error).__name__}")

    def _work(self, store: LmdbStore) -> None:
        store.recover(_LATER)
        slots = [Slot(category, 1, 40) for category in CATEGORIES]
        outcomes: list[Outcome] = []
        for place in range(_MOST_TURNS):
            resume = [Request(resume=CATEGORIES)] if not place else []
            turn = Turn(now=_LATER, requests=resume, outcomes=outcomes, release=100, slots=slots)
            claims = store.apply(turn).claims
            if not claims and not outcomes:
                break
            outcomes = [self._outcome(claim) for claim in claims]
        else:
            self.found.add("never worked off")
        try:
            statuses = read_environment(store._env).statuses()
        except (engine.Error, UnicodeDecodeError):
            self.found.add("failed in use")
            return
        if any(status is None or status.state is State.PARKED for status in statuses.values()):
            self.found.add("parked or unreadable")

    def _outcome(self, claim: Claim) -> Outcome:
        """Do what a worker does with a claim up to calling the task."""
        state, error = State.COMPLETED, None
        try:
            decode_arguments(decode_record(claim.record))
        except BadRecord as problem:
            state, error = State.PARKED, JobError(str(problem))
        else:
            if self._records.get(claim.job) != claim.record:
                self.altered.append(claim.job.hex())
            if claim.job in self.ran:
                self.found.add("run twice")
            self.ran.add(claim.job)
        return Outcome(claim.job, claim.number, state, _LATER, _LATER, None, error)


def flips(base: Path, seed: int, count: int) -> Iterator[tuple[int, bytes]]:
    """Yield copies of a store's file with one bit flipped each, and its number."""
    data = bytearray((base / "data.mdb").read_bytes())
    rng = random.Random(seed)
    for place in [rng.randrange(len(data) * 8) for _ in range(count)]:
        data[place // 8] ^= 1 << place % 8
        yield place, bytes(data)
        data[place // 8] ^= 1 << place % 8


def main(base: Path, folder: Path, seed: int, count: int, skip: int) -> None:
    contents = read_store(base)
    records = {job: contents.record(job) or b"" for job in contents.rows("statuses")}
    sound = Trial(folder, records)
    sound.run((base / "data.mdb").read_bytes())
    for number, (place, data) in enumerate(flips(base, seed, count)):
        if number < skip:
            continue
        print(json.dumps({"try": place}), flush=True)
        signal.alarm(_PATIENCE_S)
        trial = Trial(folder, records)
        trial.run(data)
        signal.alarm(0)
        if sound.ran - trial.ran:
            trial.found.add("not all other jobs run")
        found = sorted(trial.found - sound.found) or ["harmless"]
        print(json.dumps({"result": {"found": found, "altered": trial.altered}}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), *map(int, sys.argv[3:6]))
