"""SIGTERM at any moment: out in time, nothing lost, and no attempt spent on it."""

import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from functools import partial

from clients import Allowance, Crowd, Work
from history import History, Ledger
from nodes import Node, Project, eventually
from scenario import Figure, Torture, quantiles, scenario
from structure import structural_problems

from jobsched import Dispatcher
from jobsched.dispatcher import PreparedJob
from jobsched.store.place import JOURNALS

WORKERS = 4
JOBS_FOR_A_STOP = 40  # half of them while the node is at work, so that they go to the client's journal
GRACE_S = (0.5, 2.0)
OVER_LIMIT_S = 1.0  # over the grace, or after a second signal
UP_S = 1.0
START_S = 0.6
CLEAN = (0, 3)  # all done in the grace, or some put back
MOMENTS = ("while it starts", *["at work"] * 9)
WAYS = ("term", "term", "term", "term", "term twice", "term, then kill -9")
BATCHES = (1, 1, 2, 5)


@scenario("stops", quick={"stops": 2}, full={"stops": 300})
def stops(torture: Torture, stops: int) -> dict[str, Figure]:
    """SIGTERM under load, sometimes twice, sometimes kill -9 after it: out in grace + 1 s, uncharged."""
    project = torture.project()
    project.configure(
        {"lane": {"max_workers": 1}, "mixed": {}}, workers=WORKERS, tasks=["tasks", "kill_tasks"]
    )
    ledgers = torture.folder / "ledgers"
    allowance = Allowance(torture.folder / "allowance", 0.5 / stops)
    work = dispatching(stops * JOBS_FOR_A_STOP, allowance)
    crowd = Crowd(project.config, ledgers, work, 1, project.store_path / JOURNALS)
    crowd.fill(torture.rng)
    stopper = Stopper(torture, project)
    for number in range(stops):
        stopper.stop_one(partial(allowance.set, (number + 1) / stops))
        crowd.look_for_journals()
        allowance.set((number + 1.5) / stops)
        torture.progress(f"stops: {number + 1} of {stops}")
    crowd.wait(60)
    torture.check(not crowd.unexpected_ends, f"clients ended otherwise: {crowd.unexpected_ends}")
    torture.check(project.run_until_idle(300) == 0, "the jobs could not all be done")
    return {
        **stopper.figures(),
        "journals_of_clients": crowd.journals,
        **judged(torture, History.of(project, ledgers)),
        **torture.check_none(structural_problems=structural_problems(project.store_path)),
    }


def dispatching(count: int, allowance: Allowance) -> Callable[[str, int], Work]:
    """Return what the client does: dispatch short jobs, long ones, and some that fail at first."""

    def for_client(_name: str, seed: int) -> Work:
        def work(dispatcher: Dispatcher, ledger: Ledger) -> None:
            rng = random.Random(seed)
            for part in allowance.batches(count, BATCHES, rng):
                made = [prepared(dispatcher, rng, number) for number in part]
                ledger.dispatch(dispatcher, [job for job, _ in made], [label for _, label in made])

        return work

    return for_client


def prepared(dispatcher: Dispatcher, rng: random.Random, number: int) -> tuple[PreparedJob, str]:
    """Return some job, and its label: how often it fails, and its number."""
    kind = rng.choices(("lane", "short", "failing", "longer", "long"), (30, 30, 20, 15, 5))[0]
    failures = rng.randint(1, 2) if kind == "failing" else 0
    label = f"{failures}-{number:05}"
    if failures:
        return dispatcher.prepare(
            "kill_tasks:fail_some", "mixed", args=(label, failures, rng.uniform(0, 0.05)), max_retries=2
        ), label
    spans = {"lane": (0, 0.01), "short": (0, 0.02), "longer": (0.1, 0.6), "long": (0.6, 1.5)}
    category = "lane" if kind == "lane" else "mixed"
    seconds = rng.uniform(*spans[kind])
    return dispatcher.prepare("kill_tasks:work", category, args=(label, seconds)), label


class Stopper:
    """Starts nodes and stops them, in several ways."""

    def __init__(self, torture: Torture, project: Project) -> None:
        self._torture = torture
        self._project = project
        self._ways: Counter[str] = Counter()
        self._codes: Counter[int] = Counter()
        self._late_signals = 0
        self._used_s: list[float] = []
        self._over_grace_s: list[float] = []
        self._after_second_s: list[float] = []

    def stop_one(self, dispatch: Callable[[], None]) -> None:
        """Start a node and stop it; have the client dispatch when it is at work."""
        rng = self._torture.rng
        grace_s = round(rng.uniform(*GRACE_S), 2)
        moment, way = rng.choice(MOMENTS), rng.choice(WAYS)
        node = self._project.launch("--grace", f"{grace_s}s")
        if moment == "at work":
            self._await_work(node)
            dispatch()
            time.sleep(rng.uniform(0, UP_S))
        else:
            time.sleep(rng.uniform(0, START_S))
        self._ways[f"{way} {moment}"] += 1
        serves = moment == "at work"
        self._check_end(node, self._stop(node, way, grace_s), way, serves=serves)

    def _await_work(self, node: Node) -> None:
        before = self._project.noted()
        eventually(
            lambda: (
                self._project.noted() > before
                or not node.is_alive
                or (self._project.answers() and self._project.is_settled())
            )
        )
        assert node.is_alive, node.end_of_log

    def _stop(self, node: Node, way: str, grace_s: float) -> int:
        """Stop a node in that way; return its exit code, and note how long it took."""
        began = time.monotonic()
        node.terminate()
        if way != "term":
            time.sleep(self._torture.rng.uniform(0, grace_s))
        again = time.monotonic()
        if way == "term twice":
            node.terminate()
        elif way == "term, then kill -9":
            node.kill()
        code = node.wait(30)
        ended = time.monotonic()
        if way == "term":
            self._used_s.append(ended - began)
            self._over_grace_s.append(max(0.0, ended - began - grace_s))
        elif way == "term twice":
            self._after_second_s.append(ended - again)
        return code

    def _check_end(self, node: Node, code: int, way: str, *, serves: bool) -> None:
        """Check the exit code: a signal ends a node itself only before it has set its handlers."""
        self._codes[code] += 1
        if way == "term twice" and code == -signal.SIGTERM and node.says("node stopped"):
            self._late_signals += 1  # it had done everything, and was about to leave
            code = 0
        allowed = {
            *CLEAN,
            *([] if serves else [-signal.SIGTERM]),
            *([-signal.SIGKILL] if "kill" in way else []),
        }
        self._torture.check(code in allowed, f"exit code {code} after {way}: {node.end_of_log}")
        if code in CLEAN:
            with self._project.store() as store:
                left = store.in_progress()
            self._torture.check(not left, f"a stop has left {left} in progress")

    def figures(self) -> dict[str, Figure]:
        over, second = quantiles(self._over_grace_s), quantiles(self._after_second_s)
        for what, found in (("the grace", over), ("a second signal", second)):
            self._torture.check_in_time(found["max"], OVER_LIMIT_S, f"a stop after {what}")
        return {
            "stops": self._ways.total(),
            "ways": self._ways,
            "exit_codes": {str(code): count for code, count in sorted(self._codes.items())},
            "ended_by_a_signal_when_done": self._late_signals,
            "stop_s": quantiles(self._used_s),
            "over_grace_s": over,
            "after_second_signal_s": second,
        }


def judged(torture: Torture, history: History) -> dict[str, Figure]:
    """Check the history; return its figures. A label begins with how often its job was to fail."""
    jobs = {history.tried[job_id].label: stored for job_id, stored in history.stored.items()}
    failures = {label: int(label.partition("-")[0]) for label in jobs}
    repeats = Counter(after.label for _, after in history.repeats())
    return {
        "acknowledged": len(history.acknowledged),
        "jobs": history.states(),
        "real_failures": sum(failures.values()),
        "runs_repeated": repeats.total(),
        "interrupted": sum(stored.interruptions for stored in jobs.values()),
        "most_interruptions": max(stored.interruptions for stored in jobs.values()),
    } | torture.check_none(
        **history.wrongs(),
        overlapping=history.overlapping(),
        out_of_order=history.out_of_order("lane"),
        out_of_dispatch_order=history.out_of_dispatch_order("lane"),
        charged_for_a_stop=[
            f"{label}: {stored}"
            for label, stored in jobs.items()
            if stored.attempt != 1 + failures[label] or stored.crashes
        ],
        repeated_without_excuse=[
            label for label, count in repeats.items() if count > failures[label] + jobs[label].interruptions
        ],
    )
