"""Options that every verb has, and what they stand for."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from jobsched.config import ENVIRONMENT, Config, find_config, load_config
from jobsched.duration import parse_duration
from jobsched.errors import InvalidOption

__all__ = [
    "ConfigOption",
    "JsonOption",
    "add_verb",
    "configuration",
    "duration",
    "json_value",
    "lower",
    "payload_value",
]


def _inherit(ctx: typer.Context, value: Path | None) -> Path | None:
    """Return the value given here, else the one given before the verb."""
    if value is None and ctx.parent is not None:
        return ctx.parent.params.get("config")
    return value


ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        metavar="FILE",
        callback=_inherit,
        help=f"The configuration. Default: {ENVIRONMENT}, else ./categories.toml.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def add_verb(group: typer.Typer, verb: Callable[..., None], name: str | None = None) -> None:
    """Make a function a verb of a group, with its docstring as the help.

    Click rewraps all paragraphs but those that begin with a backspace: the examples are marked so.
    """
    text = inspect.getdoc(verb) or ""
    group.command(name, help=text.replace("Examples:", "\b\nExamples:"))(verb)


def configuration(given: Path | None) -> Config:
    """Return the configuration of this command.

    Sets JOBSCHED_CONFIG, so that user modules imported here or by a child find the same one.
    """
    config = load_config(find_config(given))
    os.environ[ENVIRONMENT] = str(config.path)
    return config


def duration(option: str, text: str | None) -> float | None:
    """Return the seconds that an option's text stands for."""
    if text is None:
        return None
    try:
        return parse_duration(text)
    except ValueError as error:
        raise InvalidOption(f"{option}: {error}") from None


def json_value(option: str, text: str | bytes) -> object:
    """Return the value of an option's JSON text."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise InvalidOption(f"{option}: not JSON: {lower(str(error))}") from None


def payload_value(text: str | None) -> list[Any] | dict[str, Any] | None:
    """Return the arguments that --payload gives."""
    if text is None:
        return None
    value = json_value("--payload", text)
    if not isinstance(value, list | dict):
        raise InvalidOption(
            f"--payload: expected an object (keyword arguments) or an array (positional ones), got {text}"
        )
    return value


def lower(sentence: str) -> str:
    """Return a sentence as our messages begin: in lower case."""
    return sentence if sentence[:2].isupper() else sentence[:1].lower() + sentence[1:]
