"""kill -9 of workers and of the preloader: only the job that ran pays, and only once for each kill."""

import time
from collections import Counter
from collections.abc import Sequence

from history import History, Ledger, Stored
from nodes import Node, Project, eventually
from scenario import Figure, Torture, scenario
from strays import Stray, seconds_until, zombies
from structure import structural_problems

from jobsched.dispatcher import Dispatcher
from jobsched.job import State

WORKERS = 6
JOBS_FOR_A_KILL = 20
SHORT_S = (0.0, 0.0, 0.002, 0.005, 0.01)
PAUSE_S = 0.03  # between kills, in the mean
AT_ONCE = (1, 1, 1, 2, 3)
PRELOADER_EVERY = 25  # kills
CRASH_LIMIT = 3  # as promised
ROUND = 50  # kills; after each a poison job
ZOMBIE_LIMIT_S = 1.0
ZOMBIE_HUNTS = 0.2  # after so many of the kills
MOST_UNNOTED = 0.1  # of the kills may come between a job's token and its first line


@scenario("kill-workers", quick={"kills": 25}, full={"kills": 1000})
def kill_workers(torture: Torture, kills: int) -> dict[str, Figure]:
    """kill -9 of workers and preloaders: one repeat for a kill at most, poison ends after three runs."""
    project = torture.project()
    project.configure(
        {"lane": {"max_workers": 1}, "mixed": {}}, workers=WORKERS, tasks=["tasks", "kill_tasks"]
    )
    ledgers = torture.folder / "ledgers"
    ledgers.mkdir()
    killer = Killer(torture, project, Ledger(ledgers / "0.ledger"))
    for first in range(0, kills, ROUND):
        killer.round(first, min(ROUND, kills - first))
        torture.progress(f"kill-workers: {killer.kills} of {kills} kills")
    eventually(project.is_settled, 120)
    killer.stop()
    return {
        **judged(torture, History.of(project, ledgers), killer),
        **torture.check_none(structural_problems=structural_problems(project.store_path)),
    }


class Killer:
    """A node under load, and the kills of its workers."""

    def __init__(self, torture: Torture, project: Project, ledger: Ledger) -> None:
        self._torture = torture
        self._project = project
        self._ledger = ledger
        self._dispatcher: Dispatcher = project.dispatcher()
        self._node: Node = project.start()
        self.kills = 0
        self.preloader_kills = 0
        self.dead: set[int] = set()
        """Workers that were killed, or whose preloader was: each may have been in one job."""
        self.poison: list[str] = []
        self.zombies: list[Stray] = []

    def round(self, first: int, kills: int) -> None:
        """Dispatch jobs, kill workers that run them, and let a poison job kill some more."""
        self._load(first, kills * JOBS_FOR_A_KILL)
        quota = self.kills + kills
        while self.kills < quota:
            time.sleep(self._torture.rng.expovariate(1 / PAUSE_S))
            if self.kills % PRELOADER_EVERY == PRELOADER_EVERY - 1:
                self._kill_preloader()
            else:
                self._kill_workers(min(self._torture.rng.choice(AT_ONCE), quota - self.kills))
            if self._torture.rng.random() < ZOMBIE_HUNTS:
                self._look_for_zombies()
        self._dispatch_poison(f"poison-{first}")
        self._look_for_zombies()

    def _load(self, first: int, count: int) -> None:
        rng = self._torture.rng
        for batch in range(0, count, ROUND):
            labels = [f"{first}-{batch + n}" for n in range(min(ROUND, count - batch))]
            jobs = [
                self._dispatcher.prepare(
                    "kill_tasks:work", rng.choice(("lane", "mixed")), args=(label, rng.choice(SHORT_S))
                )
                for label in labels
            ]
            self._ledger.dispatch(self._dispatcher, jobs, labels)

    def _kill_workers(self, count: int) -> None:
        pids = eventually(self._workers)
        for pid in self._torture.rng.sample(pids, min(count, len(pids))):
            worker = Stray.seen("worker", pid)
            if worker is not None and worker.kill():
                self.dead.add(pid)
                self.kills += 1

    def _kill_preloader(self) -> None:
        """Stopped first, so that it forks no worker that nobody has seen."""
        eventually(self._workers)
        preloader = self._node.preloader()
        assert preloader is not None
        preloader.suspend()
        self.dead |= {child.pid for child in preloader.children()}
        preloader.kill()
        self.kills += 1
        self.preloader_kills += 1

    def _workers(self) -> list[int]:
        assert self._node.is_alive, self._node.end_of_log
        return self._node.workers()

    def _dispatch_poison(self, label: str) -> None:
        """Dispatch a job that kills its worker, ahead of the others; nobody else kills meanwhile."""
        eventually(self._workers)
        job = self._dispatcher.prepare("kill_tasks:poison", "mixed", args=(label,), priority=1)
        self._ledger.dispatch(self._dispatcher, [job], [label])
        eventually(lambda: self._dispatcher.look(job.id).status.state is State.QUARANTINED, 30)
        self.poison.append(label)

    def _look_for_zombies(self) -> None:
        """Note who is not reaped within a second."""
        preloader = self._node.preloader()
        parents = [self._node.pid, *([preloader.pid] if preloader else [])]
        found = set(zombies(parents))
        limit_s = self._torture.limit_s(ZOMBIE_LIMIT_S)
        if seconds_until(lambda: not found & set(zombies(parents)), limit_s) is None:
            self.zombies += found & set(zombies(parents))

    def stop(self) -> None:
        self._look_for_zombies()
        self._node.terminate()
        code = self._node.wait()
        self._torture.check(code == 0, f"exit code {code}: {self._node.end_of_log}")


def judged(torture: Torture, history: History, killer: Killer) -> dict[str, Figure]:
    """Check the history; return its figures. A repeat is excused by the death of the worker before."""
    repeats = Counter(before.pid for before, _ in history.repeats() if before.label not in killer.poison)
    jobs = {history.tried[job_id].label: stored for job_id, stored in history.stored.items()}
    good = {label: stored for label, stored in jobs.items() if label not in killer.poison}
    unnoted = charged_without_a_run(history, good, killer.dead)
    torture.check(
        len(unnoted) <= 1 + killer.kills * MOST_UNNOTED,
        f"{len(unnoted)} charged that did not run: {unnoted[:5]}",
    )
    unlucky = [label for label, stored in good.items() if stored.state is State.QUARANTINED]
    return {
        "kills": killer.kills,
        "kills_of_preloaders": killer.preloader_kills,
        "jobs": history.states(),
        "runs_repeated": repeats.total(),
        "crashes": sum(stored.crashes for stored in good.values()),
        "charged_without_a_run": len(unnoted),
        "poison_jobs": len(killer.poison),
        "quarantined_after_three_kills": len(unlucky),
    } | torture.check_none(
        lost=history.lost(),
        never_dispatched=history.phantoms(),
        never_run=history.never_run(),
        overlapping=history.overlapping(),
        repeated_without_a_kill=repeats.keys() - killer.dead,
        kills_with_two_repeats=[pid for pid, count in repeats.items() if count > 1],
        not_completed=[
            f"{label}: {stored}"
            for label, stored in good.items()
            if stored.state is not State.COMPLETED and not is_quarantined_rightly(stored)
        ],
        charged_wrongly=charged_wrongly(history, good),
        poison_not_run_three_times=[
            label
            for label in killer.poison
            if len(history.runs_of[label]) != CRASH_LIMIT or not is_quarantined_rightly(jobs[label])
        ],
        zombies=killer.zombies,
    )


def is_quarantined_rightly(stored: Stored) -> bool:
    return stored.state is State.QUARANTINED and stored.crashes == CRASH_LIMIT


def charged_without_a_run(history: History, good: dict[str, Stored], dead: set[int]) -> list[str]:
    """Return the labels that were charged with more deaths than killed workers have run them."""
    return [
        label
        for label, stored in good.items()
        if stored.crashes > sum(run.pid in dead for run in history.runs_of.get(label, ()))
    ]


def charged_wrongly(history: History, good: dict[str, Stored]) -> Sequence[str]:
    """Return the labels whose repeats are more than their crashes and interruptions, and of those
    that have spent an attempt on one.
    """
    return [
        label
        for label, stored in good.items()
        if len(history.runs_of.get(label, ())) > 1 + stored.crashes + stored.interruptions
        or stored.attempt != (stored.state is State.COMPLETED)
    ]
