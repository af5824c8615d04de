"""The pool: all workers of a node, each at home in one category.

All workers come from one preloader, so an idle one changes its category by a new label. Between
the balancer's decisions no worker idles beyond its category's minimum while another category
below its maximum has work: it is lent, and as soon as its own has work again, recalled: back at the
end of its job, or another one in its place whose job ends sooner.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet

import msgspec

from jobsched.audience import Tell, untold
from jobsched.event import WorkerLent, WorkerMoved, WorkerStarted
from jobsched.job import State
from jobsched.preloader_link import PreloaderLink
from jobsched.report import CategoryReport
from jobsched.store.base import CategoryStats, Claim, GiveBack, Slot
from jobsched.supervisor import Supervisor
from jobsched.worker_link import WorkerLink

__all__ = ["Pool"]

log = logging.getLogger(__name__)

_STUCK_WINDOWS = 5
_STUCK_S = 0.01


class Pool:
    """Workers and supervisors. Belongs to the node's loop.

    `number` gives the next worker number, never one used before; `joined` and `blocked` have the
    sockets of workers watched; `tell` notes events.
    """

    def __init__(
        self,
        preloader: PreloaderLink,
        supervisors: Mapping[str, Supervisor],
        number: Callable[[], int],
        joined: Callable[[WorkerLink], None],
        blocked: Callable[[WorkerLink], None],
        *,
        tell: Tell = untold,
    ) -> None:
        self.preloader = preloader
        self.workers: dict[int, WorkerLink] = {}
        self._supervisors = supervisors
        self._number = number
        self._joined = joined
        self._blocked = blocked
        self._tell = tell
        self._for_free: set[str] = set()  # categories whose next job is for a worker that is free

    # How many, and where.

    def reconcile(self, now: float) -> list[GiveBack]:
        """Bring the workers in line with the supervisors' targets; return what was revoked.

        Surplus workers go where some are missing, idle ones first; a busy one goes when its job is
        done, and what it held ahead is given back at once.
        """
        homes = Counter(worker.home for worker in self.workers.values() if not worker.is_leaving)
        missing = [
            supervisor
            for supervisor in self._supervisors.values()
            for _ in range(supervisor.target - homes[supervisor.name])
        ]
        surplus = self._surplus(homes, now) if missing else []
        revoked: list[GiveBack] = []
        for worker, supervisor in zip(surplus, missing, strict=False):
            revoked += self._move(worker, supervisor.name)
        for supervisor in missing[len(surplus) :] if self.preloader.is_loaded else ():
            if now >= supervisor.restart_at:
                self._start(supervisor.name, now)
        return revoked

    def _surplus(self, homes: Counter[str], now: float) -> list[WorkerLink]:
        """Return the workers over their category's target, those first that are free soonest."""
        found: list[WorkerLink] = []
        over = {name: homes[name] - supervisor.target for name, supervisor in self._supervisors.items()}
        for worker in sorted(self.workers.values(), key=lambda worker: self._free_in_s(worker, now)):
            if not worker.is_leaving and over[worker.home] > 0:
                over[worker.home] -= 1
                found.append(worker)
        return found

    def _free_in_s(self, worker: WorkerLink, now: float) -> float:
        """Return in how many seconds a worker is likely to end its job; -1 if it has none."""
        if not worker.held:
            return -1.0
        return self._supervisors[worker.serving or worker.home].rest_s(now - worker.progress_at)

    def _move(self, worker: WorkerLink, category: str) -> list[GiveBack]:
        self._rehome(worker, category)
        return worker.revoke() if worker.serving != category else []

    def _rehome(self, worker: WorkerLink, category: str) -> None:
        log.debug("worker %d moves category=%s to=%s", worker.label, worker.home, category)
        before, worker.home = worker.home, category
        self._tell(WorkerMoved, worker=worker.label, category=category, before=before)

    def _swap(self, one: WorkerLink, other: WorkerLink) -> None:
        """Have two workers change places."""
        home = one.home
        self._rehome(one, other.home)
        self._rehome(other, home)

    def _start(self, category: str, now: float) -> None:
        try:
            worker = WorkerLink(self._number(), category, now, self._blocked)
        except OSError as error:
            log.warning(
                "cannot start a worker for category=%s: %s; trying again in a second", category, error
            )
            self._supervisors[category].restart_at = now + 1
            return
        self.workers[worker.number] = worker
        self._joined(worker)
        self.preloader.fork(worker)
        self._tell(WorkerStarted, worker=worker.label, category=category)

    def restart_in(self, now: float) -> float | None:
        """Return the seconds until a worker that is missing may be started, None if none is."""
        if not self.preloader.is_loaded:
            return None
        homes = Counter(worker.home for worker in self.workers.values() if not worker.is_leaving)
        waits = [
            max(0.0, supervisor.restart_at - now)
            for supervisor in self._supervisors.values()
            if supervisor.target > homes[supervisor.name]
        ]
        return min(waits, default=None)

    # Who gets work.

    def recall(self, waiting: Mapping[str, int], now: float) -> list[GiveBack]:
        """Have lent workers come back whose own category has more work than idle workers at home, one
        for each job; return what was revoked.

        Whoever is likely to end its job first where one serves comes in its place: what is revoked
        is only what it holds ahead. If jobs are short there, `slots` offers its place behind them.
        """
        abroad = [w for w in self.workers.values() if len(w.held) > 1 and w.is_behind_another]
        if not abroad:
            return []
        missing = Counter(waiting)
        missing.subtract(worker.home for worker in self.workers.values() if worker.is_idle)
        revoked: list[GiveBack] = []
        for lent in abroad:
            if missing[lent.home] > 0:
                missing[lent.home] -= 1
                others = (worker for worker in self.workers.values() if not worker.is_leaving)
                peers = [lent, *(other for other in others if other.serving == other.home == lent.serving)]
                soonest = min(peers, key=lambda worker: self._free_in_s(worker, now))
                if soonest is not lent:
                    self._swap(soonest, lent)
                revoked += soonest.revoke()
        return revoked

    def slots(self, waiting: Mapping[str, int], now: float, commit_s: float) -> list[Slot]:
        """Return the room at the workers, given how many jobs each category has that can start.

        A worker that is idle offers itself to its own category even if nothing waits there: what
        arrives in this very turn is then claimed in the same commit.
        """
        serving = Counter(worker.serving for worker in self.workers.values() if worker.held)
        serving.update(worker.succeeding for worker in self.workers.values() if worker.succeeding)
        self._repay(waiting, serving)
        rest = dict(waiting)
        at_home = self._at_home()
        slots: list[Slot] = []
        free: list[WorkerLink] = []
        # Idle ones first: a busy one must not take ahead what they could start.
        for worker in sorted(self.workers.values(), key=lambda worker: bool(worker.held)):
            if not worker.is_ready or worker.is_leaving or worker.succeeding:
                continue
            if not worker.held and rest.get(worker.home, 0) <= 0:
                free.append(worker)
                continue
            home = self._supervisors[worker.home]
            if self._is_next(worker, rest, now, commit_s) and self._admits(home, serving):
                serving[worker.home] += 1
                rest[worker.home] -= 1
                slots.append(Slot(worker.home, worker.number, 1, is_busy=True))
                continue
            category = worker.serving if worker.held and worker.serving else worker.home
            is_wanted = category != worker.home and (  # lent, and due back
                waiting.get(worker.home) or at_home[worker.home] < self._least(worker.home)
            )
            if is_wanted or (worker.held and rest.get(category, 0) <= 0):
                continue
            supervisor = self._supervisors[category]
            if not worker.held and not self._admits(supervisor, serving):
                continue
            room = supervisor.room(worker, now, commit_s)
            if room:
                serving[category] += not worker.held
                rest[category] -= room
                slots.append(Slot(category, worker.number, room, bool(worker.held)))
        slots += self._lend(free, rest, serving, now, commit_s)
        return [slot for slot in self._within_rates(slots, now) if not self._is_useless(slot)]

    def _is_next(self, worker: WorkerLink, rest: Mapping[str, int], now: float, commit_s: float) -> bool:
        """Say whether a lent worker is to take a job of its own category ahead, behind a short one."""
        if len(worker.held) != 1 or not worker.is_behind_another or rest.get(worker.home, 0) <= 0:
            return False
        borrower, home = self._supervisors[worker.serving or worker.home], self._supervisors[worker.home]
        soon_s = max(borrower.window_s(commit_s), borrower.mean_run_s or 0.0)
        is_free_soon = self._free_in_s(worker, now) <= soon_s
        return is_free_soon and borrower.is_short(commit_s) and home.is_short(commit_s)

    def _within_rates(self, slots: Iterable[Slot], now: float) -> Iterator[Slot]:
        """Leave out what the rates of the categories do not allow now."""
        left = {name: supervisor.starts_left(now) for name, supervisor in self._supervisors.items()}
        for slot in slots:
            most = left[slot.category]
            if most is None or most >= slot.limit:
                yield slot
            elif most > 0:
                yield msgspec.structs.replace(slot, limit=most)
            if most is not None:
                left[slot.category] = max(0, most - slot.limit)

    def _is_useless(self, slot: Slot) -> bool:
        """Say whether a worker that is busy would be offered in vain."""
        return slot.is_busy and slot.category in self._for_free

    def learn(self, blocked: Iterable[str], slots: Iterable[Slot]) -> None:
        """Take what a turn has found: categories whose next job is for a worker that holds nothing."""
        self._for_free.difference_update(slot.category for slot in slots if not slot.is_busy)
        self._for_free.update(blocked)

    def wait_s(self, waiting: Mapping[str, int], now: float) -> float:
        """Return the seconds until a rate lets one of the jobs start that wait."""
        waits = (self._supervisors[name].wait_s(now) for name, count in waiting.items() if count)
        return min((wait for wait in waits if wait), default=float("inf"))

    def _repay(self, waiting: Mapping[str, int], serving: Counter[str | None]) -> None:
        """Have lent workers given back by whoever is idle first where they serve: those whose own
        category has work, and those for whom the borrower's own have to stand aside at its maximum.

        The lent one may be in a long job; another worker of the borrower takes its place at home.
        """
        lent = [
            worker
            for worker in self.workers.values()
            if worker.held
            and worker.serving
            and worker.serving != worker.home
            and (waiting.get(worker.home) or not self._admits(self._supervisors[worker.serving], serving))
        ]
        for worker in self.workers.values() if lent else ():
            owed = next((other for other in lent if other.serving == worker.home), None)
            if owed is not None and worker.is_idle:
                lent.remove(owed)
                self._swap(worker, owed)

    def _lend(
        self,
        free: Iterable[WorkerLink],
        rest: dict[str, int],
        serving: Counter[str | None],
        now: float,
        commit_s: float,
    ) -> list[Slot]:
        """Offer idle workers to categories that have more work than their own workers take."""
        slots: list[Slot] = []
        at_home = self._at_home()
        for worker in free:
            borrower = self._borrower(worker, rest, serving, at_home)
            if borrower is None:
                home = self._supervisors[worker.home]
                if self._admits(home, serving):
                    serving[worker.home] += 1
                    slots.append(Slot(worker.home, worker.number, home.room(worker, now, commit_s)))
                continue
            room = self._supervisors[borrower].room(worker, now, commit_s)
            at_home[worker.home] -= 1
            serving[borrower] += 1
            rest[borrower] -= room
            slots.append(Slot(borrower, worker.number, room))
        return slots

    def _borrower(
        self, worker: WorkerLink, rest: Mapping[str, int], serving: Counter[str | None], at_home: Counter[str]
    ) -> str | None:
        if at_home[worker.home] <= self._least(worker.home):
            return None
        wanting = [
            (supervisor.settings.priority * rest[name], name)
            for name, supervisor in self._supervisors.items()
            if rest.get(name, 0) > 0 and name != worker.home and self._admits(supervisor, serving)
        ]
        return max(wanting)[1] if wanting else None

    def _at_home(self) -> Counter[str]:
        """Return how many workers of each category are not lent."""
        return Counter(
            worker.home
            for worker in self.workers.values()
            if worker.serving in (None, worker.home) or not worker.held
        )

    def _least(self, category: str) -> int:
        """Return how many of a category's workers have to be at home."""
        return self._supervisors[category].settings.min_workers

    def _admits(self, supervisor: Supervisor, serving: Counter[str | None]) -> bool:
        most = supervisor.settings.max_workers
        return most is None or serving[supervisor.name] < most

    def hand_out(self, claims: Sequence[Claim], slots: Sequence[Slot], now: float) -> list[GiveBack]:
        """Send claimed jobs to their workers; return those whose worker is gone meanwhile."""
        categories = {slot.worker: slot.category for slot in slots}
        by_worker: dict[int, list[Claim]] = {number: [] for number in categories}
        for claim in claims:
            by_worker[claim.worker].append(claim)
        orphans: list[GiveBack] = []
        for number, share in by_worker.items():
            worker = self.workers.get(number)
            if not share:
                continue
            if worker is None or worker.is_leaving:
                orphans += [GiveBack(claim.job, claim.number) for claim in share]
            else:
                category = categories[number]
                if category not in (worker.home, worker.serving):
                    self._tell(WorkerLent, worker=worker.label, category=worker.home, to=category)
                worker.hand_out(share, category, now)
                self._supervisors[category].started(len(share), now)
        return orphans

    def revoke_stuck(self, now: float, commit_s: float) -> list[GiveBack]:
        """Take back what waits behind a job that turns out to be long."""
        revoked: list[GiveBack] = []
        for worker in self.workers.values():
            if len(worker.held) > 1:
                window = self._supervisors[worker.serving or worker.home].window_s(commit_s)
                if now - worker.progress_at > max(_STUCK_S, _STUCK_WINDOWS * window):
                    revoked += worker.revoke()
        return revoked

    def holders(self, jobs: Collection[bytes]) -> list[WorkerLink]:
        """Return the workers that hold any of some jobs."""
        return [worker for worker in self.workers.values() if any(held.job in jobs for held in worker.held)]

    def revoke_from(self, categories: AbstractSet[str]) -> list[GiveBack]:
        """Take back what has not started of some categories."""
        revoked: list[GiveBack] = []
        for worker in self.workers.values() if categories else ():
            if worker.held and not categories.isdisjoint((worker.serving, worker.succeeding)):
                revoked += worker.revoke()
        return revoked

    @property
    def holds_ahead(self) -> bool:
        """Whether `revoke_stuck` has anything to watch."""
        return any(len(worker.held) > 1 for worker in self.workers.values())

    def view(self, stats: Mapping[str, CategoryStats]) -> dict[str, CategoryReport]:
        """Return what each category has now: jobs by state, workers, and how many of them run."""
        homes = Counter(worker.home for worker in self.workers.values())
        busy = Counter(worker.serving for worker in self.workers.values() if worker.held)
        none = CategoryStats([0] * len(State))
        return {
            name: CategoryReport(
                counts=stats.get(name, none).counts,
                paused=stats.get(name, none).paused,
                workers=homes[name],
                busy=busy[name],
            )
            for name in self._supervisors
        }

    # The end.

    def dismiss(self) -> list[GiveBack]:
        """Have all workers leave after their running jobs; return what was revoked."""
        revoked: list[GiveBack] = []
        for worker in self.workers.values():
            revoked += worker.revoke()
            worker.dismiss()
        return revoked

    def kill(self) -> None:
        """End all workers at once."""
        for number in self.workers:
            self.preloader.kill(number)


def waiting(stats: Mapping[str, CategoryStats], names: Iterable[str]) -> dict[str, int]:
    """Return how many jobs can start in each category."""
    return {name: stats[name].ready for name in names if name in stats}
