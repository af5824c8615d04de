"""A module whose workers cannot start while the file `unforkable` is there."""

import os

from recorded_tasks import HERE


def leave() -> None:
    if (HERE / "unforkable").exists():
        os._exit(5)


os.register_at_fork(after_in_child=leave)
