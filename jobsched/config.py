"""categories.toml: what it says as frozen values, and every problem in it at once.

Reading the file and looking for it are the only I/O; the rest is a function of the text.
"""

from __future__ import annotations

import keyword
import os
import re
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import msgspec

from jobsched.allocation import PRIORITIES
from jobsched.duration import parse_duration
from jobsched.errors import ConfigError, UnknownCategory, nearest
from jobsched.toml_places import KeyPath, Problems, parse_toml

__all__ = [
    "ENVIRONMENT",
    "FILE_NAME",
    "BalancerConfig",
    "CategoryConfig",
    "Config",
    "StorePlace",
    "find_config",
    "load_config",
    "parse_config",
]

FILE_NAME = "categories.toml"
ENVIRONMENT = "JOBSCHED_CONFIG"
_DAY_S = 86_400.0

_WeighBy = Literal["backlog", "work"]
_Damping = Annotated[float, msgspec.Meta(ge=0, le=10_000)]
_PRIORITY_RANGE = f"a number from {PRIORITIES[0]:.6f} to {PRIORITIES[1]:.0f}"
_Priority = Annotated[float, msgspec.Meta(ge=PRIORITIES[0], le=PRIORITIES[1])]


class CategoryConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One category: its weight, its limits, and what its jobs do unless their task says otherwise."""

    priority: float = 1
    """The weight of one waiting job against one of another category."""
    min_workers: int = 0
    """Workers that it keeps whatever its backlog."""
    max_workers: int | None = None
    """Workers that it never exceeds; None: the whole budget."""
    max_retries: int = 0
    timeout_s: float | None = None
    """Seconds that one run may take (`timeout` in the file); None: no limit."""


class BalancerConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the worker budget is shared out."""

    every_s: float = 1.0
    """Seconds between two looks at the backlog (`every` in the file)."""
    weigh_by: _WeighBy = "backlog"
    """Count waiting jobs (`backlog`), or their expected run time (`work`)."""
    damping: float = 0.5
    """A number of workers is kept while it is less than 0.5 + this from the ideal share."""


class StorePlace(msgspec.Struct, frozen=True):
    """Where the jobs are kept.

    `path` is absolute: the store's folder, or for `memory` the run folder of the node's socket.
    """

    kind: Literal["lmdb", "memory"]
    path: Path


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that categories.toml says, checked."""

    path: Path | None
    """The file, absolute; None when it was read from a text."""
    directory: Path
    """The file's folder, absolute. Relative store paths start here."""
    store: StorePlace
    workers: int
    tasks: tuple[str, ...]
    grace_s: float = 30.0
    """Seconds that running jobs get to finish at a stop (`grace` in the file)."""
    balancer: BalancerConfig = BalancerConfig()
    categories: dict[str, CategoryConfig]

    def category(self, name: str) -> CategoryConfig:
        """Return a category's settings. Raises UnknownCategory with the nearest name."""
        try:
            return self.categories[name]
        except KeyError:
            raise UnknownCategory(name, self.categories) from None


def find_config(explicit: str | os.PathLike[str] | None = None) -> Path:
    """Return the path of the configuration: the given one, JOBSCHED_CONFIG, ./categories.toml.

    The first of them that is set is taken. Raises ConfigError when it does not exist.
    """
    if explicit is not None:
        path, origin = Path(explicit), "as given"
    elif variable := os.environ.get(ENVIRONMENT):
        path, origin = Path(variable), f"from {ENVIRONMENT}"
    else:
        path, origin = Path(FILE_NAME), f"in {Path.cwd()}; no {ENVIRONMENT} is set"
    if not os.access(path, os.F_OK):
        raise ConfigError([f"no configuration at {path} ({origin}); `jobsched init` writes one"])
    return path


def load_config(path: Path) -> Config:
    """Return the configuration in a file. Raises ConfigError with every problem in it."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError([f"{path}: cannot be read: {error.strerror}"]) from None
    try:
        text = data.decode("utf-8-sig")  # some editors begin UTF-8 with a byte order mark
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigError([f"{path}:{line}: not UTF-8 text: {error.reason}"]) from None
    # Not resolved: a link to the file (as Kubernetes mounts it) must not move the store with it.
    return parse_config(text, path.absolute().parent, path)


def parse_config(text: str, directory: Path, path: Path | None = None) -> Config:
    """Return the configuration that a text holds. Raises ConfigError with every problem in it."""
    report = Problems(str(path or FILE_NAME), text)
    document = parse_toml(text, report.file)
    directory = directory.absolute()
    values = _read_table(report, (), document, _TOP_KEYS)
    balancer = _read_table(report, ("balancer",), document.get("balancer", {}), _BALANCER_KEYS)
    categories = _read_categories(report, document)
    workers = values.setdefault("workers", os.cpu_count() or 1)
    _check_reserves(report, document, workers, categories)
    if "tasks" not in document:
        report.about(("tasks",), "missing; name the modules that define tasks, like tasks = ['shop.tasks']")
    report.close()
    store = values.pop("store", _DEFAULT_STORE)
    return Config(
        path=path and path.absolute(),
        directory=directory,
        store=StorePlace(store.kind, directory / store.path),
        balancer=BalancerConfig(**balancer),
        categories={name: CategoryConfig(**fields) for name, fields in categories.items()},
        **values,
    )


class _Key(NamedTuple):
    """A key of the file: the field that it fills, and how its value is read.

    `read` raises ValueError saying what was expected. A key without `field` is read elsewhere.
    """

    field: str | None
    read: Callable[[Any], Any]


def _read_table(report: Problems, path: KeyPath, table: Any, keys: Mapping[str, _Key]) -> dict[str, Any]:
    """Return the good fields of a table; the bad values and the unknown keys go to the report."""
    fields: dict[str, Any] = {}
    if not isinstance(table, dict):
        report.about(path, f"expected a table, got {_show(table)}")
        return fields
    for name, value in table.items():
        key = keys.get(name)
        if key is None:
            report.about((*path, name), f"unknown key{_hint(path, name, value, keys)}")
        elif key.field is not None:
            try:
                fields[key.field] = key.read(value)
            except ValueError as error:
                report.about((*path, name), str(error))
    return fields


def _hint(path: KeyPath, name: str, value: Any, keys: Mapping[str, _Key]) -> str:
    """Say what an unknown key may have been meant to be."""
    if path[:1] == ("categories",) and isinstance(value, dict):
        return f'; a category name with a dot is quoted: [categories."{path[1]}.{name}"]'
    return nearest(name, keys)


def _read_categories(report: Problems, document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the fields of each category."""
    tables = document.get("categories")
    if not tables or not isinstance(tables, dict):
        report.about(("categories",), "expected at least one category, like [categories.mail]")
        return {}
    return {name: _read_category(report, name, table) for name, table in tables.items()}


def _read_category(report: Problems, name: str, table: Any) -> dict[str, Any]:
    """Return the fields of one category."""
    path = ("categories", name)
    if wrong := _name_problem(name):
        report.say(path, f"category {name!r} {wrong}")
    fields = _read_table(report, path, table, _CATEGORY_KEYS)
    low, high = fields.get("min_workers", 0), fields.get("max_workers")
    if high is not None and low > high:
        report.about((*path, "min_workers"), f"{low} is above max_workers, which is {high}")
    return fields


def _name_problem(name: str) -> str | None:
    """Say what is wrong with a category's name; None if nothing is."""
    if not name:
        return "is empty, expected a name like 'mail'"
    if name != name.strip():
        side = "starts" if name[0].isspace() else "ends"
        return f"{side} with a space"
    if len(name) > 64:  # noqa: PLR2004 (the sentence says what it is)
        return f"has {len(name)} characters, the limit is 64"
    if bad := re.search(r"[^a-z0-9_.-]", name):
        return f"contains {bad[0]!r}, expected lower-case letters, digits, '_', '.' and '-' only"
    if name[0] in "_.-":
        return f"starts with {name[0]!r}, expected a lower-case letter or a digit"
    return None


def _check_reserves(
    report: Problems, document: dict[str, Any], workers: int, categories: Mapping[str, dict[str, Any]]
) -> None:
    """Note when the categories keep more workers than there are."""
    reserved = sum(fields.get("min_workers", 0) for fields in categories.values())
    if reserved > workers:
        whence = "" if "workers" in document else " (the number of CPUs)"
        report.about(("workers",), f"{workers}{whence} is below the sum of min_workers, which is {reserved}")


def _typed(kind: Any, expected: str, first: Callable[[Any], Any] | None = None) -> Callable[[Any], Any]:
    """Return the reader of a value of a type, as msgspec checks it after a first conversion."""

    def read(value: Any) -> Any:
        converted = first(value) if first else value
        try:
            return msgspec.convert(converted, kind)
        except msgspec.ValidationError:
            raise ValueError(f"expected {expected}, got {_show(value)}") from None

    return read


def _duration(low: float, high: float, expected: str) -> Callable[[Any], float]:
    """Return the reader of a duration within bounds, in seconds."""
    return _typed(Annotated[float, msgspec.Meta(ge=low, le=high)], expected, parse_duration)


def _whole(low: int, high: int) -> Callable[[Any], int]:
    """Return the reader of a whole number within bounds."""
    kind = Annotated[int, msgspec.Meta(ge=low, le=high)]
    return _typed(kind, f"a whole number from {low} to {high}")


_LMDB_OR_MEMORY = "expected 'lmdb:FOLDER' or 'memory:'"
_DEFAULT_STORE = StorePlace("lmdb", Path(".jobsched"))


def _read_store(value: Any) -> StorePlace:
    """Return a store's place, its path as written. Shows no more of a URL than its scheme."""
    if not isinstance(value, str) or ":" not in value:
        raise ValueError(f"{_LMDB_OR_MEMORY}, got {_show(value)}")
    scheme, _, rest = value.partition(":")
    if scheme in {"postgresql", "postgres"}:
        raise ValueError(f"{scheme}:// is not available in this version; use lmdb:")
    if scheme == "memory" and not rest:
        return StorePlace("memory", _DEFAULT_STORE.path)
    if scheme != "lmdb":
        raise ValueError(f"{_LMDB_OR_MEMORY}, got {_show(f'{scheme}:' + ('...' if rest else ''))}")
    if not rest or rest != rest.strip() or not rest.isprintable() or rest.startswith(("//", "~")):
        raise ValueError(
            f"expected a folder like 'lmdb:.jobsched' or 'lmdb:/var/lib/jobs', got {_show(value)}"
        )
    return StorePlace("lmdb", Path(rest))


def _read_tasks(value: Any) -> tuple[str, ...]:
    """Return the names of the task modules."""
    modules: tuple[str, ...] = _typed(tuple[str, ...], "a list of module names like ['shop.tasks']")(value)
    if not modules:
        raise ValueError("expected at least one module name like 'shop.tasks', got none")
    wrong = [module for module in modules if not _is_module(module)]
    if wrong:
        raise ValueError(f"expected module names like 'shop.tasks', got {', '.join(map(_show, wrong))}")
    twice = [module for module, count in Counter(modules).items() if count > 1]
    if twice:
        raise ValueError(f"named more than once: {', '.join(map(_show, twice))}")
    return modules


def _is_module(name: str) -> bool:
    """Return whether a text is a module's full name."""
    return all(part.isidentifier() and not keyword.iskeyword(part) for part in name.split("."))


def _show(value: Any) -> str:
    """Return a value as a message shows it: nearly as TOML writes it, and short."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "a table"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."  # noqa: PLR2004 (most of a line)


_elsewhere = _Key(None, _show)

_TOP_KEYS = {
    "store": _Key("store", _read_store),
    "workers": _Key("workers", _whole(1, 10_000)),
    "tasks": _Key("tasks", _read_tasks),
    "grace": _Key("grace_s", _duration(0, _DAY_S, "a duration of at most 1d")),
    "balancer": _elsewhere,
    "categories": _elsewhere,
}

_BALANCER_KEYS = {
    "every": _Key("every_s", _duration(0.05, 3600, "a duration from 50ms to 1h")),
    "weigh_by": _Key("weigh_by", _typed(_WeighBy, "'backlog' or 'work'")),
    "damping": _Key("damping", _typed(_Damping, "a number from 0 to 10000")),
}

_CATEGORY_KEYS = {
    "priority": _Key("priority", _typed(_Priority, _PRIORITY_RANGE)),
    "min_workers": _Key("min_workers", _whole(0, 10_000)),
    "max_workers": _Key("max_workers", _whole(1, 10_000)),
    "max_retries": _Key("max_retries", _whole(0, 1_000_000)),
    "timeout": _Key("timeout_s", _duration(0.001, 365 * _DAY_S, "a duration from 1ms to 365d")),
}
