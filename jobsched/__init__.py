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
from jobsched.context import CurrentJob, current_job
from jobsched.dispatcher import Batch, Dispatcher, Job, PreparedJob
from jobsched.errors import (
    ArgumentError,
    ConfigError,
    InvalidOption,
    JobCancelled,
    JobFailed,
    JobNotFound,
    JobschedError,
    PayloadTooLarge,
    ResultNotStored,
    ResultTimeout,
    StoreError,
    StoreFull,
    Unavailable,
    UnknownCategory,
    UnknownTask,
)
from jobsched.retry import Backoff

__all__ = [
    "ArgumentError",
    "Backoff",
    "Batch",
    "ConfigError",
    "CurrentJob",
    "Dispatcher",
    "InvalidOption",
    "Job",
    "JobCancelled",
    "JobFailed",
    "JobNotFound",
    "JobschedError",
    "PayloadTooLarge",
    "PreparedJob",
    "ResultNotStored",
    "ResultTimeout",
    "StoreError",
    "StoreFull",
    "Task",
    "Unavailable",
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
