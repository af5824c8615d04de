"""Where things stand in a TOML text: problems with their lines, which tomllib does not keep."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from typing import Any

from jobsched.errors import ConfigError

__all__ = ["KeyPath", "Problems", "dotted", "parse_toml"]

KeyPath = tuple[str, ...]


class Problems:
    """The problems found so far, each with its line. Filled by the readers below."""

    def __init__(self, file: str, text: str) -> None:
        self.file = file
        self._places = list(_places(text))
        self._problems: list[tuple[float, str]] = []

    def about(self, path: KeyPath, problem: str) -> None:
        """Note a problem of the value at a path."""
        self.say(path, f"{dotted(path)}: {problem}")

    def say(self, path: KeyPath, sentence: str) -> None:
        """Note a problem that names its thing itself; the path only gives the line."""
        line = self._line(path)
        place = self.file if line is None else f"{self.file}:{line}"
        self._problems.append((float("inf") if line is None else line, f"{place}: {sentence}"))

    def close(self) -> None:
        """Raise ConfigError, in the order of the lines, if there was any problem."""
        if self._problems:
            in_order = sorted(self._problems, key=lambda problem: problem[0])
            raise ConfigError([text for _, text in in_order])

    def _line(self, path: KeyPath) -> int | None:
        """Return the line of a key, or of the inline table that holds it; None if not found."""
        for line, place, is_key in self._places:
            if place[: len(path)] == path or (is_key and path[: len(place)] == place):
                return line
        return None


_PART = r"""(?:"(?:[^"\\]|\\.)*"|'[^']*'|[A-Za-z0-9_-]+)"""
_KEY = re.compile(rf"\s*({_PART}(?:\s*\.\s*{_PART})*)\s*=")
_HEADER = re.compile(rf"\s*\[\[?\s*({_PART}(?:\s*\.\s*{_PART})*)\s*\]")


def _places(text: str) -> Iterator[tuple[int, KeyPath, bool]]:
    """Yield line, path and whether it is a key for every key and table header of a text.

    Best effort: tomllib keeps no positions, and multi-line strings are not told apart.
    """
    table: KeyPath = ()
    for line, content in enumerate(text.split("\n"), 1):
        if header := _HEADER.match(content):
            table = _split(header[1])
            yield line, table, False
        elif key := _KEY.match(content):
            yield line, table + _split(key[1]), True


def _split(key: str) -> KeyPath:
    """Return the parts of a dotted key, without their quotes."""
    return tuple(part[1:-1] if part[0] in "\"'" else part for part in re.findall(_PART, key))


def dotted(path: KeyPath) -> str:
    """Return a path as TOML writes it."""
    return ".".join(part if re.fullmatch(r"[A-Za-z0-9_-]+", part) else json.dumps(part) for part in path)


_POSITION = re.compile(r"(.*) \(at (?:line (\d+), column (\d+)|end of document)\)", re.DOTALL)


def parse_toml(text: str, file: str) -> dict[str, Any]:
    """Return the parsed document. Raises ConfigError with line and column where it is not TOML."""
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ConfigError([f"{file}: not valid TOML: nested too deeply"]) from None
    except ValueError as error:  # TOMLDecodeError, and what int() says of 5,000 digits
        message, place = str(error), file
        if found := _POSITION.fullmatch(message):
            end = text.count("\n") + 1, len(text) - text.rfind("\n")
            message, place = found[1], f"{file}:{found[2] or end[0]}:{found[3] or end[1]}"
        raise ConfigError([f"{place}: not valid TOML: {message[:1].lower()}{message[1:]}"]) from None
