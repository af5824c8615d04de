"""The names of the built-in tasks. They are off until the configuration lists their modules: who may
dispatch jobs may not run programs for that.
"""

from __future__ import annotations

from collections.abc import Collection

__all__ = ["BUILT_IN", "how_to_list", "off"]

BUILT_IN = frozenset({"jobsched.tasks.print:print", "jobsched.tasks.http:http", "jobsched.tasks.shell:shell"})


def off(modules: Collection[str]) -> frozenset[str]:
    """Return the built-in tasks that are off where these modules are listed."""
    return frozenset(name for name in BUILT_IN if name.partition(":")[0] not in modules)


def how_to_list(task: str) -> str:
    """Return how an error goes on that refuses a built-in task; nothing for any other."""
    if task not in BUILT_IN:
        return ""
    module = task.partition(":")[0]
    return f": it is built in, and off until categories.toml lists its module: tasks = [..., {module!r}]"
