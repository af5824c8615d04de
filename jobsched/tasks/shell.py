"""The built-in task `shell`: runs a program, without a shell."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import time
from typing import Any

from jobsched import InvalidOption, RetryRule, current_job, task
from jobsched.context import NotInJob
from jobsched.fence import MARKER
from jobsched.tasks.program import Program

__all__ = ["ProgramFailed", "ProgramNotStarted", "shell"]

_MOST_OUTPUT = 160 << 10  # of each stream: three bytes for each that is replaced, and a result may have 1 MiB
_LOGGED = 4 << 10  # characters of each stream that a failed attempt keeps
_LAST_LINES = 3
_LAST = 600  # characters of them
_INHERITED = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "TMPDIR", "TZ", "LANG", "LANGUAGE", MARKER)
_HOPELESS = {
    errno.ENOENT, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.ENOEXEC,
    errno.ELOOP, errno.ENAMETOOLONG, errno.E2BIG,
}  # fmt: skip


class ProgramFailed(Exception):
    """A program has ended with a code that is none of `ok_codes`, or was ended for its time."""


class ProgramNotStarted(ProgramFailed):
    """There is no such program or folder, or it may not be run. It is not tried again."""


@task(retry_rules={ProgramNotStarted: RetryRule(0), InvalidOption: RetryRule(0)})
def shell(
    argv: list[str],
    *,
    cwd: str | None = None,
    env: dict[str, str] | None = None,
    input: str | None = None,  # noqa: A002 (as subprocess calls it)
    timeout_s: float | None = None,
    max_output: int = 64 << 10,
    ok_codes: tuple[int, ...] = (0,),
) -> dict[str, Any]:
    """Run a program; return its exit `code`, `stdout`, `stderr`, the seconds that it `took_s`, and how
    many bytes of each stream were `cut`: the last `max_output` bytes are kept.

    No shell reads `argv`. The program gets `env` beside a small environment: PATH, HOME, locale and
    the like, and JOBSCHED_JOB_ID, but nothing else of the worker's. When it has ended, or its time or the
    job's is up, or the job is cancelled, all that it has started is ended too: by SIGTERM, after 0.3 s by
    force. A code that is none of `ok_codes` raises ProgramFailed (-9: ended by signal 9).
    """
    _check(argv, timeout_s, max_output)
    began = time.monotonic()
    program = Program(argv, cwd=cwd, env={**_environment(), **(env or {})}, most=max_output)
    try:
        code = program.run(None if input is None else input.encode(), timeout_s)
    except ValueError as error:
        raise ProgramNotStarted(f"cannot start {argv[0]!r}: {error}") from None
    except OSError as error:
        if error.errno not in _HOPELESS:
            raise
        what = error.filename or argv[0]
        raise ProgramNotStarted(f"cannot start {argv[0]!r}: {what}: {error.strerror}") from None
    if code not in ok_codes:
        _log(program)
        raise ProgramFailed(f"{argv[0]!r} {_how(code, timeout_s)}{_last_lines(program.stderr.text)}")
    return {
        "code": code,
        "stdout": program.stdout.text,
        "stderr": program.stderr.text,
        "took_s": time.monotonic() - began,
        "cut": {"stdout": program.stdout.cut, "stderr": program.stderr.cut},
    }


def _check(argv: list[str], timeout_s: float | None, max_output: int) -> None:
    if isinstance(argv, str) or not argv or not argv[0]:
        raise InvalidOption(f"argv must be a program and its arguments, like ['ls', '-l'], got {argv!r}")
    if timeout_s is not None and not timeout_s > 0:
        raise InvalidOption(f"timeout_s must be above 0, got {timeout_s!r}")
    if not 0 <= max_output <= _MOST_OUTPUT:
        raise InvalidOption(f"max_output must be from 0 to {_MOST_OUTPUT} bytes, got {max_output!r}")


def _environment() -> dict[str, str]:
    """Return what a program gets of the worker's environment: no keys to databases, as they would be in
    the job's output the first time that somebody runs `env`. The marker lets a later node find it.
    """
    kept = {name: value for name, value in os.environ.items() if name in _INHERITED or name.startswith("LC_")}
    with contextlib.suppress(NotInJob):
        kept["JOBSCHED_JOB_ID"] = current_job().id
    return kept


def _how(code: int | None, timeout_s: float | None) -> str:
    if code is None:
        return f"was ended after {timeout_s:g} s, its timeout_s"
    if code >= 0:
        return f"ended with exit code {code}"
    with contextlib.suppress(ValueError):
        return f"was ended by {signal.Signals(-code).name} (code {code})"
    return f"was ended by signal {-code} (code {code})"


def _last_lines(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    last = " | ".join(lines[-_LAST_LINES:])
    return f": {last[-_LAST:]}" if last else ""


def _log(program: Program) -> None:
    """Keep the end of the output with the attempt, as there will be no result."""
    with contextlib.suppress(NotInJob):
        for name, tail in (("stdout", program.stdout), ("stderr", program.stderr)):
            if text := tail.text[-_LOGGED:].rstrip():
                current_job().log(f"the end of {name}:\n{text}")
