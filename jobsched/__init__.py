"""jobsched: a category-partitioned, load-balanced worker pool with durable queues."""

from jobsched.api import (
    Task,
    adispatch,
    batch,
    default_dispatcher,
    dispatch,
    dispatch_many,
    task,
)
from jobsched.batch import Batch
from jobsched.context import CurrentJob, current_job
from jobsched.dispatcher import Dispatcher, Job, PreparedJob
from jobsched.errors import (
    ArgumentError,
    ConfigError,
    DuplicateJob,
    InvalidOption,
    JobCancelled,
    JobFailed,
    JobNotFound,
    JobschedError,
    PayloadTooLarge,
    QueueFull,
    ResultNotStored,
    ResultTimeout,
    StoreError,
    StoreFull,
    Unavailable,
    UnknownCategory,
    UnknownTask,
)
from jobsched.retry import Backoff, RetryRule
from jobsched.terms import ConcurrencyLimit, Unique
from jobsched.trigger import Cron, Every, Once, Trigger
from jobsched.verdict import Discard, JobCancel, JobInterrupted, JobTimeout, Retry, Snooze

__all__ = [
    "ArgumentError",
    "Backoff",
    "Batch",
    "ConcurrencyLimit",
    "ConfigError",
    "Cron",
    "CurrentJob",
    "Discard",
    "Dispatcher",
    "DuplicateJob",
    "Every",
    "InvalidOption",
    "Job",
    "JobCancel",
    "JobCancelled",
    "JobFailed",
    "JobInterrupted",
    "JobNotFound",
    "JobTimeout",
    "JobschedError",
    "Once",
    "PayloadTooLarge",
    "PreparedJob",
    "QueueFull",
    "ResultNotStored",
    "ResultTimeout",
    "Retry",
    "RetryRule",
    "Snooze",
    "StoreError",
    "StoreFull",
    "Task",
    "Trigger",
    "Unavailable",
    "Unique",
    "UnknownCategory",
    "UnknownTask",
    "adispatch",
    "batch",
    "current_job",
    "default_dispatcher",
    "dispatch",
    "dispatch_many",
    "task",
]
