"""Many jobs of all kinds through one node: it stays as small as it was, and so does its file."""

import statistics
import time
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from measured import descriptors, private_bytes
from nodes import Node, Project, eventually
from scenario import Figure, Torture, scenario

from jobsched import Dispatcher
from jobsched.dispatcher import PreparedJob
from jobsched.job import State
from jobsched.job_id import format_id
from jobsched.store.base import JobStore
from jobsched.store.lmdb import LmdbStore

BATCH = 250
AHEAD = 4000  # jobs that wait or run, at most: a client that goes on is a queue that grows
SAMPLES = 40
WARM_UP = 0.25  # of the samples
PAGE_BYTES = 4096
GROWTH_BYTES = 1 << 20  # of the node, per 100,000 jobs; and less is noise
FILE_SLACK_BYTES = 64 << 20
MOVING_DESCRIPTORS = 3  # those that a commit, or one who looks, has open for a moment
CATEGORIES = ("mail", "reports", "slow")
DELAYS_S = (0, 0, 0, 0, 0.05, 1)
PATIENCE_S = 300.0
LOOKED_AT = 500  # results


class Kind(NamedTuple):
    """A task of the soak, how often it is taken, how its jobs end, and after how many runs."""

    task: str
    weight: int
    state: State = State.COMPLETED
    runs: int = 1


KINDS = (
    Kind("plain", 60),
    Kind("with_result", 25),
    Kind("with_payload", 10),
    Kind("second_time", 4, runs=2),
    Kind("never", 1, State.FAILED, runs=2),
)


class Sample(NamedTuple):
    """What was there after so many jobs; sizes in bytes."""

    jobs: int
    node_bytes: int
    node_descriptors: int
    preloader_descriptors: int
    worker_descriptors: int
    worker_bytes: int
    file_bytes: int
    live_bytes: int


@scenario("soak", quick={"jobs": 10_000}, full={"jobs": 500_000})
def soak(torture: Torture, jobs: int) -> dict[str, Figure]:
    """Mixed jobs, a few of them failing: memory, descriptors and file stay in proportion."""
    project = torture.project()
    project.configure({name: {} for name in CATEGORIES}, workers=3, tasks=["tasks", "soak_tasks"])
    node = project.start()
    eventually(lambda: len(node.workers()) == 3)
    with project.store() as store:
        began = time.monotonic()
        ids, samples = pour(torture, project, node, store, jobs)
        eventually(lambda: is_settled(store), PATIENCE_S)
        seconds = time.monotonic() - began
        samples.append(taken(project, node, store, len(ids)))
        judge_jobs(torture, project, store, ids)
    node.terminate()
    torture.check(node.wait(60) == 0, f"the node did not stop: {node.end_of_log}")
    return {"jobs": len(ids), "jobs_per_s": round(len(ids) / seconds)} | judged(torture, samples)


def pour(
    torture: Torture, project: Project, node: Node, store: JobStore, count: int
) -> tuple[dict[bytes, Kind], list[Sample]]:
    """Dispatch so many jobs, never too many ahead; return their kinds by id, and what was sampled."""
    dispatcher = project.dispatcher()
    ids: dict[bytes, Kind] = {}
    samples: list[Sample] = []
    while len(ids) < count:
        kinds = torture.rng.choices(KINDS, [kind.weight for kind in KINDS], k=min(BATCH, count - len(ids)))
        prepared = [prepare(torture, dispatcher, kind, len(ids) + n) for n, kind in enumerate(kinds)]
        dispatcher.dispatch_many(prepared)
        ids |= {job.id: kind for job, kind in zip(prepared, kinds, strict=True)}
        eventually(lambda: unended(store) < AHEAD, PATIENCE_S)
        if len(ids) * SAMPLES >= count * (len(samples) + 1):
            samples.append(taken(project, node, store, len(ids)))
            torture.progress(f"soak: {len(ids)} of {count} jobs, node {samples[-1].node_bytes >> 10} KiB")
    return ids, samples


def prepare(torture: Torture, dispatcher: Dispatcher, kind: Kind, number: int) -> PreparedJob:
    arguments: list[object] = [f"{kind.task}-{number}"]
    if kind.task == "with_payload":
        arguments.append(torture.rng.randbytes(torture.rng.choice((10, 1000, 10_000))))
    return dispatcher.prepare(
        f"soak_tasks:{kind.task}",
        torture.rng.choice(CATEGORIES),
        torture.rng.choice(DELAYS_S),
        args=arguments,
        priority=torture.rng.choice((0, 0, 0, 1)),
    )


def unended(store: JobStore) -> int:
    return sum(sum(stats.counts[: State.COMPLETED]) for stats in store.stats().values())


def is_settled(store: JobStore) -> bool:
    return not unended(store)


def taken(project: Project, node: Node, store: JobStore, jobs: int) -> Sample:
    """Take a sample."""
    workers, preloader = node.workers(), node.preloader()
    return Sample(
        jobs,
        private_bytes(node.pid),
        descriptors(node.pid),
        descriptors(preloader.pid) if preloader else 0,
        max(map(descriptors, workers), default=0),
        max(map(private_bytes, workers), default=0),
        (project.store_path / "data.mdb").stat().st_size,
        live_bytes(store),
    )


def live_bytes(store: JobStore) -> int:
    """Return the size of the pages in use."""
    assert isinstance(store, LmdbStore)
    with store._reading() as txn:
        stats = [txn.stat(getattr(store._dbs, name)) for name in type(store._dbs).__slots__]
    return PAGE_BYTES * sum(
        stat[pages] for stat in stats for pages in ("branch_pages", "leaf_pages", "overflow_pages")
    )


# What must hold.


def judge_jobs(torture: Torture, project: Project, store: JobStore, ids: dict[bytes, Kind]) -> None:
    """Check that each job ended as its kind does, after as many runs, and left its result."""
    wrong, ended = [], Counter[State]()
    for number, (job_id, kind) in enumerate(ids.items()):
        job = store.get(job_id)
        if job is None or job.status.state is not kind.state:
            wrong.append((number, kind, job and job.status))
        else:
            ended[kind.state] += 1
            if job.status.attempt != kind.runs or (kind.task == "with_result") != bool(job.result):
                wrong.append((number, kind, job.status))
    counts = Counter[State]()
    for stats in store.stats().values():
        counts += Counter({state: stats[state] for state in State})
    labels = Counter(label for _, label, *_ in project.events())
    runs = {f"{kind.task}-{number}": kind.runs for number, kind in enumerate(ids.values())}
    torture.check_none(
        ended_otherwise=wrong,
        counted_otherwise=[] if counts == ended else [counts, ended],
        run_otherwise=[label for label in labels | runs if labels[label] != runs.get(label)],
    )
    dispatcher = project.dispatchers[0]
    chosen = [format_id(job_id) for job_id, kind in ids.items() if kind.task == "with_result"][-LOOKED_AT:]
    results = [dispatcher.job(job_id).result(timeout=10) for job_id in chosen]
    torture.check(all(result["numbers"] for result in results), "a result is not what was returned")


def judged(torture: Torture, samples: Sequence[Sample]) -> dict[str, Figure]:
    """Check the samples; return their figures."""
    steady = samples[int(len(samples) * WARM_UP) :]
    growth = slope([sample.jobs for sample in steady], [sample.node_bytes for sample in steady])
    rise = growth * (steady[-1].jobs - steady[0].jobs)
    per_100_000 = round(growth * 100_000)
    torture.check(
        rise < GROWTH_BYTES or per_100_000 < GROWTH_BYTES,
        f"the node grows by {per_100_000 >> 10} KiB per 100,000 jobs",
    )
    for name in ("node_descriptors", "preloader_descriptors", "worker_descriptors"):
        found = [getattr(sample, name) for sample in steady]
        torture.check(max(found) - min(found) <= MOVING_DESCRIPTORS, f"{name} are not flat: {found}")
    last = samples[-1]
    torture.check(
        last.file_bytes <= 2 * last.live_bytes + FILE_SLACK_BYTES,
        f"the file has {last.file_bytes >> 20} MiB for {last.live_bytes >> 20} MiB of live pages",
    )
    return {
        "node_kib_first": steady[0].node_bytes >> 10,
        "node_kib_last": last.node_bytes >> 10,
        "node_kib_per_100_000_jobs": per_100_000 >> 10,
        "worker_kib_first": steady[0].worker_bytes >> 10,
        "worker_kib_last": last.worker_bytes >> 10,
        "node_descriptors": last.node_descriptors,
        "worker_descriptors": last.worker_descriptors,
        "file_mib": round(last.file_bytes / (1 << 20), 1),
        "live_mib": round(last.live_bytes / (1 << 20), 1),
    }


def slope(places: Sequence[int], values: Sequence[int]) -> float:
    """Return how much the values rise per unit of their places, by least squares."""
    return statistics.linear_regression(places, values).slope
