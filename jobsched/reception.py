"""The node's reception: takes what clients and workers ask, and sees that each gets an answer."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Protocol

import msgspec

from jobsched import wire
from jobsched.config import Config
from jobsched.errors import PayloadTooLarge, UnknownCategory, UnknownTask, WireError
from jobsched.job import KEY_BYTES, MAX_PAYLOAD, Terms, is_final
from jobsched.job_id import ID_BYTES
from jobsched.report import NodeReport
from jobsched.request_size import MAX_REQUEST_BYTES, MAX_REQUEST_JOBS
from jobsched.schedule import PutSchedule, RunSchedule, Schedule, ScheduleChange, SwitchSchedule, name_problem
from jobsched.store.alike import at_once, joined, kinds, records_of, with_terms
from jobsched.store.base import JobStore, NewJob, Outcome, Refused, Reply, Request, StoredJob
from jobsched.store.reasons import refused_with
from jobsched.store.schedule_query import findings

__all__ = ["Asker", "Reception"]

_KEYS = 8  # that one job may have
_MAX_RECORD = MAX_PAYLOAD + 4096  # for what a record holds beside the arguments
_LATEST = 1 << 58  # microseconds: the year 11104
_SETTLED_BYTES = 16 << 20  # of jobs that are looked at in one turn
_LOOK_BYTES = 4096
_FOUND_BYTES = 1 << 18


class Asker(Protocol):
    """Whoever asks: a client, or a worker on behalf of its job."""

    def send(self, message: msgspec.Struct) -> None:
        """Send it an answer."""
        ...


class _Parts:
    """The jobs of a request that is not complete yet, how many, and the bytes of their records."""

    def __init__(self) -> None:
        self.jobs: list[Sequence[NewJob]] = []
        self.count = 0
        self.size = 0

    def add(self, jobs: Sequence[NewJob]) -> None:
        self.jobs.append(jobs)
        self.count += len(jobs)
        self.size += sum(map(len, records_of(jobs)))


class Reception:
    """What has been asked and not yet answered. Belongs to the node's loop.

    `tasks` are the names that can be run here; while it is empty, no task is refused as unknown.
    `report` tells how the node is doing; it is set by the node.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        limits = {name: settings.max_pending for name, settings in config.categories.items()}
        self._limits = {name: limit for name, limit in limits.items() if limit is not None}
        self.tasks: Collection[str] = ()
        self.report: Callable[[], NodeReport] = _no_report
        self._asked: list[tuple[Asker, int, Request]] = []
        self._answering: list[tuple[Asker, int, Request]] = []
        self._looks: deque[tuple[Asker, wire.Look | wire.Find]] = deque()
        self._watchers: dict[bytes, list[tuple[Asker, int]]] = {}
        self._parts: dict[tuple[Asker, int], _Parts] = {}

    def take(self, asker: Asker, message: wire.Question | wire.Survey) -> None:
        """Note what is asked. Raises WireError when a request is over its limits."""
        if isinstance(message, wire.Survey):
            asker.send(wire.Surveyed(message.number, self.report()))
            return
        _check_ids(message)
        if isinstance(message, wire.Look | wire.Find):
            self._looks.append((asker, message))
            return
        request = self._whole(asker, message)
        if request is None:
            return
        refusal = self._refusal(request)
        if refusal is None:
            self._asked.append((asker, message.number, self._limited(request)))
        else:
            asker.send(wire.Answer(message.number, refusal))

    def _whole(self, asker: Asker, ask: wire.Ask) -> Request | None:
        """Return a request once all its parts are there."""
        key = (asker, ask.number)
        if not ask.more and key not in self._parts:
            return ask.request if ask.like is None else msgspec.structs.replace(ask.request, jobs=ask.jobs)
        parts = self._parts.setdefault(key, _Parts())
        parts.add(ask.jobs)
        if parts.count > MAX_REQUEST_JOBS or parts.size > MAX_REQUEST_BYTES:
            raise WireError(f"a request over {MAX_REQUEST_JOBS:,} jobs or {MAX_REQUEST_BYTES >> 20} MiB")
        if ask.more:
            return None
        del self._parts[key]
        return msgspec.structs.replace(ask.request, jobs=joined(parts.jobs))

    def _refusal(self, request: Request) -> Refused | None:
        """Return why a request cannot be accepted: it is refused whole."""
        categories, tasks = self._config.categories, self.tasks
        for task in {job.task for job in kinds(request.jobs)} if tasks and not request.takes_unknown else ():
            if task not in tasks:
                return _refused(UnknownTask(task, tasks))
        for schedule in (change.schedule for change in request.schedules if isinstance(change, PutSchedule)):
            refused = self._cannot_fire(schedule)
            if refused is not None:
                return refused
        for place, record in enumerate(records_of(request.jobs)):
            if len(record) > _MAX_RECORD:
                return _refused(PayloadTooLarge(request.jobs[place].task, len(record), MAX_PAYLOAD))
        for name in (*{job.category for job in kinds(request.jobs)}, *request.pause, *request.resume):
            if name not in categories:
                return _refused(UnknownCategory(name, categories))
        return None

    def vetted(self, outcome: Outcome) -> Outcome:
        """Return an outcome whose job has dispatched more, or that of its refusal. Raises WireError."""
        carried = outcome.carried
        if carried is None:
            return outcome
        _check_ids(wire.Ask(0, carried))
        refusal = self._refusal(carried)
        if refusal is not None:
            return refused_with(outcome, refusal.reason)
        return msgspec.structs.replace(outcome, carried=self._limited(carried))

    def _cannot_fire(self, schedule: Schedule) -> Refused | None:
        """Return why a schedule cannot be taken."""
        if self.tasks and schedule.task not in self.tasks:
            return _refused(UnknownTask(schedule.task, self.tasks))
        if schedule.category not in self._config.categories:
            return _refused(UnknownCategory(schedule.category, self._config.categories))
        size = len(schedule.args) + len(schedule.kwargs)
        if size > MAX_PAYLOAD:
            return _refused(PayloadTooLarge(schedule.task, size, MAX_PAYLOAD))
        return None

    def _limited(self, request: Request) -> Request:
        """Have the node's own settings decide how many jobs may wait."""
        if request.max_pending == self._limits or not request.jobs:
            return request
        return msgspec.structs.replace(request, max_pending=self._limits)

    @property
    def is_asked(self) -> bool:
        """Whether there is a request for the next turn."""
        return bool(self._asked)

    def requests(self) -> list[Request]:
        """Return what the next turn is to apply."""
        self._answering, self._asked = self._asked, []
        return [request for _, _, request in self._answering]

    def arriving(self) -> Counter[str]:
        """Return how many jobs each category gets by the next turn."""
        arriving: Counter[str] = Counter()
        for _, _, request in self._asked:
            arriving += at_once(request.jobs)
        return arriving

    def answer(self, replies: Sequence[Reply]) -> None:
        """Send the replies of the turn that applied `requests`; those to others come behind."""
        for (asker, number, _), reply in zip(self._answering, replies, strict=False):
            asker.send(wire.Answer(number, reply))

    def refuse(self, refusal: Refused) -> None:
        """Send a refusal to everybody whose request the turn was to apply."""
        for asker, number, _ in self._answering:
            asker.send(wire.Answer(number, refusal))
        self._answering = []

    def cancelled(self) -> list[bytes]:
        """Return the jobs whose end the turn was asked for."""
        return [job_id for _, _, request in self._answering for job_id in (*request.cancel, *request.delete)]

    def settle(self, store: JobStore, ended: Iterable[bytes], *, is_behind: bool = False) -> None:
        """Answer who asked for a job, and who waited for one that has ended: `ended` names those
        that may have. Some that asked may be left for the next time; and where the store `is_behind`, as it
        fails now, those too whose job is not in it: it may have been accepted.
        """
        if self._watchers:
            for job_id in ended:
                if job_id in self._watchers:
                    self._tell(job_id, store.get(job_id))
        told = 0
        unknown: list[tuple[Asker, wire.Look | wire.Find]] = []
        while self._looks and told < _SETTLED_BYTES:
            asker, look = self._looks.popleft()
            if isinstance(look, wire.Find):
                asker.send(wire.Found(look.number, findings(store, look.query)))
                told += _FOUND_BYTES
                continue
            job = store.get(look.job)
            told += _size(job)
            if job is None and is_behind:
                unknown.append((asker, look))
            elif look.ended and job is not None and not is_final(job.status.state):
                self._watchers.setdefault(look.job, []).append((asker, look.number))
            else:
                asker.send(wire.Seen(look.number, job))
        self._looks.extend(unknown)

    def _tell(self, job_id: bytes, job: StoredJob | None) -> None:
        if job is None or is_final(job.status.state):
            for asker, number in self._watchers.pop(job_id):
                asker.send(wire.Seen(number, job))

    @property
    def has_looks(self) -> bool:
        """Whether `settle` has something to answer."""
        return bool(self._looks)

    def forget(self, asker: Asker) -> None:
        """Drop what somebody who is gone has asked and need not be told."""
        self._looks = deque(entry for entry in self._looks if entry[0] is not asker)
        self._parts = {key: parts for key, parts in self._parts.items() if key[0] is not asker}
        for job_id, watchers in list(self._watchers.items()):
            watchers[:] = [entry for entry in watchers if entry[0] is not asker]
            if not watchers:
                del self._watchers[job_id]


def _no_report() -> NodeReport:
    raise WireError("the node is not ready")


def _check_ids(message: wire.Question) -> None:
    """Raise WireError for what no client of ours sends and no store could keep."""
    if isinstance(message, wire.Find):
        _check_names([message.query.name or "name"])
        return
    if isinstance(message, wire.Look):
        ids = [message.job]
    else:
        request = message.request
        ids = [*request.cancel, *request.retry, *request.delete]
        if request.taken:
            raise WireError("entries of a journal that did not come from there")
        _check_schedules(request.schedules)
        if len(ids) + len(message.jobs) + len(request.schedules) > MAX_REQUEST_JOBS:
            raise WireError(f"a request over {MAX_REQUEST_JOBS:,} jobs")
        for job in with_terms(message.jobs):
            assert job.terms is not None
            _check_terms(job.terms)
    if any(len(job_id) != ID_BYTES for job_id in ids):
        raise WireError(f"a job id that has not {ID_BYTES} bytes")


def _check_schedules(changes: Sequence[ScheduleChange]) -> None:
    _check_names(c.schedule.name if isinstance(c, PutSchedule) else c.name for c in changes)
    for change in changes:
        if isinstance(change, PutSchedule):
            _check_terms(change.schedule.terms)
            _check_times(change.next_at or 0, change.fire_at)
        elif isinstance(change, SwitchSchedule):
            _check_times(change.next_at, change.fire_at)
        elif isinstance(change, RunSchedule) and len(change.job) != ID_BYTES:
            raise WireError(f"a job id that has not {ID_BYTES} bytes")


def _check_times(*times: int) -> None:
    if not all(0 <= time < _LATEST for time in times):
        raise WireError("a due time that no calendar has")


def _check_names(names: Iterable[str]) -> None:
    for name in names:
        if problem := name_problem(name):
            raise WireError(problem)


def _check_terms(terms: Terms) -> None:
    keys = [limit.key for limit in terms.limits] + ([terms.unique] if terms.unique else [])
    if any(len(key) != KEY_BYTES for key in keys) or len(keys) > _KEYS or terms.expires_at < 0:
        raise WireError(f"terms with a key that has not {KEY_BYTES} bytes, too many, or a negative time")


def _size(job: StoredJob | None) -> int:
    """Return about how many bytes go out for a job; to read one costs as much as to send some."""
    return _LOOK_BYTES if job is None else _LOOK_BYTES + len(job.record or b"") + len(job.result or b"")


def _refused(error: Exception) -> Refused:
    return Refused(type(error).__name__, str(error))
