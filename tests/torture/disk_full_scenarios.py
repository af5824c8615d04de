"""Full disks: what cannot be kept is refused, what was accepted is done, and room is used again."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence

from scenario import HERE, Figure, Torture, scenario

_MIB = 8
_WAYS = ("store", "others")
_CYCLE_S = 120.0


@scenario("disk-full", quick={"cycles": 1}, full={"cycles": 50})
def disk_full(torture: Torture, cycles: int) -> dict[str, Figure]:
    """Fill a small disk, by the store or by others: refusals are clear, accepted jobs finish."""
    return on_small_disks(torture, "disk_full_work.py", cycles)


@scenario("disk-full-schedules", quick={"cycles": 1}, full={"cycles": 20})
def disk_full_schedules(torture: Torture, cycles: int) -> dict[str, Figure]:
    """Fill a small disk while schedules fire: no due time is lost or doubled, all go on with room."""
    return on_small_disks(torture, "disk_full_schedules_work.py", cycles)


def on_small_disks(torture: Torture, program: str, cycles: int) -> dict[str, Figure]:
    """Run a program on a disk that the store fills, and on one that others fill."""
    namespace = own_mounts()
    if namespace is None:
        return {"skipped": "no mount namespace: neither root nor unshare -Urm may mount a tmpfs here"}
    figures: dict[str, Figure] = {}
    for way in _WAYS:
        torture.progress(f"the disk is filled by {way}")
        folder = torture.folder / way
        folder.mkdir()
        words = [str(folder), str(_MIB), str(cycles), str(torture.rng.randrange(1 << 30)), way]
        done = subprocess.run(
            [*namespace, sys.executable, str(HERE / program), *words],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            timeout=_CYCLE_S * cycles,
            check=False,
        )
        if torture.check(done.returncode == 0, f"{way}: {done.stderr.decode()[-2000:]}"):
            line = json.loads(done.stdout)
            figures[way] = line["figures"]
            for text, count in line["wrong"].items():
                torture.check(False, f"{way}: {text} [{count} times]")
    return figures


def own_mounts() -> Sequence[str] | None:
    """Return the command words that give a process mounts of its own, None where nothing does."""
    unshare = shutil.which("unshare")
    if unshare is None:
        return None
    words = [unshare, "-m"] if os.geteuid() == 0 else [unshare, "-Urm"]
    probe = [*words, "mount", "-t", "tmpfs", "none", "/mnt"]
    return words if subprocess.run(probe, capture_output=True, check=False).returncode == 0 else None
