"""Tasks: named functions that jobs run, and the registry that finds them by name."""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import msgspec

from jobsched.errors import ArgumentError, InvalidOption, UnknownTask
from jobsched.job import NO_TERMS, Terms
from jobsched.retry import Backoff, RetryRule
from jobsched.terms import Unique, task_limit

__all__ = ["TaskDefinition", "definition_of", "find", "keep_off", "known", "lookup", "name_of", "register"]

_MAX_NAME = 200


_BY_POSITION = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class TaskDefinition(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """A function with its name and the defaults of its jobs.

    What is None here is taken from the category's settings. Times are in seconds. `retry_rules` say
    what is different for some kinds of errors; `kill_after_s` is how long after its time limit a
    run that goes on is killed; `max_running` limits the runs at the same time.
    """

    name: str
    function: Callable[..., Any]
    category: str | None = None
    priority: int = 0
    max_retries: int | None = None
    timeout_s: float | None = None
    backoff: Backoff = msgspec.field(default_factory=Backoff)
    retry_rules: Mapping[type[BaseException], RetryRule] = msgspec.field(default_factory=dict)
    kill_after_s: float | None = None
    expires_in_s: float | None = None
    at_most_once: bool = False
    max_running: int | None = None
    unique: Unique | None = None

    @property
    def has_terms(self) -> bool:
        """Whether its jobs run on terms that a worker can tell the node of."""
        return self.at_most_once or self.max_running is not None

    def terms(self) -> Terms:
        """Return the terms that do not depend on a dispatch."""
        if self.max_running is None and not self.at_most_once:
            return NO_TERMS
        limits = () if self.max_running is None else (task_limit(self.name, self.max_running),)
        return Terms(at_most_once=self.at_most_once, limits=limits)

    @functools.cached_property
    def signature(self) -> inspect.Signature:
        """The function's parameters."""
        return inspect.signature(self.function)

    @functools.cached_property
    def parameters(self) -> tuple[str, ...]:
        """The names of the function's parameters."""
        return tuple(self.signature.parameters)

    @functools.cached_property
    def is_async(self) -> bool:
        """Whether it is an `async def`."""
        return inspect.iscoroutinefunction(self.function)

    def check(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Raise ArgumentError if the function cannot be called with these arguments."""
        most, least = self._plain_form
        if least <= len(args) <= most and not kwargs:
            return
        try:
            self.signature.bind(*args, **kwargs)
        except TypeError as error:
            raise ArgumentError(f"task {self.name!r}: {error}; it takes {self.signature}") from None

    def takes(self, least: int, most: int) -> bool:
        """Say whether the function can be called with arguments by position alone, from so few to so many;
        False where only its signature can tell.
        """
        places, needed = self._plain_form
        return needed <= least and most <= places

    @functools.cached_property
    def _plain_form(self) -> tuple[int, int]:
        """How many arguments the function takes by position, and how many it needs so, where nothing
        has to be named: to bind a signature takes ten times as long as to compare these.
        """
        kinds = inspect.Parameter
        places = [one for one in self.signature.parameters.values() if one.kind in _BY_POSITION]
        named = any(
            one.kind is kinds.KEYWORD_ONLY and one.default is kinds.empty
            for one in self.signature.parameters.values()
        )
        needed = sum(one.default is kinds.empty for one in places)
        return len(places), len(places) + 1 if named else needed

    @functools.cached_property
    def _converters(self) -> dict[str, Any]:
        """The annotated type of each parameter that msgspec can convert to."""
        try:
            hints = typing.get_type_hints(self.function, include_extras=True)
        except Exception:  # noqa: BLE001 (evaluates the user's annotations)
            return {}  # only a type checker understands them
        return {
            name: hints[name]
            for name in self.signature.parameters
            if name in hints and hints[name] is not Any and _is_convertible(hints[name])
        }

    @functools.cached_property
    def _places(self) -> Sequence[tuple[str, Any]]:
        """The name of each parameter that is given by position, and its type to convert to, if any; empty
        where there is nothing to convert at all.
        """
        converters = self._converters
        return [
            (name, converters.get(name))
            for name, one in self.signature.parameters.items()
            if converters and one.kind in _BY_POSITION
        ]

    def fit(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Sequence[Any], Mapping[str, Any]]:
        """Return plain arguments as the function takes them, converted to the annotated types.

        Raises ArgumentError if it cannot be called with them, naming the parameter that does not fit.
        """
        most, least = self._plain_form
        if not kwargs and least <= len(args) <= most:
            if args and self._places:
                args = tuple(
                    value if kind is None else self._convert_one(name, kind, value)
                    for value, (name, kind) in zip(args, self._places, strict=False)
                )
            return args, kwargs
        self.check(args, kwargs)
        if not self._converters:
            return args, kwargs
        bound = self.signature.bind(*args, **kwargs)
        for name, kind in self._converters.items():
            if name in bound.arguments:
                bound.arguments[name] = self._convert_one(name, kind, bound.arguments[name])
        return bound.args, bound.kwargs

    def _convert_one(self, name: str, kind: Any, value: Any) -> Any:
        form = self.signature.parameters[name].kind
        if form is inspect.Parameter.VAR_POSITIONAL:
            kind = tuple[kind, ...]
        elif form is inspect.Parameter.VAR_KEYWORD:
            kind = dict[str, kind]
        try:
            return msgspec.convert(value, kind, dec_hook=_cannot_build)
        except _NotBuilt:
            return value
        except Exception as error:  # noqa: BLE001 (a class of the user's may refuse its values)
            raise ArgumentError(f"args.{name} of task {self.name!r}: {error}") from None


class _NotBuilt(Exception):
    """A class that msgspec has no rule for: the task gets the plain value."""


def _cannot_build(kind: type, _: Any) -> Any:
    raise _NotBuilt(kind)


def _is_convertible(kind: Any) -> bool:
    try:
        msgspec.msgpack.Decoder(kind)
    except (TypeError, ValueError, NameError):
        return False
    return True


# The one registry: filled by @task while modules are imported, read when jobs are dispatched or run.
_registry: dict[str, TaskDefinition] = {}
_off: set[str] = set()  # what it does not take: filled before the modules are imported


def keep_off(names: Collection[str]) -> None:
    """Do not know some tasks in this process, whoever imports their modules."""
    _off.update(names)
    for name in names:
        _registry.pop(name, None)


def register(definition: TaskDefinition) -> None:
    """Make a task known by its name. A module imported again replaces its own."""
    if definition.name not in _off:
        _registry[definition.name] = definition


def find(name: str) -> TaskDefinition:
    """Return the task of a name. Raises UnknownTask with the nearest one."""
    try:
        return _registry[name]
    except KeyError:
        raise UnknownTask(name, _registry) from None


def lookup(name: str) -> TaskDefinition | None:
    """Return the task of a name, None if this process does not know it."""
    return _registry.get(name)


def definition_of(function: Callable[..., Any]) -> TaskDefinition:
    """Return the task that a function is. Raises InvalidOption when it is none."""
    name = name_of(function)
    definition = lookup(name)
    if definition is None:
        raise InvalidOption(f"{name} is not a task: put @task above it")
    return definition


def known() -> dict[str, TaskDefinition]:
    """Return all tasks defined so far, by name."""
    return dict(_registry)


def name_of(function: Callable[..., Any]) -> str:
    """Return the name under which workers find a function: ``module:qualname``.

    Raises InvalidOption for a lambda or a function inside another: no other process can import it.
    """
    module, qualname = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    if not module or not qualname:
        raise InvalidOption(f"{function!r} is not a function, so it cannot be a task")
    if "<" in qualname:
        raise InvalidOption(
            f"{module}:{qualname} cannot be imported by a worker: define the task at the top of a module"
        )
    name = f"{module}:{qualname}"
    if len(name) > _MAX_NAME:
        raise InvalidOption(f"the task name {name!r} is longer than {_MAX_NAME} characters")
    return name
