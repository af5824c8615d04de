import dataclasses
import enum
import functools
import inspect
import uuid
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from jobsched import definition
from jobsched.definition import TaskDefinition, name_of
from jobsched.errors import ArgumentError, InvalidOption, UnknownTask

if TYPE_CHECKING:
    from some_library import Unknown


class Colour(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class User:
    name: str
    born: datetime | None = None


@dataclasses.dataclass
class Account:
    number: int

    def __post_init__(self) -> None:
        raise LookupError(f"{self.number} is not open")


class Mailer:
    def send(self, to: str) -> None: ...

    @staticmethod
    def receive() -> None: ...


def send(to: str, subject: str = "", *, urgent: bool = False) -> str: ...


def everything(
    key: uuid.UUID, at: datetime, price: Decimal, tags: set[int], user: User, *, colour: Colour
) -> None: ...


def variadic(first: float, *rest: Decimal, flag: bool = False, **others: uuid.UUID) -> None: ...


def positional(a: int, /, b: int) -> None: ...


def loose(a, b: Any, c: object = None) -> None: ...


def for_checkers(a: "Unknown", b: int) -> None: ...


def with_defaults(tags: set[int] = frozenset(), user: User | None = None) -> None: ...


def unbuildable(folder: Path, mailer: Mailer | None = None) -> None: ...


def no_code(rows: "list of int") -> None: ...  # noqa: F722 (that is the point)


def refusing(account: Account) -> None: ...


def defined(function, **fields) -> TaskDefinition:
    return TaskDefinition(name=f"m:{function.__name__}", function=function, **fields)


@pytest.fixture
def registry(monkeypatch):
    """An empty registry."""
    registry: dict[str, TaskDefinition] = {}
    monkeypatch.setattr(definition, "_registry", registry)
    return registry


# Names.


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (send, f"{__name__}:send"),
        (Mailer.send, f"{__name__}:Mailer.send"),
        (Mailer.receive, f"{__name__}:Mailer.receive"),
        (functools.wraps(send)(functools.partial(send)), f"{__name__}:send"),
        (uuid.uuid4, "uuid:uuid4"),
    ],
)
def test_a_task_is_named_by_module_and_qualified_name(function, name):
    assert name_of(function) == name


def test_a_lambda_or_a_nested_function_is_no_task():
    def nested() -> None: ...

    for function in (nested, lambda: 1):
        with pytest.raises(InvalidOption, match="cannot be imported by a worker: define the task at the top"):
            name_of(function)


@pytest.mark.parametrize("thing", [functools.partial(send), Mailer(), 5, "m:send", None])
def test_what_has_no_name_is_no_task(thing):
    with pytest.raises(InvalidOption, match="is not a function"):
        name_of(thing)


def test_a_name_may_take_200_characters():
    def function() -> None: ...

    function.__qualname__ = "f" * (200 - len(f"{__name__}:"))
    assert len(name_of(function)) == 200
    function.__qualname__ += "f"
    with pytest.raises(InvalidOption, match="longer than 200"):
        name_of(function)


# The registry.


def test_a_registered_task_is_found_and_a_new_one_replaces_it(registry):
    first, second = defined(send), defined(send, category="mail")
    definition.register(first)
    assert definition.find("m:send") is first
    definition.register(second)
    assert definition.find("m:send") is second
    assert definition.known() == {"m:send": second}


def test_an_unknown_task_is_refused_with_the_nearest_name(registry):
    definition.register(defined(send))
    with pytest.raises(UnknownTask, match=r"unknown task 'm:sned', did you mean 'm:send'\?"):
        definition.find("m:sned")


def test_what_is_known_is_a_copy(registry):
    definition.known()["m:send"] = defined(send)
    assert definition.known() == {}


# Signatures.


@pytest.mark.parametrize(
    ("function", "args", "kwargs"),
    [
        (send, ["a@b.c"], {}),
        (send, [], {"to": "a@b.c", "urgent": True}),
        (variadic, [1, 2, 3], {"flag": True, "more": 1}),
        (positional, [1], {"b": 2}),
    ],
)
def test_arguments_that_fit_are_accepted(function, args, kwargs):
    defined(function).check(args, kwargs)


@pytest.mark.parametrize(
    ("function", "args", "kwargs", "message"),
    [
        (send, [], {}, "missing a required argument: 'to'"),
        (send, ["a", "b", "c"], {}, "too many positional arguments"),
        (send, ["a"], {"to": "b"}, "multiple values for argument 'to'"),
        (send, ["a"], {"subjct": "b"}, "unexpected keyword argument 'subjct'"),
        (positional, [], {"a": 1, "b": 2}, "'a'"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_with_the_signature(function, args, kwargs, message):
    with pytest.raises(ArgumentError) as caught:
        defined(function).check(args, kwargs)
    assert f"task 'm:{function.__name__}': " in str(caught.value)
    assert message in str(caught.value)
    assert str(inspect.signature(function)) in str(caught.value)


def test_a_coroutine_function_is_told_from_others():
    async def later() -> None: ...

    assert defined(later).is_async
    assert not defined(send).is_async


# Conversion.


def test_plain_values_become_the_annotated_types():
    key = uuid.UUID(int=5)
    args, kwargs = defined(everything).fit(
        [str(key), "2026-02-28T12:00:00Z", "1.50", [1, 1, 2]],
        {"user": {"name": "ada", "born": datetime(1815, 12, 10, tzinfo=UTC)}, "colour": "red"},
    )
    at = datetime(2026, 2, 28, 12, tzinfo=UTC)
    user = User("ada", datetime(1815, 12, 10, tzinfo=UTC))
    assert args == (key, at, Decimal("1.50"), {1, 2}, user)
    assert kwargs == {"colour": Colour.RED}


def test_variadic_arguments_are_converted_one_by_one():
    key = uuid.UUID(int=5)
    args, kwargs = defined(variadic).fit([1, "2.5", 3], {"flag": True, "key": str(key)})
    assert args == (1.0, Decimal("2.5"), Decimal(3))
    assert isinstance(args[0], float)
    assert kwargs == {"flag": True, "key": key}


@pytest.mark.parametrize(
    ("function", "args", "kwargs", "message"),
    [
        (send, [5], {}, "args.to of task 'm:send': Expected `str`, got `int`"),
        (send, ["a"], {"urgent": 1}, "args.urgent of task 'm:send': Expected `bool`, got `int`"),
        (variadic, [1, "2", "x"], {}, "args.rest of task 'm:variadic': Invalid decimal string"),
        (variadic, [1], {"key": 5}, "args.others of task 'm:variadic': Expected `uuid`, got `int`"),
        (with_defaults, [], {"user": {"name": 5}}, "args.user of task 'm:with_defaults': Expected `str`"),
    ],
)
def test_a_value_of_another_type_is_refused_by_the_parameters_name(function, args, kwargs, message):
    with pytest.raises(ArgumentError) as caught:
        defined(function).fit(args, kwargs)
    assert message in str(caught.value)


def test_a_parameter_that_is_not_passed_keeps_its_default():
    assert defined(with_defaults).fit([], {}) == ([], {})
    args, kwargs = defined(with_defaults).fit([[1, 1]], {})
    assert inspect.signature(with_defaults).bind(*args, **kwargs).arguments == {"tags": {1}}


def test_parameters_without_a_type_are_left_alone():
    value = object()
    assert defined(loose).fit(["a", {"b": 1}], {"c": value}) == (("a", {"b": 1}, value), {})


def test_annotations_that_only_a_type_checker_understands_are_left_alone():
    assert defined(for_checkers).fit(["anything", "text"], {}) == (["anything", "text"], {})


def test_annotations_that_msgspec_cannot_build_are_left_alone():
    assert defined(unbuildable).fit(["/tmp", "mailer"], {}) == (("/tmp", "mailer"), {})


def test_annotations_that_are_no_code_are_left_alone():
    assert defined(no_code).fit([[1]], {}) == ([[1]], {})


def test_a_class_that_refuses_its_values_refuses_the_argument():
    with pytest.raises(ArgumentError, match=r"args\.account of task 'm:refusing': 5 is not open"):
        defined(refusing).fit([{"number": 5}], {})


def test_conversion_leaves_the_callers_arguments_as_they_are():
    args, kwargs = ["1.5"], {"key": str(uuid.UUID(int=1))}
    defined(variadic).fit([1, *args], kwargs)
    assert (args, kwargs) == (["1.5"], {"key": str(uuid.UUID(int=1))})
