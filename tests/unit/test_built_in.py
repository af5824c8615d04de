import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import jobsched
from jobsched import UnknownTask
from jobsched.built_in import BUILT_IN, off
from jobsched.config import parse_config
from jobsched.dispatcher import Dispatcher
from jobsched.store.base import Accepted

SHELL = "jobsched.tasks.shell:shell"
ADVICE = (
    f"unknown task '{SHELL}': it is built in, and off until categories.toml lists its module: "
    "tasks = [..., 'jobsched.tasks.shell']"
)


class Taking:
    """A transport that takes all there is."""

    def exchange(self, requests):
        return [Accepted() for _ in requests]


def dispatcher(*modules):
    return Dispatcher(
        parse_config(f"tasks = {list(modules)}\n[categories.mail]", Path("/srv")), transport=Taking()
    )


def said_by(code):
    """What some Python prints in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout


@pytest.mark.parametrize("name", sorted(BUILT_IN))
def test_each_is_the_task_of_its_module(name):
    module, _, function = name.partition(":")
    task = getattr(importlib.import_module(module), function)
    assert task.name == name
    assert task.category is None
    assert task.function.__doc__.strip()


def test_no_other_module_defines_one():
    code = (
        "import pkgutil, jobsched.tasks as here\n"
        "from importlib import import_module\n"
        "from jobsched import definition\n"
        "for one in pkgutil.iter_modules(here.__path__, 'jobsched.tasks.'): import_module(one.name)\n"
        "print(*sorted(definition.known()))"
    )
    found = said_by(code)
    assert found.split() == sorted(BUILT_IN)


def test_importing_the_package_imports_none_of_them():
    code = "import sys, jobsched; print([name for name in sys.modules if name.startswith('jobsched.tasks')])"
    found = said_by(code)
    assert found == "[]\n"
    assert not hasattr(jobsched, "print")


def test_they_are_off_but_where_their_modules_are_listed():
    assert off(()) == off(("shop.tasks", "jobsched.tasks")) == BUILT_IN
    assert off(("shop.tasks", "jobsched.tasks.shell")) == BUILT_IN - {SHELL}


def test_the_error_says_what_to_add():
    assert str(UnknownTask(SHELL, ["tasks:shell"])) == ADVICE
    assert str(UnknownTask("jobsched.tasks.shell:shel", [SHELL])).endswith(f"did you mean {SHELL!r}?")


def test_a_dispatcher_refuses_what_is_off():
    jobs = dispatcher("shop.tasks")
    prepared = [jobs.prepare("shop.tasks:send", "mail"), jobs.prepare(SHELL, "mail", args=[["true"]])]
    with pytest.raises(UnknownTask) as caught:
        jobs.dispatch_many(prepared)
    assert str(caught.value) == ADVICE
    with pytest.raises(UnknownTask), jobs.batch() as batch:
        batch.dispatch(SHELL, "mail", args=[["true"]])
    assert jobs.dispatch_many(prepared, allow_unknown=True)
    assert dispatcher("jobsched.tasks.shell").dispatch(SHELL, "mail", args=[["true"]])


def test_a_process_that_keeps_one_off_does_not_know_it_whoever_imports_it():
    code = (
        "from jobsched import definition, built_in\n"
        "definition.keep_off(built_in.off(['jobsched.tasks.print']))\n"
        "import jobsched.tasks.print, jobsched.tasks.shell\n"
        "definition.keep_off(())\n"
        "print(*definition.known())\n"
        "definition.keep_off(['jobsched.tasks.print:print'])\n"
        "print(*definition.known())"
    )
    found = said_by(code)
    assert found == "jobsched.tasks.print:print\n\n"
