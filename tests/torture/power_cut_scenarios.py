"""Power cuts: nothing that was acknowledged is lost, whatever part of the unflushed writes is."""

import json
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import preload
from nodes import eventually
from power_cut_images import PARTS
from random_turns import KINDS
from scenario import HERE, Figure, Torture, scenario
from write_log import Noted, note

from jobsched import Dispatcher
from jobsched.errors import JobFailed
from jobsched.job import parse_id

_TURNS = 60
_CLIENTS = 3
_JOBS_A_CLIENT = 60
_SIZES = (8, 8, 100, 100, 400, 2500)
_IMAGES_S = 900.0


@scenario("power-cut", quick={"images": 400, "rounds": 1}, full={"images": 24_000, "rounds": 3})
def power_cut(torture: Torture, images: int, rounds: int) -> dict[str, Figure]:
    """Open what power cuts leave of recorded runs: all that was acknowledged is there, whole."""
    missing = preload.why_not()
    if missing:
        return {"skipped": missing}
    library = preload.compiled("record_writes", torture.folder)
    memory = preload.memory_folder(torture.folder) / torture.folder.name
    memory.mkdir(mode=0o700, exist_ok=True)
    try:
        logs = [log for lap in range(rounds) for log in recordings(torture, library, memory, lap)]
        found: Counter[str] = Counter()
        began = time.monotonic()
        for place, log in enumerate(logs):
            torture.progress(f"{log.name}: recording {place + 1} of {len(logs)}, {found.total()} images")
            judged = judge(torture, log, memory, -(-images // len(logs)))
            found += judged
        took = time.monotonic() - began
    finally:
        for path in sorted(memory.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        memory.rmdir()
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
    """Record two lives of a node, with clients that say what they were told."""
    project = torture.project(f"node-{lap}")
    project.configure({"mail": {}, "reports": {}}, tasks=["power_cut_tasks"])
    project.environment |= preload.environment(library, TORTURE_LOG=log)
    project.environment["PYTHONPATH"] += f":{HERE}"
    for _ in range(2):
        node = project.start()
        dispatcher = project.dispatcher()
        seeds = [torture.rng.randrange(1 << 30) for _ in range(_CLIENTS)]
        clients = [threading.Thread(target=be_client, args=(dispatcher, log, seed)) for seed in seeds]
        for client in clients:
            client.start()
        for client in clients:
            client.join(60)
        torture.check(node.is_alive, f"the recorded node died: {node.end_of_log}")
        node.terminate()
        eventually(lambda node=node: not node.is_alive)
    project.close()


def be_client(dispatcher: Dispatcher, log: Path, seed: int) -> None:
    """Dispatch jobs, wait for some, and note each answer."""
    rng = random.Random(seed)
    for _ in range(_JOBS_A_CLIENT):
        task = rng.choice(("noted", "noted", "noted", "noted_retry", "noted_parent"))
        category = rng.choice(("mail", "reports"))
        payload = rng.randbytes(rng.choice(_SIZES))
        args = (payload, "mail") if task == "noted_parent" else (payload,)
        delay = rng.choice((0, 0, 0, 0.05, 3600))
        job = dispatcher.dispatch(f"power_cut_tasks:{task}", category, delay, args=args)
        note(log, Noted(accepted=[parse_id(job.id)]))
        if not delay and rng.random() < 0.2:
            try:
                job.result(timeout=30)
            except JobFailed:
                continue
            note(log, Noted(completed=[parse_id(job.id)]))


def judge(torture: Torture, log: Path, memory: Path, images: int) -> Counter[str]:
    """Open images of a log in processes of their own; return how many ended how."""
    found: Counter[str] = Counter()
    seed = torture.rng.randrange(1 << 30)
    runs = [_Run(log, memory / f"image-{part}", seed, images, part) for part in range(PARTS)]
    for run in runs:
        run.start()
    for run in runs:
        for verdict, what in run.verdicts():
            found[verdict] += 1
            torture.check(verdict in ("ok", "unborn"), f"{log.name} --images {seed} {what}")
    return found


class _Run:
    """The processes, one after the other, that open the images of one part."""

    def __init__(self, log: Path, folder: Path, seed: int, images: int, part: int) -> None:
        self._words = [str(log), str(folder), str(seed), str(images), str(part)]
        self._folder = folder
        self._output = folder.with_suffix(".out")
        self._done = 0
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._folder.mkdir(mode=0o700, exist_ok=True)
        command = [sys.executable, str(HERE / "power_cut_images.py"), *self._words, str(self._done)]
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(command, stdout=output, stderr=subprocess.PIPE)

    def verdicts(self) -> Iterator[tuple[str, str]]:
        """Yield how each image was, and what is to be said of it; go on behind one that kills."""
        while True:
            assert self._process is not None
            _, said = self._process.communicate(timeout=_IMAGES_S)
            lines = [json.loads(line) for line in self._output.read_text().splitlines()]
            cuts = [line["cut"] for line in lines if "cut" in line]
            ends = [line for line in lines if "wrong" in line]
            for cut, end in zip(cuts, ends, strict=False):
                yield _verdict(end), f"{cut}: {end['wrong']}"
            self._done += len(cuts)
            if self._process.returncode == 0:
                return
            assert len(cuts) > len(ends), f"an image could not be judged: {said.decode()[-2000:]}"
            yield "killed", f"{cuts[-1]}: whoever opens it ends with {self._process.returncode}"
            self.start()


def _verdict(end: dict[str, object]) -> str:
    wrong = end["wrong"]
    assert isinstance(wrong, list)
    if not wrong:
        return "ok"
    if not end["created"] and all(text.startswith("open: StoreError") for text in wrong):
        return "unborn"
    return "lost" if any(text.startswith("lost") for text in wrong) else str(wrong[0]).partition(":")[0]
