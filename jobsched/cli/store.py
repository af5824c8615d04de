"""The verbs on the store as a whole: backup, verify, restore."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from jobsched.amount import byte_size, many
from jobsched.cli.found import print_finding
from jobsched.cli.options import ConfigOption, JsonOption, configuration
from jobsched.cli.output import clean, note, print_json, say
from jobsched.cli.progress import Progress
from jobsched.cli.reading import settle
from jobsched.clock import SystemClock
from jobsched.config import Config
from jobsched.errors import InvalidOption
from jobsched.store.backup import Restored, read_note
from jobsched.store.backup import backup as make_backup
from jobsched.store.backup import restore as put_back
from jobsched.store.verify import Findings
from jobsched.store.verify import verify as look_over

__all__ = ["backup", "restore", "store_path", "verify"]

_SHOWN = 50


def backup(
    *,
    target: Annotated[Path, typer.Argument(metavar="TARGET", help="A new directory for it.")],
    config: ConfigOption = None,
    json_output: JsonOption = False,
) -> None:
    """Copy the store to a new directory, while the node may run.

    The copy is checked before it gets its name. Exit code 1 if something in it is damaged.

    Examples:
      jobsched backup backups/monday
      jobsched backup "backups/$(date +%F)" --json

    """
    settings = configuration(config)
    path = _existing(settings)
    settle(settings)
    with Progress(quiet=json_output) as progress:
        made = make_backup(path, target, now=SystemClock().now(), progress=progress)
    if json_output:
        print_json({"path": str(target.absolute()), **msgspec.to_builtins(made)})
    else:
        say(f"wrote {target}: {byte_size(made.bytes)}, {_counted(made.jobs)}")
    if made.findings:
        note(f"{many(made.findings, 'finding')} in it, as in the store: jobsched verify {target}")
        raise typer.Exit(1)


def verify(
    *,
    path: Annotated[
        Path | None,
        typer.Argument(metavar="PATH", help="A store or a backup. Default: the configured store."),
    ] = None,
    config: ConfigOption = None,
    json_output: JsonOption = False,
) -> None:
    """Look for damage in a store or backup.

    Reads its pages, every job and the counts, and changes nothing; the node may run. Exit code 1 if
    anything is wrong, with what mends it.

    Examples:
      jobsched verify
      jobsched verify backups/monday --json

    """
    place = path or _existing(configuration(config))
    with Progress(quiet=json_output) as progress:
        found = look_over(place, progress)
    if json_output:
        print_json({"ok": found.is_sound, **msgspec.to_builtins(found)})
    else:
        _print_findings(found)
    if not found.is_sound:
        raise typer.Exit(1)


def restore(
    *,
    source: Annotated[Path, typer.Argument(metavar="BACKUP", help="The directory of a backup.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    damaged: Annotated[
        bool, typer.Option("--damaged", help="Take a backup with damaged jobs in it as well.")
    ] = False,
    config: ConfigOption = None,
    json_output: JsonOption = False,
) -> None:
    """Put a backup in the place of the store. No node may run, and nothing may have the store open.

    The backup is checked first. What is there now is kept, in STORE.before-restore-TIME,
    or in STORE where nothing can be put beside it.

    Examples:
      jobsched restore backups/monday
      jobsched restore backups/monday --yes --json

    """
    path = store_path(configuration(config))
    if not yes:
        _ask(source, path)
    with Progress(quiet=json_output) as progress:
        now = SystemClock().now()
        done = put_back(source, path, now=now, accept_damaged=damaged, progress=progress)
    if json_output:
        print_json(msgspec.to_builtins(done))
    else:
        _print_restored(source, done)


def store_path(config: Config) -> Path:
    """Return the directory of the configured store. Raises InvalidOption for memory:, which has none."""
    if config.store.kind == "memory":
        raise InvalidOption("a memory: store has no files; backup, verify and restore are for lmdb:")
    return config.store.path


def _existing(config: Config) -> Path:
    path = store_path(config)
    if not (path / "data.mdb").exists():
        raise InvalidOption(f"no store at {path} yet: nothing was dispatched")
    return path


def _counted(jobs: Mapping[str, int]) -> str:
    """Return counts by state in one line, without the zeros."""
    parts = ", ".join(f"{count:,} {state}" for state, count in jobs.items() if count)
    return many(sum(jobs.values()), "job") + (f" ({parts})" if parts else "")


def _print_findings(found: Findings) -> None:
    if found.is_sound:
        say(f"{found.path}: whole; format {found.format}, {byte_size(found.bytes)}, {_counted(found.jobs)}")
        return
    for finding in found.findings[:_SHOWN]:
        lines = [finding.job, finding.text] if finding.job else [finding.text]
        print_finding(finding.kind, lines, finding.mend, "red")
    more = f", {found.total - _SHOWN:,} of them not shown: see --json" if found.total > _SHOWN else ""
    note(f"{found.path}: {many(found.total, 'finding')}{more}")


def _ask(source: Path, path: Path) -> None:
    """Have the user agree. Raises InvalidOption where nobody can be asked."""
    if not sys.stdin.isatty():
        raise InvalidOption("restore replaces the store: pass --yes where nobody can be asked")
    about = read_note(source)
    if about is not None:
        say(f"backup  {source}, of {about.at}: {_counted(about.jobs)}")
    say(f"store   {path}{'' if (path / 'data.mdb').exists() else ', which does not exist yet'}")
    sys.stdout.write("replace it? [y/N] ")
    sys.stdout.flush()
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        say("nothing was changed")
        raise typer.Exit(1)


def _print_restored(source: Path, done: Restored) -> None:
    say(f"restored {done.path} from {clean(str(source))}: {_counted(done.jobs)}")
    running = done.jobs.get("in_progress", 0)
    if running:
        say(f"{many(running, 'job')} that ran then: back to their place when the node starts")
    if done.backup is not None:
        say(f"as of {done.backup.at}: jobs dispatched since are not in it, jobs that ended since run again")
    if done.findings:
        note(f"{many(done.findings, 'finding')} in it: jobsched verify")
    if done.aside is not None:
        say(f"what was there: {done.aside}")
