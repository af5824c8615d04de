"""Power cuts: nothing that was acknowledged is lost, whatever part of the unflushed writes is."""

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import Any

import preload
from doomed import Doomed
from nodes import Project, eventually
from power_cut_images import PARTS
from random_turns import KINDS
from scenario import HERE, Figure, Torture, scenario

from jobsched.journal.file import journal_files
from jobsched.store.place import JOURNALS

_TURNS = 60
_CLIENTS = 3


@scenario("power-cut", quick={"images": 160, "rounds": 1}, full={"images": 24_000, "rounds": 3})
def power_cut(torture: Torture, images: int, rounds: int) -> dict[str, Figure]:
    """Open what power cuts leave of recorded runs: all that was acknowledged is there, whole."""
    missing = preload.why_not()
    if missing:
        return {"skipped": missing}
    library = preload.compiled("record_writes", torture.folder)
    found: Counter[str] = Counter()
    with preload.memory_folder(torture.folder) as memory:
        logs = [log for lap in range(rounds) for log in recordings(torture, library, memory, lap)]
        began = time.monotonic()
        for place, log in enumerate(logs):
            torture.progress(f"{log.name}: recording {place + 1} of {len(logs)}, {found.total()} images")
            found += judge(torture, log, memory, -(-images // len(logs)))
        took = time.monotonic() - began
    return {
        "recordings": len(logs),
        "images": found.total(),
        "images_per_s": round(found.total() / took),
        "acknowledged_lost": found["lost"],
        "store_errors": sum(found.values()) - found["ok"] - found["lost"] - found["unborn"],
        # Cut off in the creation of the store, before its first flush: nothing was promised yet.
        "unopenable_before_first_flush": found["unborn"],
    }


def recordings(torture: Torture, library: Path, memory: Path, lap: int) -> Iterator[Path]:
    """Record runs; yield their logs: one of each kind of turns, and one of a node with clients."""
    for kind in KINDS:
        log = memory / f"{kind}-{lap}.log"
        record_turns(library, memory / f"{kind}-{lap}", log, kind, torture.rng.randrange(1 << 30))
        yield log
    log = memory / f"node-{lap}.log"
    record_node(torture, library, log, lap)
    yield log


def record_turns(library: Path, store: Path, log: Path, kind: str, seed: int, *broken: str) -> None:
    """Record random turns of a kind. `broken` are flags of LMDB that are switched off."""
    words = [str(store), str(log), kind, str(seed), str(_TURNS), *broken]
    settings = preload.environment(library, TORTURE_LOG=log)
    command = [sys.executable, str(HERE / "power_cut_work.py"), *words]
    subprocess.run(command, env={**os.environ, **settings}, check=True)


def record_node(torture: Torture, library: Path, log: Path, lap: int) -> None:
    """Record two lives of a node, with clients that have journals and say what they were told. The first
    node is killed and another one comes, the second is stopped for a while: what it has missed is in the
    journals alone then.
    """
    project = torture.project(f"node-{lap}")
    project.configure({"mail": {}, "reports": {}}, tasks=["power_cut_tasks"])
    project.environment |= preload.environment(library, TORTURE_LOG=log, TORTURE_JOURNALS="1")
    project.environment["PYTHONPATH"] += f":{HERE}"
    for life in range(2):
        node = project.start()
        eventually(node.workers)
        clients = [start_client(torture, project, log) for _ in range(_CLIENTS)]
        eventually(lambda: len(journal_files(project.store_path / JOURNALS)) >= _CLIENTS)
        time.sleep(torture.rng.uniform(0, 0.1))
        if life == 0:
            node.kill()
            node = project.start()
        else:
            with node.stopped():
                time.sleep(0.3)
        for client in clients:
            torture.check(client.wait(120) == 0, "a recorded client died")
        torture.check(node.is_alive, f"the recorded node died: {node.end_of_log}")
        node.terminate()
        eventually(lambda node=node: not node.is_alive)
    project.close()


def start_client(torture: Torture, project: Project, log: Path) -> subprocess.Popen[bytes]:
    words = [project.config, log, torture.rng.randrange(1 << 30)]
    command = [sys.executable, str(HERE / "power_cut_clients.py"), *map(str, words)]
    return subprocess.Popen(command, cwd=project.folder, env=project.environment)


def judge(torture: Torture, log: Path, memory: Path, images: int) -> Counter[str]:
    """Open images of a log in processes of their own; return how many ended how."""
    found: Counter[str] = Counter()
    seed = torture.rng.randrange(1 << 30)
    with ExitStack() as stack:
        runs: list[Doomed] = []
        for part in range(PARTS):
            folder = memory / f"image-{part}"
            folder.mkdir(mode=0o700, exist_ok=True)
            words = (log, folder, seed, images, part)
            run = Doomed(HERE / "power_cut_images.py", words, folder.with_suffix(".out"))
            runs.append(stack.enter_context(run))
        for cut, end, code in chain.from_iterable(run.tried() for run in runs):
            verdict = _verdict(end)
            found[verdict] += 1
            what = end["wrong"] if end else f"whoever opens it ends with {code}"
            torture.check(verdict in ("ok", "unborn"), f"{log.name} --images {seed} {cut}: {what}")
    return found


def _verdict(end: Mapping[str, Any] | None) -> str:
    if end is None:
        return "killed"
    wrong: list[str] = end["wrong"]
    if not wrong:
        return "ok"
    if not end["created"] and all(text.startswith("open: StoreError") for text in wrong):
        return "unborn"
    return "lost" if any(text.startswith("lost") for text in wrong) else str(wrong[0]).partition(":")[0]
