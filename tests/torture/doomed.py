"""Processes that open damaged stores, and may be ended by them."""

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

_ALL_S = 1800.0


class Tried(NamedTuple):
    """What was tried, and what came of it: None if it ended the process, with `code` then."""

    what: Any
    result: Any
    code: int = 0


class Doomed:
    """A script that tries one thing after the other: it prints {"try": …} before and {"result": …}
    after each, as a line, and takes as its last word how many to leave out. Where one ends it, it is
    started again behind that. It runs while this is entered.
    """

    def __init__(self, script: Path, words: Sequence[object], output: Path) -> None:
        self._command = [sys.executable, str(script), *map(str, words)]
        self._output = output
        self._done = 0
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._start()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.communicate()

    def _start(self) -> None:
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                [*self._command, str(self._done)], stdout=output, stderr=subprocess.PIPE
            )

    def tried(self) -> Iterator[Tried]:
        """Yield what was tried, in order."""
        while True:
            assert self._process is not None
            _, said = self._process.communicate(timeout=_ALL_S)
            lines = [json.loads(line) for line in self._output.read_text().splitlines()]
            tries = [line["try"] for line in lines if "try" in line]
            results = [line["result"] for line in lines if "result" in line]
            yield from (Tried(what, result) for what, result in zip(tries, results, strict=False))
            self._done += len(tries)
            code = self._process.returncode
            if code == 0:
                return
            assert len(tries) > len(results), f"it failed: {said.decode()[-2000:]}"
            yield Tried(tries[-1], None, code)
            self._start()
