"""kill -9 of nodes: what was accepted is done, in order, never twice at once, and soon again."""

import random
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial

from clients import Allowance, Crowd, Work
from history import History, Ledger
from nodes import Node, Project, eventually
from scenario import Figure, Torture, quantiles, scenario
from structure import structural_problems

from jobsched import Dispatcher
from jobsched.job import State
from jobsched.job_id import format_id
from jobsched.store.base import Query
from jobsched.store.lmdb import LmdbStore
from jobsched.store.place import JOURNALS

BATCHES = (1, 1, 1, 2, 5)
PAUSE_S = 0.01  # between two dispatches of a client, at most
LONGER_S = 0.01, 0.05
CATEGORIES = {"lane": {"max_workers": 1}, "mixed": {}, "long": {}}
WORKERS = 4
CLIENTS = 2
LONG_EVERY = 10  # kills; half of them interrupt the same job
IMPORT = "import jobsched.cli.app, jobsched.cli.run, jobsched.node"
IMPORT_EVERY = 10  # kills
READY_LIMIT_S = 2.0
SLOWEST_START_S = 0.5
MOMENTS = ("at launch", "while it starts", "just ready", "at work", "at work")


@scenario("kill-node", quick={"kills": 6, "jobs": 200}, full={"kills": 500, "jobs": 20_000})
def kill_node(torture: Torture, kills: int, jobs: int) -> dict[str, Figure]:
    """kill -9 of the node, also while it starts: jobs are done in order, repeats are claims cut off."""
    project = torture.project()
    project.configure(CATEGORIES, workers=WORKERS, tasks=["tasks", "kill_tasks"])
    ledgers = torture.folder / "ledgers"
    allowance = Allowance(torture.folder / "allowance", 0.1)
    work = dispatching(jobs // 2, allowance)
    crowd = Crowd(project.config, ledgers, work, CLIENTS, project.store_path / JOURNALS)
    crowd.fill(torture.rng)
    long = LongJobs(project, Ledger(ledgers / "long.ledger"))
    watch = Watch(project)
    moments: Counter[str] = Counter()
    for kill in range(kills):
        long.go_on(kill)
        moment = torture.rng.choice(MOMENTS)
        moments[moment] += 1
        if kill % IMPORT_EVERY == 0:
            watch.import_once()
        watch.kill_a_node(torture, moment, partial(allowance.set, 0.1 + 0.9 * (kill + 1) / kills))
        crowd.look_for_journals()
        torture.progress(f"kill-node: {kill + 1} of {kills} kills")
    long.end()
    crowd.wait(60)
    torture.check(not crowd.unexpected_ends, f"clients ended otherwise: {crowd.unexpected_ends}")
    torture.check(project.run_until_idle(300) == 0, "the jobs could not all be done")
    history = History.of(project, ledgers)
    return {
        "kills": kills,
        "kills_by_moment": moments,
        "journals_of_clients": crowd.journals,
        **judged(torture, history, watch),
        **watch.readiness(torture),
        **torture.check_none(structural_problems=structural_problems(project.store_path)),
    }


def dispatching(count: int, allowance: Allowance) -> Callable[[str, int], Work]:
    """Return what the clients do: the first dispatches short jobs in a lane, the second longer ones."""

    def for_client(name: str, seed: int) -> Work:
        def work(dispatcher: Dispatcher, ledger: Ledger) -> None:
            rng = random.Random(seed)
            for part in allowance.batches(count, BATCHES, rng):
                time.sleep(rng.uniform(0, PAUSE_S))
                labels = [f"{name}-{number:05}" for number in part]
                if name == "c1":
                    jobs = [dispatcher.prepare("kill_tasks:work", "lane", args=(label,)) for label in labels]
                else:
                    seconds = rng.uniform(*LONGER_S)
                    jobs = [
                        dispatcher.prepare("kill_tasks:work", "mixed", args=(label, seconds))
                        for label in labels
                    ]
                ledger.dispatch(dispatcher, jobs, labels)

        return work

    return for_client


class LongJobs:
    """Jobs that outlast several nodes: a worker that outlived its node would still be in one."""

    def __init__(self, project: Project, ledger: Ledger) -> None:
        self._project = project
        self._dispatcher = project.dispatcher()
        self._ledger = ledger
        self._gate = ""

    def go_on(self, kill: int) -> None:
        """Dispatch one now and then, and let it end some kills later."""
        if kill % LONG_EVERY == 0:
            label = f"long-{kill}"
            self._gate = f"gate-{kill}"
            job = self._dispatcher.prepare("tasks:until", "long", args=(label, self._gate))
            self._ledger.dispatch(self._dispatcher, [job], [label])
        elif kill % LONG_EVERY == LONG_EVERY // 2:
            self.end()

    def end(self) -> None:
        self._project.open(self._gate)


class Watch:
    """Kills nodes, and sees what each kill leaves and how soon the next node is there."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self.ready_s: list[float] = []
        self.import_s: list[float] = []
        self.ready_after_import_s: list[float] = []
        """After the last measured import: how fast the machine is changes with what else it does."""
        self.cut_off: set[tuple[str, int]] = set()
        """Claims, as job and number, that were found in progress with no node alive."""
        self.unclaimed: list[tuple[int, int, set[str]]] = []
        """Of each node from when to when it and its workers lived, by the clock of the runs in nanoseconds,
        and the jobs that no claim in the store was ever of by then.
        """

    def kill_a_node(self, torture: Torture, moment: str, dispatch: Callable[[], None]) -> None:
        """Start a node, have the clients dispatch, and kill it at some moment."""
        launched = time.monotonic()
        node = self._project.launch()
        if moment == "at launch":
            dispatch()
            time.sleep(torture.rng.uniform(0, 0.05))
        elif moment == "while it starts":
            usual = statistics.median(self.ready_s) if self.ready_s else SLOWEST_START_S
            dispatch()
            time.sleep(torture.rng.uniform(0.05, usual))
        else:
            before = self._project.noted()
            self._await_ready(node, launched)
            if moment == "at work":
                eventually(lambda: self._project.noted() > before or self._project.is_settled())
            dispatch()
            longest = 0.05 if moment == "just ready" else torture.rng.choice((0.05, 0.3))
            time.sleep(torture.rng.uniform(0, longest))
        torture.check(node.is_alive, f"the node ended by itself: {node.end_of_log}")
        node.kill()
        self._note_claims(int(launched * 1e9))

    def _await_ready(self, node: Node, launched: float) -> None:
        eventually(lambda: self._project.answers() or not node.is_alive, 30)
        self.ready_s.append(time.monotonic() - launched)
        self.ready_after_import_s.append(max(0.0, self.ready_s[-1] - self.import_s[-1]))

    def _note_claims(self, launched: int) -> None:
        """Note what is in progress now that no node is alive, and what has never been.

        LMDB keeps the number of the last commit in shared memory. A writer killed between the commit
        and noting that number leaves readers a commit behind, until another one begins to write.
        """
        with self._project.store() as store:
            assert isinstance(store, LmdbStore)
            store._env.begin(write=True).abort()
            for ids in store.in_progress().values():
                for job_id in ids:
                    job = store.get(job_id)
                    assert job is not None, f"job {format_id(job_id)} is in progress and not there"
                    self.cut_off.add((format_id(job_id), job.status.claim))
            unclaimed = set(never_claimed(store))
        eventually(lambda: not self._project.left_behind())
        self.unclaimed.append((launched, time.monotonic_ns(), unclaimed))

    def started_early(self, history: History) -> Counter[str]:
        """Return how often each job was started by a node that did not live to commit its claim: it has runs
        from that node's life, and no claim. One run in each life, at most.
        """
        early: Counter[str] = Counter()
        for begin, end, unclaimed in self.unclaimed:
            run = {history.labels[run.label].id for run in history.runs if begin <= run.start < end}
            early.update(run & unclaimed)
        return early

    def import_once(self) -> None:
        """Measure how long it takes to import what a node is made of, and nothing else."""
        began = time.monotonic()
        subprocess.run([sys.executable, "-c", IMPORT], env=self._project.environment, check=True)
        self.import_s.append(time.monotonic() - began)

    def readiness(self, torture: Torture) -> dict[str, Figure]:
        """Return how long after its launch a node answered, with the imports and without."""
        ready = quantiles(self.ready_after_import_s)
        torture.check_in_time(ready["p99"], READY_LIMIT_S, "a start after its imports, at p99,")
        return {
            "import_s": quantiles(self.import_s),
            "launch_to_answer_s": quantiles(self.ready_s),
            "ready_after_import_s": ready,
        }


def never_claimed(store: LmdbStore) -> Iterator[str]:
    """Yield the jobs in the queues that no claim was ever of."""
    after: bytes | None = b""
    while after is not None:
        page = store.find(Query(state=State.PENDING, limit=200, after=after))
        yield from (format_id(job.id) for job in page.jobs if not job.status.claim)
        after = page.next


def judged(torture: Torture, history: History, watch: Watch) -> dict[str, Figure]:
    """Check the history; return its figures. A repeat is excused by a claim that was cut off, or by a start
    whose claim was not committed.
    """
    cut_off = Counter(job for job, _ in watch.cut_off)
    early = watch.started_early(history)
    excused = cut_off + early
    repeats = Counter(after.label for _, after in history.repeats())
    stored = history.stored
    return {
        "acknowledged": len(history.acknowledged),
        "jobs": history.states(),
        "claims_cut_off": len(watch.cut_off),
        "runs_cut_off": sum(run.end is None for run in history.runs),
        "runs_repeated": len(history.repeats()),
        "started_and_not_committed": early.total(),
        "most_interruptions": max(job.interruptions for job in stored.values()),
    } | torture.check_none(
        **history.wrongs(),
        overlapping=history.overlapping(),
        out_of_order=history.out_of_order("lane"),
        out_of_client_order=history.out_of_client_order(),
        out_of_dispatch_order=[label for name in CATEGORIES for label in history.out_of_dispatch_order(name)],
        repeated_without_excuse=[
            label for label, count in repeats.items() if count > excused[history.labels[label].id]
        ],
        charged_with_an_attempt=[job_id for job_id, job in stored.items() if job.attempt != 1 or job.crashes],
        interruptions_miscounted=[
            f"{job_id}: {job.interruptions} for {cut_off[job_id]} claims cut off"
            for job_id, job in stored.items()
            if job.interruptions != cut_off[job_id]
        ],
    )
