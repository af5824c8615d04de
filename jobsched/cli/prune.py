"""The verb prune: retention by hand."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import typer

from jobsched.amount import many
from jobsched.cli.changes import dispatching
from jobsched.cli.options import ConfigOption, JsonOption, configuration, duration
from jobsched.cli.output import print_json, say
from jobsched.cli.progress import Progress
from jobsched.cli.reading import reading
from jobsched.cli.where import parse_state
from jobsched.clock import MICROSECONDS, SystemClock
from jobsched.config import Config
from jobsched.errors import InvalidOption
from jobsched.job import State
from jobsched.job_id import ID_BYTES, format_id
from jobsched.keeper import SETTLED_S
from jobsched.store.base import JobStore, Query
from jobsched.store.retention import PRUNABLE

__all__ = ["prune"]

_PAGE = 200
_STEP = 500  # jobs deleted by one request


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rule:
    """What is deleted of the jobs in one state: times are UTC microseconds, `keep` counts the newest.

    Those that ended before `old`; and, `over` it, those that are not among the newest to keep. With
    `both` only those that are old and not among the newest.
    """

    state: State
    old: int
    keep: int | None
    over: int
    both: bool

    def condemns(self, place: int, ended_at: int) -> bool:
        """Return whether the job at that place, the newest being 0, is deleted."""
        is_old = ended_at < self.old
        if self.keep is None:
            return is_old
        is_surplus = place >= self.keep and ended_at < self.over
        return (is_old and is_surplus) if self.both else (is_old or is_surplus)


def prune(
    *,
    state: Annotated[
        str | None,
        typer.Option(metavar="STATE", help="Only completed, failed or cancelled ones. Default: all three."),
    ] = None,
    older_than: Annotated[
        str | None, typer.Option(metavar="7d", help="Those that ended longer ago than this.")
    ] = None,
    keep: Annotated[
        int | None, typer.Option(metavar="N", min=0, help="Keep the newest N of each state.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be deleted.")] = False,
    config: ConfigOption = None,
    json_output: JsonOption = False,
) -> None:
    """Delete jobs that have ended, oldest first.

    The node may run. Without options, by the configured retention. With both --older-than and
    --keep, what is old and not among the newest N. What ended in the last 10 minutes is kept, as a
    client may still repeat its dispatch, but for an --older-than that says otherwise. Parked and
    quarantined jobs are for `jobsched delete`.

    Examples:
      jobsched prune
      jobsched prune --state completed --older-than 7d --dry-run
      jobsched prune --keep 1000 --json

    """
    settings = configuration(config)
    rules = _rules(settings, state, duration("--older-than", older_than), keep, SystemClock().now())
    counts = {str(rule.state): _apply(settings, rule, dry_run=dry_run, quiet=json_output) for rule in rules}
    total = sum(counts.values())
    if json_output:
        print_json(
            {"deleted": 0 if dry_run else total, "matched": total, "dry_run": dry_run, "states": counts}
        )
        return
    parts = ", ".join(f"{count:,} {name}" for name, count in counts.items() if count)
    say(f"{'would delete' if dry_run else 'deleted'} {many(total, 'job')}{f' ({parts})' if parts else ''}")


def _rules(
    config: Config, state: str | None, older_s: float | None, keep: int | None, now: int
) -> list[_Rule]:
    """Return what is to be deleted of each state."""
    wanted = PRUNABLE if state is None else {parse_state(state)}
    for other in wanted - PRUNABLE:
        raise InvalidOption(f"--state: prune is for completed, failed and cancelled jobs, not {other} ones")
    settled = now - int(SETTLED_S * MICROSECONDS)
    if older_s is None and keep is None:
        return [_configured(config, one, now, settled) for one in sorted(wanted)]
    old = 0 if older_s is None else now - int(older_s * MICROSECONDS)
    over, both = (settled, False) if older_s is None else (old, True)
    return [_Rule(state=one, old=old, keep=keep, over=over, both=both) for one in sorted(wanted)]


def _configured(config: Config, state: State, now: int, settled: int) -> _Rule:
    """Return the rule by which the node deletes jobs of a state."""
    retention = config.retention
    age_s = {
        State.COMPLETED: retention.completed_s,
        State.FAILED: retention.failed_s,
        State.CANCELLED: retention.cancelled_s,
    }[state]
    old = 0 if age_s is None else min(settled, now - int(age_s * MICROSECONDS))
    return _Rule(state=state, old=old, keep=retention.keep, over=settled, both=False)


def _apply(config: Config, rule: _Rule, *, dry_run: bool, quiet: bool) -> int:
    """Delete what a rule condemns; return how many jobs those were."""
    with reading(config) as store, Progress(quiet=quiet, doing="looking at") as progress:
        if store is None:
            return 0
        ids = _condemned(store, rule, progress)
        total = len(ids) // ID_BYTES
        return total if dry_run else _delete(config, store, rule, ids, quiet=quiet)


def _condemned(store: JobStore, rule: _Rule, progress: Progress) -> bytearray:
    """Return the ids that a rule condemns, one after the other, the newest first: 16 bytes each."""
    ids = bytearray()
    place = 0
    after: bytes | None = b""
    while after is not None:
        page = store.find(Query(state=rule.state, limit=_PAGE, after=after))
        for job in page.jobs:
            if rule.condemns(place, job.status.ended_at):
                ids += job.id
            place += 1
        after = page.next
        progress(f"{rule.state} jobs", place)
    return ids


def _delete(config: Config, store: JobStore, rule: _Rule, ids: bytearray, *, quiet: bool) -> int:
    """Delete jobs by steps, from the end; return how many are gone."""
    count = 0
    total = len(ids) // ID_BYTES
    with dispatching(config) as dispatcher, Progress(quiet=quiet, doing="deleted") as progress:
        for step in _steps(ids):
            # Somebody may have sent one to its queue again since we looked.
            names = [format_id(job) for job in step if _is_still(store, job, rule)]
            count += sum(state is None for state in dispatcher.delete(names))
            progress(f"{rule.state} jobs", count, total)
    return count


def _steps(ids: bytearray) -> Iterator[list[bytes]]:
    """Yield the ids in steps, from the last to the first."""
    for end in range(len(ids), 0, -_STEP * ID_BYTES):
        begin = max(0, end - _STEP * ID_BYTES)
        yield [bytes(ids[at : at + ID_BYTES]) for at in range(end - ID_BYTES, begin - 1, -ID_BYTES)]


def _is_still(store: JobStore, job_id: bytes, rule: _Rule) -> bool:
    job = store.get(job_id)
    if job is None or job.status.state is not rule.state:
        return False
    return job.status.ended_at < max(rule.old, rule.over)  # else it ran again, and ended anew
