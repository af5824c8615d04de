"""Bad jobs: they break what they can reach. Each is to end with a clear cause, and the others go on."""

import re
from collections import Counter
from typing import NamedTuple

from measured import GoodClient, descriptors, private_bytes
from nodes import Node, Project, eventually
from scenario import Figure, Torture, scenario

from jobsched.job import State
from jobsched.job_id import parse_id
from jobsched.store.place import JOURNALS

QUIET = 100  # dispatches
PACE_S = 0.002
WORST_S = 5.0  # no client waits longer, on a busy machine
GROWTH_BYTES = 16 << 20
SETTLED_WITHIN_S = 60.0
RARELY = 10  # rounds between those of the tasks that take seconds
FEW_BLAMELESS = 2
MOST_BLAMELESS = 0.02  # of the jobs: a worker that one has spoilt may die of it in the next


class End(NamedTuple):
    """How the jobs of a task end: in one of these states, for this cause."""

    states: tuple[State, ...]
    cause: str


DONE = End((State.COMPLETED,), "")
_CRASH = (
    r"its worker (was killed by SIG|was killed for what it had sent: |left with exit code \d+ while it ran)"
)
# A job that has returned has its outcome in its outbox, whatever it did to its descriptors: completed,
# unless its worker was killed before that.
CAUGHT = End((State.COMPLETED, State.QUARANTINED), f"|{_CRASH}")


def killed_by(name: str) -> End:
    return End((State.QUARANTINED,), f"its worker was killed by {name} while it ran")


def failed(cause: str) -> End:
    return End((State.FAILED,), cause)


def unstored(cause: str) -> End:
    return End((State.COMPLETED,), cause)


ENDS = {
    "close_all": CAUGHT,
    "close_everything": CAUGHT,
    "scribble": CAUGHT,
    "swap_descriptors": CAUGHT,
    "scramble_board": CAUGHT,
    "send_garbage": CAUGHT,
    "send_huge": CAUGHT,
    "send_nonsense": CAUGHT,
    "forge_outcome": CAUGHT,
    "forge_state": CAUGHT,
    "shut_down_socket": CAUGHT,
    "fork_and_return": DONE,
    "fork_and_linger": DONE,
    "leave_session": DONE,
    "dispatch_from_threads": DONE,
    "die_in_thread": DONE,
    "ignore_signals": DONE,
    "lower_limits": DONE,
    "change_folder": DONE,
    "flood": End(
        (State.COMPLETED, State.FAILED), "|ValueError: I/O operation on closed file"
    ),  # by an earlier one
    "close_output": DONE,
    "leave_at_exit": DONE,
    "exit_politely": failed("SystemExit: 3"),
    "exit_at_once": End((State.QUARANTINED,), "its worker left with exit code 0 while it ran"),
    "abort": killed_by("SIGABRT"),
    "segfault": killed_by("SIGSEGV"),
    "raise_unprintable": failed(r"hostile_tasks\.Unprintable: <exception str\(\) failed>"),
    "raise_huge": failed("ValueError: .*xxx"),
    "raise_base": failed("GeneratorExit: raise_base"),
    "recurse": failed("RecursionError: maximum recursion depth exceeded"),
    "return_unloadable": unstored("result: a hostile_tasks.Unloadable cannot be sent"),
    "return_itself": unstored(r"result\[0\]"),
    "fail_with_retries": failed("OSError: fail_with_retries"),
    "swallow_timeout": End((State.COMPLETED, State.FAILED), "|timed out after 0.2 s, and was killed"),
    "run_too_long": failed(r".*timed out after 0\.3 s"),
    "dispatch_too_much": failed(".*PayloadTooLarge: the arguments of task 'tasks:mark'"),
}
SLOW_ENDS = {
    "send_half": End(
        CAUGHT.states, f"{CAUGHT.cause}|its worker sent a part of a frame, and no more for 10 s"
    ),
    "use_up_processor": killed_by("SIGXCPU"),
}


class Ended(NamedTuple):
    """How one job has ended."""

    task: str
    state: State
    cause: str
    crashes: int


@scenario("hostile-jobs", quick={"rounds": 1}, full={"rounds": 20})
def hostile_jobs(torture: Torture, rounds: int) -> dict[str, Figure]:
    """Jobs that break what they can reach: each ends with a clear cause, the others go on."""
    project = torture.project()
    project.configure({"hostile": {}, "mail": {}}, workers=3, tasks=["tasks", "hostile_tasks"])
    node = project.start()
    good = GoodClient(project.dispatcher(), "mail", PACE_S)
    for _ in range(QUIET):
        good.dispatch()
    good.dispatch_until_it_has_a_journal(project.store_path / JOURNALS)
    eventually(lambda: len(node.workers()) == 3)
    quiet, before = good.take_latency(), (private_bytes(node.pid), descriptors(node.pid))
    jobs: dict[str, str] = {}
    for number in range(rounds):
        torture.progress(f"hostile-jobs: round {number} of {rounds}")
        jobs |= dispatch_round(torture, project, number)
        eventually(lambda: is_settled(project, good), SETTLED_WITHIN_S)
    torture.check(node.is_alive, f"the node is gone: {node.end_of_log}")
    eventually(lambda: descriptors(node.pid) <= before[1], 20)
    grown, latency = private_bytes(node.pid) - before[0], good.take_latency()
    torture.check(grown < GROWTH_BYTES, f"the node has grown by {grown >> 10} KiB")
    torture.check(latency["max_ms"] < 1000 * WORST_S, f"a good client waited {latency['max_ms']} ms")
    see_good_ones_done(project)
    figures = judge_ends(torture, ended(project, jobs))
    stop_and_judge(torture, project, node)
    return {"node_grew_kib": grown >> 10, "quiet": quiet, "beside_them": latency} | figures


def dispatch_round(torture: Torture, project: Project, number: int) -> dict[str, str]:
    """Dispatch one job of each task, in any order; return the tasks by job id."""
    names = [*ENDS, *(SLOW_ENDS if number % RARELY == RARELY - 1 else ())]
    torture.rng.shuffle(names)
    dispatcher = project.dispatchers[0]
    prepared = [
        dispatcher.prepare(f"hostile_tasks:{name}", "hostile", args=(f"{name}-{number}",)) for name in names
    ]
    return dict(zip((job.id for job in dispatcher.dispatch_many(prepared)), names, strict=True))


def is_settled(project: Project, good: GoodClient) -> bool:
    for _ in range(10):
        good.dispatch()
    with project.store() as store:
        return not any(store.stats()["hostile"].counts[: State.COMPLETED])


def ended(project: Project, jobs: dict[str, str]) -> list[Ended]:
    with project.store() as store:
        found = [(task, store.get(parse_id(job_id))) for job_id, task in jobs.items()]
    return [
        Ended(task, job.status.state, job.error.cause if job.error else "", job.status.crashes)
        for task, job in found
        if job is not None
    ]


def judge_ends(torture: Torture, jobs: list[Ended]) -> dict[str, Figure]:
    """Check how the bad jobs ended; return their states.

    One that is not to blame may be quarantined: what a job has left in its worker can end the next.
    """
    blameless = []
    for job in jobs:
        end = (ENDS | SLOW_ENDS)[job.task]
        if job.state is State.QUARANTINED and State.QUARANTINED not in end.states:
            blameless.append(job)
        else:
            is_right = job.state in end.states and re.match(end.cause or "$", job.cause)
            torture.check(is_right, f"a job ended as {job.state}, not as {end}: {job}")
    most = max(FEW_BLAMELESS, MOST_BLAMELESS * len(jobs))
    torture.check(len(blameless) <= most, f"quarantined, and not to blame: {blameless[:5]}")
    states = Counter(str(job.state) for job in jobs)
    return {"jobs": len(jobs), "states": dict(states), "quarantined_blameless": len(blameless)}


def see_good_ones_done(project: Project) -> None:
    def is_done() -> bool:
        with project.store() as store:
            counts = store.stats()["mail"].counts
        return sum(counts) == counts[State.COMPLETED]

    eventually(is_done, SETTLED_WITHIN_S)


def stop_and_judge(torture: Torture, project: Project, node: Node) -> None:
    node.terminate()
    torture.check(node.wait(60) == 0, f"the node did not stop: {node.end_of_log[-300:]}")
    torture.check_none(left_behind=project.left_behind())
    torture.check(not node.says("jobsched/node.py"), "the node has met what it did not expect")
