"""Opens what power cuts may leave of a recorded run, and compares it with what was acknowledged.

`python power_cut_images.py LOG FOLDER SEED IMAGES PART SKIP`: of IMAGES random ones by SEED, those
of a PART of two, without the first SKIP of them, in FOLDER. A process of its own: a damaged store may
end whoever opens it. Prints a JSON line before each image, and one after it.
"""

import itertools
import json
import random
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from invariants import Contents, problems, read_environment
from lmdb import verify
from power_cut_disk import WAYS, Disk, Image
from random_turns import RandomTurns
from write_log import NAMED, NOTE, STORE, Entry, Noted, noted_in, read_entries

from jobsched.job import State
from jobsched.journal.intake import take_in
from jobsched.store.base import Accepted, Request, Slot, Turn
from jobsched.store.lmdb import LmdbStore, open_store
from jobsched.store.place import JOURNALS

PARTS = 2
_NOW = 1 << 50
_WAYS = [*WAYS, "sectors", "sectors", "sectors"]


class Known(NamedTuple):
    """What had been acknowledged at a cut, and the digests that the store may have."""

    accepted: set[bytes]
    started: set[bytes]
    completed: set[bytes]
    digests: set[int]
    is_created: bool


class Cut(NamedTuple):
    """An image to make: after so many entries, in one of the ways."""

    entries: int
    way: str
    seed: int


def chosen(entries: list[Entry], seed: int, images: int) -> list[Cut]:
    """Return the cuts in the order of the log: where writes are pending, in several ways each."""
    rng = random.Random(seed)
    disk = Disk()
    loose: list[int] = []
    for place, entry in enumerate(entries, 1):
        disk.take(entry)
        if entry.kind == NAMED and entry.file == STORE:
            loose.clear()  # before that there was no store
        elif not disk.is_settled:
            loose.append(place)
    places = sorted(rng.choices(loose, k=-(-images // len(_WAYS)))) if loose else []
    return [Cut(place, way, rng.randrange(1 << 30)) for place in places for way in _WAYS][:images]


def walk(entries: list[Entry], cuts: list[Cut]) -> Iterator[tuple[Cut, Disk, Known]]:
    """Yield the disk and what is known at each cut."""
    digests = [found for entry in entries if entry.kind == NOTE and (found := noted_in(entry).digest)]
    coming = iter([*digests, None])
    known = Known(set(), set(), set(), {next(coming)} if digests else set(), False)
    disk = Disk()
    done = 0
    for cut in cuts:
        for entry in itertools.islice(entries, done, cut.entries):
            disk.take(entry)
            if entry.kind == NOTE:
                known = _with_note(known, noted_in(entry), coming)
        done = cut.entries
        yield cut, disk, known


def _with_note(known: Known, noted: Noted, coming: Iterator[int | None]) -> Known:
    """Return what is known from a note on. Of two digests one is of the commit under way."""
    known.accepted.update(noted.accepted)
    known.started.update(noted.started)
    known.completed.update(noted.completed)
    if noted.digest is None:
        return known._replace(is_created=True)
    return known._replace(digests={noted.digest, next(coming, None)} - {None}, is_created=True)


class Judge:
    """Opens images and says what is wrong with them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen: dict[int, list[str]] = {}  # what is wrong with rows of a digest
        self._load = RandomTurns(random.Random(0), "run")

    def wrong(self, image: Image, known: Known) -> list[str]:
        """Return what is wrong with an image, each beginning with the kind of it."""
        (self._folder / "lock.mdb").unlink(missing_ok=True)
        (self._folder / "data.mdb").write_bytes(image.store)
        shutil.rmtree(self._folder / JOURNALS, ignore_errors=True)
        (self._folder / JOURNALS).mkdir()
        for name, data in image.journals.items():
            (self._folder / JOURNALS / f"{name}.journal").write_bytes(data)
        found = self._structure() if known.is_created else []
        try:
            store = open_store(self._folder)
        except Exception as error:  # noqa: BLE001 (whatever it is, the store was not opened)
            return [*found, f"open: {type(error).__name__}: {error}"]
        try:
            if image.journals:
                take_in(store, self._folder, _NOW)
                found += [f"lost: {file.name}" for file in (self._folder / JOURNALS).glob("*.unreadable")]
            contents = read_environment(store._env)
            is_new = contents.digest not in self._seen
            return found + self._contents(contents, known) + self._going_on(store, is_new=is_new)
        except Exception as error:  # noqa: BLE001 (likewise)
            return [*found, f"use: {type(error).__name__}: {error}"]
        finally:
            store.close()

    def _structure(self) -> list[str]:
        try:
            return [f"structure: {text}" for text in verify.verify(str(self._folder / "data.mdb"))[:3]]
        except verify.VerifyError as error:
            return [f"structure: {error}"]

    def _contents(self, contents: Contents, known: Known) -> list[str]:
        digest = contents.digest
        if digest not in self._seen:
            self._seen[digest] = [f"rows: {text}" for text in problems(contents)[:3]]
        if digest in known.digests:
            return self._seen[digest]
        found = [*self._seen[digest], *_lost(contents, known)]
        if known.is_created and known.digests:
            found.append("contents: neither those acknowledged last nor those of the commit under way")
        return found

    def _going_on(self, store: LmdbStore, *, is_new: bool) -> list[str]:
        """Do what a node does next: put back what ran, take new jobs, hand some out. What the rows
        are then follows from what they were: it is looked at where those are `is_new`.
        """
        store.recover(_NOW)
        job = self._load.new_job(is_plain=True)
        slots = [Slot(job.category, 1, 2)]
        result = store.apply(
            Turn(now=_NOW, requests=[Request(jobs=[job], resume=[job.category])], release=3, slots=slots)
        )
        if not isinstance(result.replies[0], Accepted):
            return [f"use: {result.replies[0]}"]
        running = [job_id for jobs in store.in_progress().values() for job_id in jobs]
        if len(running) != len(result.claims):
            return [f"use: {len(result.claims)} jobs were claimed after a recovery, {len(running)} run"]
        if not is_new:
            return []
        contents = read_environment(store._env)
        return [f"rows after it went on: {text}" for text in problems(contents)[:3]]


def _lost(contents: Contents, known: Known) -> Iterator[str]:
    """Say what was acknowledged and is not so."""
    statuses = contents.statuses()
    for job_id in known.accepted - statuses.keys():
        yield f"lost: {job_id.hex()} was accepted and is not there"
    for job_id in known.started & statuses.keys():
        status = statuses[job_id]
        if status is None or not status.claim:
            yield f"lost: {job_id.hex()} had started and was never claimed"
    for job_id in known.completed & statuses.keys():
        status = statuses[job_id]
        if status is None or status.state is not State.COMPLETED:
            yield f"lost: {job_id.hex()} was completed and is {status and str(status.state)}"


def main(log: Path, folder: Path, *, seed: int, images: int, part: int, skip: int) -> None:
    entries = read_entries(log)
    cuts = chosen(entries, seed, images)
    mine = cuts[len(cuts) * part // PARTS : len(cuts) * (part + 1) // PARTS][skip:]
    judge = Judge(folder)
    for cut, disk, known in walk(entries, mine):
        print(json.dumps({"try": cut}), flush=True)
        wrong = judge.wrong(disk.after_cut(cut.way, random.Random(cut.seed)), known)
        print(json.dumps({"result": {"wrong": wrong, "created": known.is_created}}), flush=True)


if __name__ == "__main__":
    numbers = dict(zip(("seed", "images", "part", "skip"), map(int, sys.argv[3:7]), strict=True))
    main(Path(sys.argv[1]), Path(sys.argv[2]), **numbers)
