"""Every error that jobsched raises.

JobschedError
├── ConfigError              categories.toml cannot be used; lists every problem
├── InvalidOption            an argument of the public surface has a wrong value
│   ├── UnknownTask          no task of that name, with the nearest one
│   ├── UnknownCategory      no category of that name, with the nearest one
│   └── ArgumentError        an argument of a job does not fit or cannot be encoded
├── PayloadTooLarge          a job's arguments are over the limit
├── TasksNotLoaded           a configured task module failed to import
├── JobNotFound              no job of that id
├── ScheduleError
│   ├── ScheduleNotFound     no schedule of that name
│   ├── ScheduleExists       there is one of that name already
│   └── ScheduleChanged      somebody has changed it meanwhile
├── DuplicateJob             a unique key is taken, and the dispatch asked to be refused then
├── QueueFull                a category has as many jobs waiting as it may
├── ResultError
│   ├── ResultTimeout        the job has not ended in the time given
│   ├── ResultNotStored      it completed, but its return value was not kept
│   ├── JobFailed            it ended as failed (or parked, or quarantined)
│   └── JobCancelled         it was cancelled
├── Unavailable              neither a node nor the store could be reached; outcome unknown
├── WireError                a peer sent something that is not our protocol
│   └── WireVersionError     a peer speaks another version of it
└── StoreError
    ├── NodeRunning          another node owns the store
    ├── StoreUnsafe          the store's place must not be used (permissions, file system)
    ├── StoreFormatError     written by a newer jobsched, or not a store at all
    ├── StoreFull            no room for new jobs
    ├── NotCommitted         the turn failed and changed nothing
    │   └── NoRoom           for want of room; it is StoreFull too
    └── CommitUnknown        the turn failed and may or may not be on disk
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from jobsched.built_in import how_to_list

__all__ = [
    "ArgumentError",
    "CommitUnknown",
    "ConfigError",
    "DuplicateJob",
    "InvalidOption",
    "JobCancelled",
    "JobFailed",
    "JobNotFound",
    "JobschedError",
    "NoRoom",
    "NodeRunning",
    "NotCommitted",
    "PayloadTooLarge",
    "QueueFull",
    "ResultError",
    "ResultNotStored",
    "ResultTimeout",
    "ScheduleChanged",
    "ScheduleError",
    "ScheduleExists",
    "ScheduleNotFound",
    "StoreError",
    "StoreFormatError",
    "StoreFull",
    "StoreUnsafe",
    "TasksNotLoaded",
    "Unavailable",
    "UnknownCategory",
    "UnknownTask",
    "WireError",
    "WireVersionError",
    "nearest",
    "rebuilt",
]


class JobschedError(Exception):
    """Base of every error that jobsched raises."""

    def __reduce__(self) -> tuple[object, ...]:
        # Its message is built from facts: pickle must not hand the message to __init__.
        return _revived, (type(self), self.args), vars(self)


class ConfigError(JobschedError):
    """The configuration cannot be used. `problems` holds every problem found, each with its place."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(self.problems))


class InvalidOption(JobschedError, ValueError):
    """An argument of the public surface has a value that cannot be used."""


class UnknownTask(InvalidOption):
    """No task of that name is defined in the configured modules."""

    def __init__(self, name: str, known: Iterable[str] = ()) -> None:
        super().__init__(f"unknown task {name!r}{how_to_list(name) or nearest(name, known)}")


class UnknownCategory(InvalidOption):
    """No category of that name is configured."""

    def __init__(self, name: str, known: Iterable[str] = ()) -> None:
        super().__init__(f"unknown category {name!r}{nearest(name, known)}")


class ArgumentError(InvalidOption):
    """An argument of a job does not fit the task's signature or cannot be encoded."""


class PayloadTooLarge(JobschedError):
    """The encoded arguments of a job are over the limit."""

    def __init__(self, task: str, size: int, limit: int) -> None:
        super().__init__(
            f"the arguments of task {task!r} take {size:,} bytes, the limit is {limit:,}: "
            "store the data elsewhere and pass its key"
        )


class TasksNotLoaded(JobschedError):
    """A configured task module failed to import; the message ends with its traceback."""

    def __init__(self, module: str, traceback: str) -> None:
        self.module = module
        super().__init__(f"task module {module!r} cannot be imported:\n{traceback.rstrip()}")


class JobNotFound(JobschedError):
    """The store has no job of that id."""

    def __init__(self, job_id: str) -> None:
        super().__init__(f"no job {job_id!r} in the store")


class ScheduleError(JobschedError):
    """A schedule cannot be changed as asked."""


class ScheduleNotFound(ScheduleError):
    """No schedule of that name."""

    def __init__(self, name: str, known: Iterable[str] = ()) -> None:
        super().__init__(f"no schedule {name!r}{nearest(name, known)}")


class ScheduleExists(ScheduleError):
    """A schedule of that name is there already."""

    def __init__(self, name: str) -> None:
        super().__init__(f"a schedule {name!r} is there already: update it, or remove it first")


class ScheduleChanged(ScheduleError):
    """Somebody else has changed the schedule meanwhile."""

    def __init__(self, name: str) -> None:
        super().__init__(f"the schedule {name!r} was changed or removed meanwhile: try again")


class DuplicateJob(JobschedError):
    """Another job of the task has the same unique key."""


class QueueFull(JobschedError):
    """As many jobs wait in the category as its `max_pending` allows."""


class ResultError(JobschedError):
    """A job's result cannot be had."""


class ResultTimeout(ResultError, TimeoutError):
    """The job has not ended within the time given."""

    def __init__(self, job_id: str, state: str, timeout_s: float) -> None:
        super().__init__(f"job {job_id} is still {state} after {timeout_s:g} s")


class ResultNotStored(ResultError):
    """The job completed, but its return value could not be encoded or was over 1 MiB."""

    def __init__(self, job_id: str, why: str) -> None:
        super().__init__(f"job {job_id} completed, its result was not stored: {why}")


class JobFailed(ResultError):
    """The job ended without a result. `cause` is one line, `traceback` the worker's traceback."""

    def __init__(self, job_id: str, state: str, cause: str, traceback: str) -> None:
        self.cause = cause
        self.traceback = traceback
        super().__init__(f"job {job_id} {state}: {cause}")


class JobCancelled(ResultError):
    """The job was cancelled."""

    def __init__(self, job_id: str) -> None:
        super().__init__(f"job {job_id} was cancelled")


class Unavailable(JobschedError):
    """Neither a node nor the store could be reached in time, or the answer was lost.

    What was asked for may or may not have happened. Repeating it with the same job ids is safe.
    """


class WireError(JobschedError):
    """A peer sent bytes that are not our protocol, or more of them than allowed."""


class WireVersionError(WireError):
    """A peer speaks another version of the protocol."""

    def __init__(self, theirs: int, ours: int) -> None:
        super().__init__(
            f"wire version {theirs} meets {ours}: client and node must run the same jobsched release"
        )


class StoreError(JobschedError):
    """The job store cannot be used."""


class NodeRunning(StoreError):
    """Another node owns the store."""

    def __init__(self, place: str, holder: str) -> None:
        super().__init__(f"another node runs on {place} ({holder}); one node per store")


class StoreUnsafe(StoreError):
    """The store's place must not be used: others can write it, or a network file system."""


class StoreFormatError(StoreError):
    """The store was written by a newer jobsched, or is not a store."""


class StoreFull(StoreError):
    """There is no room for new jobs."""


class NotCommitted(StoreError):
    """The turn failed; nothing of it is in the store."""


class NoRoom(NotCommitted, StoreFull):
    """There is no room for what the turn writes; nothing of it is in the store."""


class CommitUnknown(StoreError):
    """The turn failed at its commit; it may or may not be in the store."""


_FEW = 12  # names that are worth listing whole


def rebuilt(kind: str, message: str) -> JobschedError:
    """Return the error of a class name and a message, as another process raised it."""
    found = globals().get(kind)
    kind_of = found if isinstance(found, type) and issubclass(found, JobschedError) else JobschedError
    error = kind_of.__new__(kind_of)
    Exception.__init__(error, message)
    return error


def _revived(kind: type[JobschedError], args: tuple[object, ...]) -> JobschedError:
    error = kind.__new__(kind)
    Exception.__init__(error, *args)
    return error


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ``", did you mean 'x'?"``, or the known names when none is near, or nothing."""
    import difflib  # noqa: PLC0415 (slow to import)

    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if close:
        return f", did you mean {close[0]!r}?"
    if names and len(names) <= _FEW:
        return f"; known: {', '.join(names)}"
    return ""
