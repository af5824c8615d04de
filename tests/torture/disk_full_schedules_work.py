"""Schedules on a small disk that is full again and again.

`python disk_full_schedules_work.py FOLDER MIB CYCLES SEED FILLED_BY`: see disk_full_work.py.
"""

import sys
import time

import psutil
from disk_full_work import Cycles, work
from firing_history import Diary, FiredJobs, early, uncovered
from nodes import eventually

from jobsched import Cron, Every
from jobsched.clock import to_micros

_SCHEDULES = 20
_FULL_S = 3.0
_MOST_CPU = 0.75  # of a core, while nothing can fire
_AGAIN_S = 30.0


class FiringCycles(Cycles):
    """Schedules that fire every second whatever room there is."""

    def run(self, cycles: int, filled_by: str) -> None:
        """Fill the disk and make room, as often as asked, while schedules fire."""
        self._diary = Diary()
        self._firsts = {name: self._add(name, place) for place, name in enumerate(self._names("s"))}
        self._spares = self._names("spare")
        for name in self._spares:
            self._schedules.add(name, "disk_full_tasks:swallow", Every(3600), "mail")
        for _ in range(cycles):
            if filled_by == "store":
                self._fill_by_store()
            else:
                with self._hog():
                    self._live_on()
            self._go_on()
            self.figures["cycles"] += 1
        self._end()

    @staticmethod
    def _names(kind: str) -> list[str]:
        return [f"{kind} {place}" for place in range(_SCHEDULES)]

    @property
    def _schedules(self):
        return self._dispatcher.schedules

    def _add(self, name: str, place: int) -> int:
        trigger = Every(1) if place % 2 else Cron("* * * * * *", seconds=True)
        misfire = ("run_once", "run_all", "skip")[place % 3]
        overlap = ("allow", "skip", "queue")[place % 7 % 3]
        options = {"misfire": misfire, "overlap": overlap, "most": 5, "grace": 1 if place % 5 == 4 else None}
        made = self._schedules.add(
            name, "disk_full_tasks:swallow", trigger, "reports", args=(b"x" * 500,), **options
        )
        return to_micros(made.next_at)

    def _fill_by_store(self) -> None:
        """Dispatch until refused what cannot run yet; delete it all at the end."""
        self._dispatcher.pause("mail")
        self._dispatch_until_refused("mail")
        self._live_on()
        for at in range(0, len(self.accepted), 500):
            self._dispatcher.delete(self.accepted[at : at + 500])
        self.accepted = []
        self._dispatcher.resume("mail")

    def _dispatch_until_refused(self, *categories: str) -> None:
        choice, self._rng.choice = self._rng.choice, lambda _: categories[0]
        super()._dispatch_until_refused()
        self._rng.choice = choice

    def _live_on(self) -> None:
        """See what the node does on a full disk."""
        process = psutil.Process(self._node.pid)
        before, began = sum(process.cpu_times()[:2]), time.monotonic()
        time.sleep(_FULL_S)
        busy = (sum(process.cpu_times()[:2]) - before) / (time.monotonic() - began)
        self.figures["cpu_percent"] = max(self.figures["cpu_percent"], round(100 * busy))
        self._check(busy < _MOST_CPU, f"a full disk costs the node {busy:.0%} of a core")
        for _ in range(min(2, len(self._spares))):
            name = self._spares.pop()
            try:
                self._schedules.remove(name)
            except Exception as error:  # noqa: BLE001 (what it is, is noted)
                self._note(f"removing a schedule on a full disk raised {type(error).__name__}: {error}")

    def _go_on(self) -> None:
        """See that all schedules fire again once there is room."""
        now = time.time_ns() // 1000
        waited = time.monotonic()
        for name in self._firsts:

            def is_on(name: str = name) -> bool:
                last = self._schedules.get(name).last_at
                return last is not None and to_micros(last) > now

            try:
                eventually(is_on, _AGAIN_S)
            except AssertionError:
                self._note(
                    f"{name} does not go on: {self._schedules.get(name)}; {self._node.end_of_log[-900:]}"
                )
                return
        self.figures["longest_ms_until_all_go_on"] = max(
            self.figures["longest_ms_until_all_go_on"], round(1000 * (time.monotonic() - waited))
        )
        with self.project.store() as store:
            self._diary.read(store)

    def _end(self) -> None:
        until = time.time_ns() // 1000
        for name in self._firsts:
            self._schedules.deactivate(name)
        self._drain("after there was room again")
        self._node.terminate()
        self._check(self._node.wait(30) == 0, f"the node ended otherwise: {self._node.end_of_log[-500:]}")
        with self.project.store() as store:
            self._diary.read(store)
        jobs = FiredJobs(self.project)
        wrong = [text for text in jobs.strays(self._diary, self._firsts) if "there is no job" not in text]
        for name, first in self._firsts.items():
            schedule, records = self._diary.schedules[name].schedule, self._diary.of(name)
            last = min(until - 1_500_000, records[-1].until_at) if records else until
            wrong += [*uncovered(schedule, records, first, last), *early(name, records)]
        for text in [*wrong, *self._diary.changed][:20]:
            self._note(text)
        self.figures["records"] = sum(map(len, self._diary.records.values()))
        self.figures["coalesced"] = sum(r.count > 1 for name in self._firsts for r in self._diary.of(name))


if __name__ == "__main__":
    work(FiringCycles, *sys.argv[1:5], filled_by=sys.argv[5])
