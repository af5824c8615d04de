"""A store, and a client without a node, whose writes fail.

`python write_error_work.py FOLDER SEED FAULTS PART PARTS`, preloaded with fail_writes.c. Of the faults,
numbered from 0, every PARTS-th from PART on is tried on stores of its own. Prints a JSON line for each.
"""

import dataclasses
import json
import os
import random
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from faults import DATA, Fault, Faults, all_faults
from invariants import problems, read_environment
from random_turns import RandomTurns, added_by, deleted_by

from jobsched import Dispatcher
from jobsched.errors import CommitUnknown, JobschedError, NotCommitted, StoreError, StoreFull
from jobsched.job import State
from jobsched.job_id import parse_id
from jobsched.store.base import Turn, TurnResult
from jobsched.store.lmdb import LmdbStore, open_store

_MOST_TURNS = 60
_TURNS_AFTER = 3
_TRIES = 20
_KINDS = len(all_faults(0))

_CONFIG = """
store = "lmdb:{store}"
tasks = ["tasks"]
[categories.mail]
"""


@dataclasses.dataclass
class Trial:
    """One fault, and what came of it."""

    fault: Fault
    faults: Faults
    wrong: list[str] = dataclasses.field(default_factory=list)
    raised: list[str] = dataclasses.field(default_factory=list)
    unborn: bool = False
    """It struck the creation of the store, which cannot be opened since. Nothing was promised yet."""

    def note(self, error: BaseException) -> None:
        """Note an error: only ours may come out."""
        self.raised.append(type(error).__name__)
        if not isinstance(error, JobschedError):
            self.wrong.append(f"raised {type(error).__name__}: {error}")

    def acknowledged(self, failed_before: int) -> None:
        """Check that what was just acknowledged was flushed after all that failed meanwhile."""
        if self.faults.failed > failed_before and not self.faults.has_committed_since:
            self.wrong.append("acknowledged, and nothing was flushed since a failure")

    def opened(self, path: Path) -> LmdbStore | None:
        """Open the store as long as that fails; without faults at last."""
        for place in range(_TRIES):
            if place == _TRIES // 2:
                self.faults.disarm()
            try:
                return open_store(path)
            except Exception as error:  # noqa: BLE001 (what it is, is noted)
                self.note(error)
        self.unborn = True
        return None


def try_store(trial: Trial, place: Path, rng: random.Random) -> None:
    """Apply turns while a fault strikes; obey the contract of the errors; look at what is on disk."""
    load = RandomTurns(rng, "run")
    if rng.random() < 0.5:
        open_store(place).close()  # else it strikes the creation too
    trial.faults.arm(trial.fault)
    store = trial.opened(place)
    accepted: set[bytes] = set()
    ended: dict[bytes, int] = {}
    digest = None
    after = 0
    for _ in range(_MOST_TURNS):
        if store is None:
            break
        after += not trial.faults.is_pending
        if after > _TURNS_AFTER:
            break
        turn = load.next()
        accepted -= deleted_by(turn)  # whether that comes to pass or not
        failed = trial.faults.failed
        try:
            result = store.apply(turn)
        except NotCommitted as error:
            trial.note(error)
            store, digest = _begin_anew(trial, store, place, load)
        except Exception as error:  # noqa: BLE001 (what it is, is noted)
            trial.note(error)
            if not isinstance(error, CommitUnknown):
                trial.wrong.append(f"apply raised {type(error).__name__}: {error}")
            store, digest = _begin_anew(trial, store, place, load)
        else:
            trial.acknowledged(failed)
            _learn(turn, result, accepted, ended)
            load.learn(turn, result)
            digest = read_environment(store._env).digest
    trial.faults.disarm()
    if store is not None:
        store.close()
    _check(trial, place, accepted, ended, digest)


def _begin_anew(
    trial: Trial, store: LmdbStore, place: Path, load: RandomTurns
) -> tuple[LmdbStore | None, None]:
    """Do what follows an error: reopen, and put back what is in progress."""
    store.close()
    load.forget()
    opened = trial.opened(place)
    for _ in range(_TRIES if opened else 0):
        try:
            opened.recover(load.now)
        except Exception as error:  # noqa: BLE001 (what it is, is noted)
            trial.note(error)
            opened.close()
            opened = trial.opened(place)
            if opened is None:
                break
        else:
            return opened, None
    return opened, None


def _learn(turn: Turn, result: TurnResult, accepted: set[bytes], ended: dict[bytes, int]) -> None:
    accepted |= added_by(turn, result)
    for outcome in turn.outcomes:
        if outcome.state in (State.COMPLETED, State.FAILED) and outcome.claim not in result.lost:
            ended[outcome.job] = outcome.claim


def _check(
    trial: Trial, place: Path, accepted: set[bytes], ended: dict[bytes, int], digest: int | None
) -> None:
    try:
        store = open_store(place)
    except StoreError as error:
        trial.unborn = not accepted
        trial.wrong += (
            [f"{len(accepted)} acknowledged jobs, and it cannot be opened: {error}"] if accepted else []
        )
        return
    contents = read_environment(store._env)
    store.close()
    trial.wrong += problems(contents)[:3]
    statuses = contents.statuses()
    lost = len(accepted - statuses.keys())
    if lost:
        trial.wrong.append(f"{lost} acknowledged jobs are lost")
    undone = [
        job
        for job, claim in ended.items()
        if (status := statuses.get(job)) is None or status.claim != claim or status.state < State.COMPLETED
    ]
    if undone:
        trial.wrong.append(f"{len(undone)} acknowledged outcomes are lost")
    if digest is not None and contents.digest != digest:
        trial.wrong.append("the contents are not those acknowledged last")


def try_client(trial: Trial, place: Path, rng: random.Random) -> None:
    """Dispatch without a node while a fault strikes; the same client goes on when it is over."""
    config = place.with_suffix(".toml")
    config.write_text(_CONFIG.format(store=place))
    if rng.random() < 0.5:
        open_store(place).close()
    dispatcher = Dispatcher.from_config(config)
    trial.faults.arm(trial.fault)
    accepted: list[str] = []
    last = ""
    for _ in range(_MOST_TURNS):
        if not trial.faults.is_pending:
            break
        failed = trial.faults.failed
        try:
            accepted.append(_dispatched(dispatcher, rng))
        except (StoreError, StoreFull) as error:
            trial.note(error)
        except Exception as error:  # noqa: BLE001 (what it is, is noted)
            trial.note(error)
        else:
            trial.acknowledged(failed)
    trial.faults.disarm()
    for _ in range(_TURNS_AFTER):
        try:
            accepted.append(_dispatched(dispatcher, rng))
            last = ""
        except Exception as error:  # noqa: BLE001 (what it is, is noted)
            last = f"{type(error).__name__}: {error}"
    if last and "MDB_INVALID" not in last:
        trial.wrong.append(f"the client is stuck: {last}")
    dispatcher.close()
    _check(trial, place, {parse_id(job_id) for job_id in accepted}, {}, None)


def _dispatched(dispatcher: Dispatcher, rng: random.Random) -> str:
    return dispatcher.dispatch("tasks:work", "mail", args=(rng.randbytes(rng.choice((9, 900))),)).id


def main(folder: Path, seed: int, count: int, part: int, parts: int) -> None:
    tried: list[Callable[[Trial, Path, random.Random], None]] = [try_store, try_client]
    with Faults(Path(os.environ["TORTURE_FAULTS"])) as faults:
        for number in range(part, count, parts):
            passes, kind = divmod(number, _KINDS)
            fault = all_faults(passes)[kind]
            if fault.operation != DATA:
                fault = all_faults(passes % _MOST_TURNS)[kind]
            for way in tried:
                trial = Trial(fault, faults)
                place = folder / f"{way.__name__}-{number}"
                way(trial, place, random.Random(seed + number))
                print(
                    json.dumps(
                        {
                            "way": way.__name__,
                            "fault": fault.name,
                            "failed": faults.failed,
                            "raised": sorted(set(trial.raised)),
                            "unborn": trial.unborn,
                            "wrong": trial.wrong,
                        }
                    ),
                    flush=True,
                )
                shutil.rmtree(place, ignore_errors=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:6]))
