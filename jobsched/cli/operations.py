"""The verbs that change jobs: retry, delete, cancel."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from jobsched.cli.changes import (
    Change,
    Settings,
    answer_named,
    answer_where,
    change_named,
    change_where,
    conditions,
    dispatching,
)
from jobsched.cli.options import ConfigOption, JsonOption, configuration, duration
from jobsched.dispatcher import Dispatcher
from jobsched.errors import InvalidOption
from jobsched.job import CANCELLABLE, RETRYABLE, State, is_final
from jobsched.job_id import parse_id

__all__ = ["CANCEL", "DELETE", "RETRY", "cancel", "delete", "retry"]

RETRY = Change(
    verb="retry",
    done="retried",
    send=lambda dispatcher, ids: dispatcher.retry(ids),
    states=RETRYABLE,
    to=frozenset({State.PENDING}),
    is_destructive=False,
    only_named=frozenset({State.SCHEDULED}),  # a delay is no mishap that a retry mends
)
DELETE = Change(
    verb="delete",
    done="deleted",
    send=lambda dispatcher, ids: dispatcher.delete(ids),
    states=frozenset(State) - {State.IN_PROGRESS},
    to=frozenset({None}),
    is_destructive=True,
)
CANCEL = Change(
    verb="cancel",
    done="cancelled",
    send=lambda dispatcher, ids: dispatcher.cancel(ids),
    states=CANCELLABLE | {State.IN_PROGRESS},
    to=frozenset({State.CANCELLED, State.IN_PROGRESS}),
    is_destructive=True,
)

_Ids = Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Job ids, or 6+ digits of each.")]
_Where = Annotated[
    list[str] | None,
    typer.Option("--where", metavar="COND", help="All jobs that meet conditions; repeatable."),
]
_DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")]
_Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def retry(
    *,
    ids: _Ids = None,
    where: _Where = None,
    dry_run: _DryRun = False,
    config: ConfigOption = None,
    json_output: JsonOption = False,
) -> None:
    """Send jobs to their queues again.

    They go to the end, with all their retries. Those that failed, were cancelled, parked or
    quarantined, or wait for their time; the last with --where only where it names their state.
    Conditions are on state, category, task, name, error, age, attempt, priority and id. Exit code 1
    if one of the named jobs could not be sent.

    Examples:
      jobsched retry 3e4f60 81ab02
      jobsched retry --where 'state=failed, category=mail, error~timeout'
      jobsched retry --where 'state=quarantined and age<1d' --dry-run

    """
    settings = Settings(config=configuration(config), dry_run=dry_run, yes=True, json_output=json_output)
    _operate(RETRY, settings, ids, where)


def delete(
    *,
    ids: _Ids = None,
    where: _Where = None,
    dry_run: _DryRun = False,
    yes: _Yes = False,
    config: ConfigOption = None,
    json_output: JsonOption = False,
) -> None:
    """Forget jobs that do not run, waiting ones too. It cannot be undone.

    Conditions are those of retry. Exit code 1 if one of the named jobs could not be deleted.

    Examples:
      jobsched delete 3e4f60
      jobsched delete --where 'state=failed|cancelled, age>1d' --dry-run
      jobsched delete --where 'state=parked, task=shop.old:*' --yes --json

    """
    settings = Settings(config=configuration(config), dry_run=dry_run, yes=yes, json_output=json_output)
    _operate(DELETE, settings, ids, where)


def cancel(
    *,
    ids: _Ids = None,
    where: _Where = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until running ones have ended.")] = False,
    timeout: Annotated[
        str | None, typer.Option(metavar="30s", help="Wait no longer than this, with --wait.")
    ] = None,
    dry_run: _DryRun = False,
    yes: _Yes = False,
    config: ConfigOption = None,
    json_output: JsonOption = False,
) -> None:
    """Cancel jobs. Prints the state that each named one has now.

    A running one is asked to end: by itself, then by an exception, then by force; with --wait it is
    said how it ended. Conditions are those of retry. Exit code 1 if one of the named jobs could not
    be cancelled, or, with --wait, did not end as cancelled.

    Examples:
      jobsched cancel 3e4f60
      jobsched cancel 3e4f60 81ab02 --wait --timeout 30s
      jobsched cancel --where 'category=mail, state=scheduled' --yes --json

    """
    limit = duration("--timeout", timeout)
    if limit is not None and not wait:
        raise InvalidOption("--timeout is for --wait: pass both")
    settings = Settings(config=configuration(config), dry_run=dry_run, yes=yes, json_output=json_output)
    _operate(CANCEL, settings, ids, where, _Waiting(limit) if wait and not dry_run else None)


class _Waiting:
    """Waits until jobs have ended, for so many seconds in all, None without end."""

    def __init__(self, limit_s: float | None) -> None:
        self._deadline = None if limit_s is None else time.monotonic() + limit_s

    def end_of(self, dispatcher: Dispatcher, row: dict[str, Any]) -> dict[str, Any]:
        """Return what became of a job that ran: its state, its error's cause, whether it is cancelled."""
        left = None if self._deadline is None else max(0.001, self._deadline - time.monotonic())
        found = dispatcher.look(parse_id(row["id"]), left)
        state = None if found is None else found.status.state
        return {
            "id": row["id"],
            "state": None if state is None else str(state),
            "error": found.error.cause if found and found.error and is_final(found.status.state) else None,
            "changed": state is State.CANCELLED,
        }


def _operate(
    change: Change,
    settings: Settings,
    ids: list[str] | None,
    where: list[str] | None,
    waiting: _Waiting | None = None,
) -> None:
    """Change the jobs that are named or meet conditions, and say what was done."""
    wanted = conditions(ids, where)
    with dispatching(settings.config) as dispatcher:
        if wanted is None:
            rows = change_named(change, settings, dispatcher, ids or [])
            if waiting is not None:
                is_running = str(State.IN_PROGRESS)
                rows = [
                    waiting.end_of(dispatcher, row) if row["state"] == is_running else row for row in rows
                ]
            answer_named(change, settings, rows)
            return
        done = change_where(change, settings, dispatcher, wanted)
        ended = [waiting.end_of(dispatcher, {"id": job}) for job in done.running] if waiting else []
        answer_where(change, settings, done, ended)
        if not all(row["changed"] for row in ended):
            raise typer.Exit(1)
