"""Single bits that flip in a store: a damaged record is set aside, and nothing is run that was changed."""

import random
import subprocess
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import lmdb as engine
import preload
from bit_flip_pages import build
from doomed import Doomed
from invariants import Contents, read_store
from nodes import Project
from scenario import HERE, Figure, Torture, scenario

from jobsched.codec import BadRecord, decode_record
from jobsched.job import State
from jobsched.job_id import ID_BYTES, format_id, parse_id
from jobsched.store.base import Outcome, Slot, Turn
from jobsched.store.lmdb import open_store

_FLIPS_A_STORE = 200
_UNTOUCHED = 60
_SIZES = (5, 50, 400, 2500, 6000)
_PARTS = 2
_NODE_S = 60.0
_DAMAGED = ("jobs", "statuses", "results")


@scenario("bit-flips", quick={"records": 60, "pages": 60}, full={"records": 1000, "pages": 2000})
def bit_flips(torture: Torture, records: int, pages: int) -> dict[str, Figure]:
    """Flip bits in records, and anywhere in the file: found, set aside, and never run altered."""
    found: Counter[str] = Counter()
    lap = 0
    while records:
        flips = min(records, _FLIPS_A_STORE)
        torture.progress(f"{found.total()} records flipped")
        found += flip_records(torture, f"flips-{lap}", flips)
        records -= flips
        lap += 1
    return {
        "record_flips": found.total(),
        "detected": found["detected"],
        # In the length of a split record, the number of its parts being the same.
        "harmless": found["harmless"],
        "pages": flip_pages(torture, pages),
    }


# Flips in records, worked off by a real node.


class Value(NamedTuple):
    """A stored value of a job: its database and key."""

    job: bytes
    database: str
    key: bytes


def flip_records(torture: Torture, name: str, flips: int) -> Counter[str]:
    """Flip a bit in one value of each of so many jobs of a store; run it; return what came of them."""
    project = torture.project(name)
    project.configure({"mail": {}, "reports": {}}, tasks=["bit_flip_tasks"])
    expected = fill(project, torture.rng, flips + _UNTOUCHED)
    before = read_store(project.store_path)
    chosen = choose(before, torture.rng, flips)
    flip(project.store_path, before, chosen, torture.rng)
    waiting = {job for job, status in before.statuses().items() if status.state < State.COMPLETED}
    run_node(torture, project)
    ran = check_runs(torture, project, expected)
    after = read_store(project.store_path)
    touched = {value.job for value in chosen}
    not_run = [job for job in waiting - touched if format_id(job) not in ran]
    torture.check(not not_run, f"{len(not_run)} untouched jobs did not run")
    for database in ("jobs", "statuses"):
        gone = before.rows(database).keys() - after.rows(database).keys()
        torture.check(not gone, f"{len(gone)} rows of {database} were deleted")
    found: Counter[str] = Counter()
    store = open_store(project.store_path)
    try:
        for value in chosen:
            has_run = format_id(value.job) in ran and value.job in waiting
            try:
                job = store.get(value.job)
            except Exception as error:  # noqa: BLE001 (what it is, is noted)
                torture.check(False, f"reading a damaged job raised {type(error).__name__}: {error}")
                continue
            verdict = _verdict(job, value, before, has_run=has_run)
            torture.check(verdict != "missed", f"a flip in {value} was not noticed")
            found[verdict] += 1
    finally:
        store.close()
    return found


def run_node(torture: Torture, project: Project) -> None:
    """Have a node do all there is to do."""
    node = project.launch("--until-idle")
    try:
        code = node.wait(_NODE_S)
    except subprocess.TimeoutExpired:
        node.kill()
        torture.check(False, "the node was never done")
    else:
        torture.check(code == 0, f"the node ended with {code}: {node.end_of_log}")


def fill(project: Project, rng: random.Random, count: int) -> dict[str, tuple[str, int]]:
    """Dispatch jobs without a node, let some be claimed and some complete; return what each is to
    be called with.
    """
    dispatcher = project.dispatcher()
    expected: dict[str, tuple[str, int]] = {}
    for place in range(count):
        payload = rng.randbytes(rng.choice(_SIZES))
        category = rng.choice(("mail", "reports"))
        delay = rng.choice((0, 0, 0, 0.01))
        job = dispatcher.dispatch("bit_flip_tasks:say", category, delay, args=(f"{place:05}", payload))
        expected[job.id] = (f"{place:05}", zlib.crc32(payload))
    store = open_store(project.store_path)
    now = time.time_ns() // 1000
    claims = store.apply(Turn(now=now, slots=[Slot("mail", 1, count // 10), Slot("reports", 1, 3)])).claims
    done = claims[: len(claims) // 2]
    results = [
        Outcome(claim.job, claim.number, State.COMPLETED, now, now, rng.randbytes(rng.choice((9, 900, 4000))))
        for claim in done
    ]
    store.apply(Turn(now=now, outcomes=results))
    store.close()
    dispatcher.close()
    compact(project.store_path)
    return expected


def compact(path: Path) -> None:
    """Leave one copy of each row in the file: no pages of earlier commits."""
    other = path.with_name("compact")
    other.mkdir(mode=0o700)
    with engine.open(str(path), max_dbs=64, map_size=1 << 30) as env:
        env.copy(str(other), compact=True)
    (path / "lock.mdb").unlink()
    (other / "data.mdb").replace(path / "data.mdb")
    other.rmdir()


def choose(contents: Contents, rng: random.Random, count: int) -> list[Value]:
    """Return one value of each of so many jobs."""
    by_job: dict[bytes, list[Value]] = {}
    for database in _DAMAGED:
        for key in contents.rows(database):
            by_job.setdefault(key[:ID_BYTES], []).append(Value(key[:ID_BYTES], database, key))
    return [rng.choice(by_job[job]) for job in rng.sample(sorted(by_job), count)]


def flip(path: Path, contents: Contents, chosen: list[Value], rng: random.Random) -> None:
    """Flip a bit in each of these values, where it lies in the file: behind its key."""
    file = path / "data.mdb"
    data = bytearray(file.read_bytes())
    for value in chosen:
        row = contents.rows(value.database)[value.key]
        assert data.count(value.key + row) == 1, f"{value} is not found once in the file"
        place = data.index(value.key + row) + len(value.key) + rng.randrange(len(row))
        data[place] ^= 1 << rng.randrange(8)
    file.write_bytes(data)


def check_runs(torture: Torture, project: Project, expected: dict[str, tuple[str, int]]) -> set[str]:
    """Check that what has run was called as dispatched, and once; return the ids."""
    runs = Counter(_lines(project.folder / "ran"))
    for (job_id, label, crc), count in runs.items():
        was = expected.get(job_id)
        torture.check(was == (label, crc), f"{job_id} was run with {label} {crc}, dispatched as {was}")
        torture.check(count == 1, f"{job_id} was run {count} times")
    return {job_id for job_id, _, _ in runs}


def _lines(path: Path) -> Iterator[tuple[str, str, int]]:
    for line in path.read_text().splitlines() if path.exists() else ():
        job_id, label, crc = line.split()
        yield format_id(parse_id(job_id)), label, int(crc)


def _verdict(job: object, value: Value, before: Contents, *, has_run: bool) -> str:
    """Say whether a flip was detected: the job is parked and has not run, or is said to be unreadable."""
    if job is None:
        return "missed"
    is_parked = job.status.state is State.PARKED
    if value.database == "results":
        is_noticed = job.error is not None and "unreadable" in job.error.cause
    elif value.database == "jobs" and not is_parked:
        is_noticed = not has_run and not _is_readable(job.record)
    else:
        is_noticed = is_parked and not has_run
    if is_noticed:
        return "detected"
    is_head = before.rows(value.database)[value.key].startswith(b"\x02") and len(value.key) == ID_BYTES
    return "harmless" if is_head else "missed"


def _is_readable(record: bytes | None) -> bool:
    try:
        decode_record(record or b"")
    except BadRecord:
        return False
    return True


# Flips anywhere.


def flip_pages(torture: Torture, count: int) -> dict[str, int]:
    """Flip bits anywhere in the file, one in each copy of a store; work off what is left by real turns."""
    found: Counter[str] = Counter()
    with preload.memory_folder(torture.folder) as memory, ExitStack() as stack:
        build(memory / "base", torture.rng.randrange(1 << 30))
        runs: list[Doomed] = []
        for part in range(_PARTS):
            folder = memory / f"flipped-{part}"
            folder.mkdir(mode=0o700)
            words = (memory / "base", folder, torture.rng.randrange(1 << 30), count // _PARTS)
            run = Doomed(HERE / "bit_flip_pages.py", words, memory / f"{part}.out")
            runs.append(stack.enter_context(run))
        for place, result, code in chain.from_iterable(run.tried() for run in runs):
            found.update(result["found"] if result else [f"ends the process with {code}"])
            found["flips"] += 1
            altered = result["altered"] if result else []
            torture.check(not altered, f"a flip of bit {place} had run what was changed: {altered}")
    return dict(found)
