"""categories.toml: what it says as frozen values, and every problem in it at once.

Reading the file and looking for it are the only I/O; the rest is a function of the text.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jobsched.config_keys import (
    BALANCER_KEYS,
    CATEGORY_KEYS,
    DEFAULT_STORE,
    HTTP_KEYS,
    PRESSURE_KEYS,
    RETENTION_KEYS,
    TOP_KEYS,
    read_table,
)
from jobsched.config_values import (
    BalancerConfig,
    CategoryConfig,
    Config,
    DeclaredSchedule,
    HttpConfig,
    PressureConfig,
    RetentionConfig,
    StorePlace,
)
from jobsched.errors import ConfigError
from jobsched.toml_places import Problems, parse_toml

__all__ = [
    "ENVIRONMENT",
    "FILE_NAME",
    "BalancerConfig",
    "CategoryConfig",
    "Config",
    "DeclaredSchedule",
    "HttpConfig",
    "PressureConfig",
    "RetentionConfig",
    "StorePlace",
    "find_config",
    "load_config",
    "load_schedules",
    "parse_config",
]

FILE_NAME = "categories.toml"
ENVIRONMENT = "JOBSCHED_CONFIG"

_SECTIONS = {
    "balancer": BALANCER_KEYS,
    "retention": RETENTION_KEYS,
    "pressure": PRESSURE_KEYS,
    "http": HTTP_KEYS,
}


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
    # Not resolved: a link to the file (as Kubernetes mounts it) must not move the store with it.
    return parse_config(_text(path), path.absolute().parent, path)


def load_schedules(path: Path, config: Config) -> tuple[str, dict[str, DeclaredSchedule]]:
    """Return the schedules that a file declares, and the name under which they are kept as its own: its
    path from the configuration's folder. It has no tables but schedules, unless it is the configuration.

    Raises ConfigError with every problem in it.
    """
    if config.path is not None and path.exists() and path.samefile(config.path):
        return config.source, config.schedules
    text = _text(path)
    report = Problems(str(path), text)
    document = parse_toml(text, report.file)
    source = os.path.relpath(path.absolute(), config.directory)
    read_table(report, (), document, {"schedules": TOP_KEYS["schedules"]})
    schedules = _read_schedules(report, document, config.categories, source)
    report.close()
    return source, schedules


def _text(path: Path) -> str:
    """Return the text of a file. Raises ConfigError."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError([f"{path}: cannot be read: {error.strerror}"]) from None
    try:
        return data.decode("utf-8-sig")  # some editors begin UTF-8 with a byte order mark
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigError([f"{path}:{line}: not UTF-8 text: {error.reason}"]) from None


def parse_config(text: str, directory: Path, path: Path | None = None) -> Config:
    """Return the configuration that a text holds. Raises ConfigError with every problem in it."""
    report = Problems(str(path or FILE_NAME), text)
    document = parse_toml(text, report.file)
    directory = directory.absolute()
    values = read_table(report, (), document, TOP_KEYS)
    sections = {
        name: read_table(report, (name,), document.get(name, {}), keys) for name, keys in _SECTIONS.items()
    }
    categories = _read_categories(report, document)
    source = FILE_NAME if path is None else path.name
    schedules = _read_schedules(report, document, document.get("categories"), source)
    workers = values.setdefault("workers", os.cpu_count() or 1)
    _check_reserves(report, document, workers, categories)
    if "tasks" not in document:
        report.about(("tasks",), "missing; name the modules that define tasks, like tasks = ['shop.tasks']")
    report.close()
    store = values.pop("store", DEFAULT_STORE)
    return Config(
        path=path and path.absolute(),
        directory=directory,
        store=StorePlace(store.kind, directory / store.path),
        balancer=BalancerConfig(**sections["balancer"]),
        retention=RetentionConfig(**sections["retention"]),
        pressure=PressureConfig(**sections["pressure"]),
        http=HttpConfig(**sections["http"]),
        categories={name: CategoryConfig(**fields) for name, fields in categories.items()},
        schedules=schedules,
        **values,
    )


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
    fields = read_table(report, path, table, CATEGORY_KEYS)
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


def _read_schedules(
    report: Problems, document: dict[str, Any], categories: Any, source: str
) -> dict[str, DeclaredSchedule]:
    """Return the schedules, in the order of the file."""
    tables = document.get("schedules")
    if tables is None:
        return {}
    from jobsched.schedule_tables import read_schedules  # noqa: PLC0415 (triggers are slow to import)

    return read_schedules(report, tables, categories if isinstance(categories, Mapping) else {}, source)


def _check_reserves(
    report: Problems, document: dict[str, Any], workers: int, categories: Mapping[str, dict[str, Any]]
) -> None:
    """Note when the categories keep more workers than there are."""
    reserved = sum(fields.get("min_workers", 0) for fields in categories.values())
    if reserved > workers:
        whence = "" if "workers" in document else " (the number of CPUs)"
        report.about(("workers",), f"{workers}{whence} is below the sum of min_workers, which is {reserved}")
