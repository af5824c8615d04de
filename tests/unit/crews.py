"""A pool whose workers are played by the test: their sockets and token pipes are real."""

import os
from itertools import count

from jobsched.config import parse_config
from jobsched.pool import Pool
from jobsched.store.base import Claim, GiveBack, Outcome, Slot
from jobsched.supervisor import Supervisor
from jobsched.worker_link import WorkerLink

NOW = 1000.0
COMMIT_S = 0.001


class FakePreloader:
    """Starts no processes: keeps the workers' ends of the token pipes instead."""

    def __init__(self) -> None:
        self.is_loaded = True
        self.tokens: dict[int, int] = {}
        self.killed: list[int] = []

    def fork(self, worker: WorkerLink) -> None:
        self.tokens[worker.number] = os.dup(worker.far_tokens)
        worker.let_go_of_far_ends()

    def kill(self, worker: int) -> None:
        self.killed.append(worker)


class Crew:
    """A pool with its supervisors, whose workers are played by the test."""

    def __init__(self, categories: str, directory) -> None:
        config = parse_config(f"tasks = ['m']\nworkers = 100\n{categories}", directory)
        self.supervisors = {name: Supervisor(name, found) for name, found in config.categories.items()}
        self.preloader = FakePreloader()
        self.joined: list[int] = []
        self.outcomes: list[Outcome] = []
        self.give_back: list[GiveBack] = []
        self._claims = count(1)
        self.pool = Pool(
            self.preloader,
            self.supervisors,
            count(1).__next__,
            lambda worker: self.joined.append(worker.number),
            lambda _: None,
        )

    def target(self, **counts: int) -> list[GiveBack]:
        """Set the targets and reconcile; workers that are started are ready at once."""
        for name, supervisor in self.supervisors.items():
            supervisor.target = counts.get(name, 0)
        revoked = self.pool.reconcile(NOW)
        for worker in self.pool.workers.values():
            worker.is_ready = True
        return revoked

    def give(self, number: int, category: str, jobs: int = 1) -> list[int]:
        """Hand jobs to a worker, which starts the first of them; return the claims."""
        claims = [next(self._claims) for _ in range(jobs)]
        is_idle = not self.pool.workers[number].held
        made = [Claim(claim, number, 1, job_id(claim), b"record") for claim in claims]
        assert self.pool.hand_out(made, [Slot(category, number, jobs)], NOW) == []
        if is_idle:
            os.read(self.preloader.tokens[number], 1)
        return claims

    def slots(self, **pending: int) -> dict[int, tuple[str, int]]:
        found = self.pool.slots(pending, NOW, COMMIT_S)
        assert len({slot.worker for slot in found}) == len(found)
        return {slot.worker: (slot.category, slot.limit) for slot in found}

    @property
    def homes(self) -> dict[int, str]:
        return {number: worker.home for number, worker in self.pool.workers.items()}

    def close(self) -> None:
        for worker in self.pool.workers.values():
            worker.close()
        for handle in self.preloader.tokens.values():
            os.close(handle)


def job_id(number: int) -> bytes:
    return number.to_bytes(16, "big")
