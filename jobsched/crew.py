"""The node's crew: its preloader and workers, heard and buried.

What they bring for the next turn gathers in `outcomes` and `give_back`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

from jobsched import fence, wire
from jobsched.audience import Tell
from jobsched.clock import MICROSECONDS, Clock
from jobsched.config import Config
from jobsched.death import cause_of_death, crash_outcome, exit_of, is_bystander
from jobsched.errors import JobschedError, WireError
from jobsched.event import WorkerEnded, WorkerReady
from jobsched.job import State
from jobsched.job_id import format_id
from jobsched.loop import Loop
from jobsched.pool import Pool
from jobsched.preloader import Exited, Loaded
from jobsched.preloader_link import PreloaderLink
from jobsched.reception import Reception
from jobsched.store.base import GiveBack, Outcome
from jobsched.store.reasons import may_still_run
from jobsched.supervisor import Supervisor
from jobsched.worker_link import Doom, Held, WorkerLink

__all__ = ["Crew"]

log = logging.getLogger(__name__)

_LOAD_TRIES = 3


class Crew:
    """Belongs to the node's loop.

    `outcomes` and `give_back` are taken by the node for its next turn; `is_draining` and `is_killing`
    are the node's to set, `has_loaded` says that the modules were imported anew, and is the node's to
    clear.
    """

    def __init__(
        self,
        config: Config,
        *,
        supervisors: Mapping[str, Supervisor],
        loop: Loop,
        reception: Reception,
        clock: Clock,
        next_worker: Callable[[], int],
        tell: Tell,
    ) -> None:
        self._config = config
        self._supervisors = supervisors
        self._loop = loop
        self._reception = reception
        self._clock = clock
        self._next_worker = next_worker
        self._tell = tell
        self._failed_loads = 0
        self.outcomes: list[Outcome] = []
        self.give_back: list[GiveBack] = []
        self.is_draining = False
        self.is_killing = False
        self.has_loaded = False
        self.start()

    @property
    def has_news(self) -> bool:
        """Whether there is something for the next turn."""
        return bool(self.outcomes or self.give_back)

    def take_news(self) -> tuple[list[Outcome], list[GiveBack]]:
        """Return what is for the next turn, and begin anew."""
        news = self.outcomes, self.give_back
        self.outcomes, self.give_back = [], []
        return news

    def take_back(self, outcomes: Sequence[Outcome], give_back: Sequence[GiveBack]) -> None:
        """Keep news for a later turn, as this one has failed."""
        self.outcomes[:0] = outcomes
        self.give_back[:0] = give_back

    def start(self) -> None:
        """Spawn a preloader, and have its workers started as the supervisors want them."""
        preloader = PreloaderLink(self._config)
        self.pool = Pool(
            preloader,
            self._supervisors,
            self._next_worker,
            lambda worker: self._loop.watch(worker, partial(self._on_worker, worker)),
            self._loop.await_room,
            tell=self._tell,
        )
        self._loop.watch(preloader, self._on_preloader)

    def _on_preloader(self) -> None:
        preloader = self.pool.preloader
        try:
            messages = preloader.receive()
        except ConnectionError:
            self.replace()
            return
        for message in messages:
            if isinstance(message, Exited):
                self._bury(self.pool.workers[message.worker], message)
            elif isinstance(message, Loaded):
                self.has_loaded = preloader.is_loaded
        self._reception.tasks = preloader.tasks if preloader.is_loaded else ()

    def close(self) -> None:
        """End the preloader and all workers."""
        self.pool.preloader.close()

    def replace(self) -> None:
        """Replace the preloader, which is gone and its workers with it. Nobody is charged."""
        log.warning("the preloader is gone: its workers are replaced")
        pool = self.pool
        self._loop.forget(pool.preloader)
        pool.preloader.close()
        fence.sweep(self._config.store.path)
        held = fence.wait_free(self._config.store.path, pool.workers)
        for worker in list(pool.workers.values()):
            self._bury(worker, None, may_run=worker.number in held)
        self._failed_loads = 0 if pool.preloader.is_loaded else self._failed_loads + 1
        if self._failed_loads >= _LOAD_TRIES:
            raise JobschedError(f"the preloader died {_LOAD_TRIES} times while it imported the task modules")
        if not self.is_draining:
            self.start()

    def _on_worker(self, worker: WorkerLink) -> None:
        try:
            messages = worker.receive()
        except (ConnectionError, WireError) as error:
            self._loop.forget(worker)  # its exit is on its way
            if isinstance(error, WireError):
                self._condemn(worker, str(error))
            else:
                self.pool.preloader.kill(worker.number)
            return
        worker.heard_at = self._clock.monotonic()
        self._hear(worker, messages)

    def look(self) -> None:
        """Take the outcomes that workers with more jobs ahead have not told of yet."""
        for worker in self.pool.workers.values():
            if len(worker.held) > 1:
                try:
                    worker.look()
                except WireError as error:
                    self._condemn(worker, str(error))
                self._hear(worker, ())

    def _condemn(self, worker: WorkerLink, offence: str) -> None:
        """Have a worker killed for what it has sent: that is its job's crash."""
        log.warning("killing worker %d: %s", worker.label, offence)
        if worker.held and worker.doom is None:
            cause = f"its worker was killed for what it had sent: {offence}"
            worker.doom = Doom(worker.running, State.PENDING, cause)
        self.pool.preloader.kill(worker.number)

    def _hear(self, worker: WorkerLink, messages: Iterable[wire.Question | wire.Ready]) -> None:
        self._finish(worker)
        for message in messages:
            if isinstance(message, wire.Ready):
                worker.is_ready = True
                worker.pid = message.pid
                self._tell(WorkerReady, worker=worker.label, category=worker.home, pid=message.pid)
            else:
                self._take(worker, message)

    def _take(self, worker: WorkerLink, message: wire.Question) -> None:
        try:
            self._reception.take(worker, message)
        except WireError as error:
            self._condemn(worker, str(error))

    def _finish(self, worker: WorkerLink) -> None:
        """Take the outcomes that a worker has brought."""
        held, outcomes = worker.held, self.outcomes
        first = len(outcomes)
        for outcome in worker.ended():
            if not held or held[0].claim != outcome.claim:
                self._condemn(worker, "it ended a job that it does not hold")
                break
            if outcome.carried is not None:
                try:
                    outcome = self._reception.vetted(outcome)  # noqa: PLW2901 (its dispatches may be refused)
                except WireError as error:
                    self._condemn(worker, str(error))
                    break
            held.popleft()
            outcomes.append(outcome)
        if len(outcomes) > first:
            worker.progress_at = self._clock.monotonic()
            for category, runs in worker.by_category(outcomes[first:]):
                took_us = sum(run.ended_at - run.started_at for run in runs)
                self._supervisors[category].ran(took_us / len(runs) / MICROSECONDS, len(runs))

    def _say_end(self, worker: WorkerLink, exited: Exited | None, running: Held | None) -> None:
        name, code = (None, None) if exited is None else exit_of(exited)
        cause = "ended with its preloader" if exited is None else cause_of_death(exited)
        if worker.doom is not None:
            cause += f": {worker.doom.cause}"
        self._tell(
            WorkerEnded,
            worker=worker.label,
            category=worker.home,
            signal=name,
            exit_code=code,
            cause=cause,
            job=None if running is None else format_id(running.job),
        )

    def _bury(self, worker: WorkerLink, exited: Exited | None, *, may_run: bool = False) -> None:
        """Settle what a dead worker held. Without `exited` it died with the preloader, or `may_run`."""
        now, at = self._clock.monotonic(), self._clock.now()
        self._hear(worker, worker.receive_rest())
        self._loop.forget(worker)
        self._reception.forget(worker)
        del self.pool.workers[worker.number]
        running, unstarted = worker.fall()
        self._say_end(worker, exited, running)
        self.give_back += unstarted
        is_innocent = running is not None and is_bystander(running, worker.doom, stopping=self.is_killing)
        if running is not None and may_run:
            error = may_still_run(worker.number)
            self.outcomes.append(Outcome(running.job, running.claim, State.PARKED, at, at, None, error))
        elif running is not None and (exited is None or is_innocent):
            self.give_back.append(GiveBack(running.job, running.claim, interrupted=True))
        elif running is not None and exited is not None:
            started = at - int((now - worker.progress_at) * MICROSECONDS)
            self.outcomes.append(crash_outcome(running, worker, exited, started, at))
        is_done = running is None and exited is not None and exited.status == 0
        was_killed = is_innocent or (worker.doom is not None and worker.doom.state is not State.PENDING)
        if exited is not None and not is_done and not was_killed and (running or not worker.is_leaving):
            culprit = worker.home if running is None else worker.serving or worker.home
            wait = self._supervisors[culprit].died(now, worker.started_at, running.job if running else None)
            log.warning(
                "worker %d of category=%s was %s; replaced in %g s",
                worker.label, culprit, cause_of_death(exited), wait,
            )  # fmt: skip
        worker.close()
