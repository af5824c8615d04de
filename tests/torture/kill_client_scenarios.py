"""kill -9 of clients: what was acknowledged to them is there, once, and their batches are whole."""

import random
import time
from pathlib import Path

from clients import Crowd, Work
from history import History, Ledger, read_ledgers
from nodes import Node, eventually
from scenario import Figure, Torture, scenario
from structure import structural_problems

from jobsched import Dispatcher
from jobsched.store.place import JOURNALS

CLIENTS = 4
KILLS_IN_TWO_PHASES = 250
CREATORS = 3
CREATION_S = 0.02
PAUSE_S = 0.04  # between kills, in the mean
AT_ONCE = (1, 1, 2, 3, 4)
BATCHES = (1, 1, 1, 1, 1, 1, 1, 3, 10, 30)


@scenario(
    "kill-clients",
    quick={"kills": 40, "acknowledged": 800},
    full={"kills": 2000, "acknowledged": 50_000},
)
def kill_clients(torture: Torture, kills: int, acknowledged: int) -> dict[str, Figure]:
    """kill -9 of dispatching clients, with a node and without: acknowledged is stored and done, once."""
    project = torture.project()
    ledgers = torture.folder / "ledgers"
    crowd = Crowd(project.config, ledgers, dispatching, CLIENTS, project.store_path / JOURNALS)
    done = {"through_node": 0, "directly": 0}
    phases = 2 * -(-kills // KILLS_IN_TWO_PHASES)
    for phase in range(phases):
        node = project.launch() if phase % 2 == 0 else None
        quota = kills * (phase + 1) // phases - sum(done.values())
        early = kill_some(torture, crowd, quota // 10)  # while the node starts
        if node is not None:
            eventually(project.answers)
            eventually(crowd.has_journals, 30)
        done["through_node" if node else "directly"] += early + kill_some(torture, crowd, quota - early)
        torture.progress(f"kill-clients: {sum(done.values())} of {kills} kills")
        if node is not None:
            stop(torture, node)
    crowd.fill(torture.rng)
    eventually(lambda: count_acknowledged(ledgers) >= acknowledged, 120)
    crowd.kill(crowd.clients.copy())
    torture.check(not crowd.unexpected_ends, f"clients ended by themselves: {crowd.unexpected_ends}")
    broken = structural_problems(project.store_path)
    torture.check(project.run_until_idle(300) == 0, "the jobs could not all be done")
    broken += structural_problems(project.store_path)
    torture.check(crowd.journals, "no client that was killed had written to a journal")
    killed = {f"kills_{way}": count for way, count in done.items()} | {"journals_of_killed": crowd.journals}
    return killed | judged(torture, History.of(project, ledgers), broken)


@scenario("kill-creators", quick={"stores": 8}, full={"stores": 500})
def kill_creators(torture: Torture, stores: int) -> dict[str, Figure]:
    """kill -9 of clients that are just creating the store: the next ones find a sound one, or make it."""
    project = torture.project()
    before = project.store_path
    acknowledged = half_made = 0
    broken: list[str] = []
    lost: set[str] = set()
    for number in range(stores):
        project.store_path = before.with_name(f"store-{number}")
        project.configure({"mail": {}, "reports": {}})
        ledgers = torture.folder / f"ledgers-{number}"
        crowd = Crowd(project.config, ledgers, dispatching, CREATORS)
        crowd.fill(torture.rng)
        time.sleep(torture.rng.uniform(0, CREATION_S))
        crowd.kill(crowd.clients.copy())
        half_made += not count_acknowledged(ledgers) and project.store_path.exists()
        crowd.fill(torture.rng)
        eventually(lambda ledgers=ledgers: count_acknowledged(ledgers))
        crowd.kill(crowd.clients.copy())
        broken += [f"ended by themselves: {code}" for code in crowd.unexpected_ends]
        broken += structural_problems(project.store_path)
        history = History.of(project, ledgers)
        acknowledged += len(history.acknowledged)
        lost |= history.lost()
        torture.progress(f"kill-creators: {number + 1} of {stores} stores")
    return {
        "stores": stores,
        "killed_before_the_first_job": half_made,
        "acknowledged": acknowledged,
    } | torture.check_none(lost=lost, problems=broken)


def dispatching(name: str, seed: int) -> Work:
    """Return what a client does: dispatch one by one and in batches, to two categories."""

    def work(dispatcher: Dispatcher, ledger: Ledger) -> None:
        rng = random.Random(seed)
        count = 0
        while True:
            category = rng.choice(("mail", "reports"))
            labels = [f"{name}-{count + n}" for n in range(rng.choice(BATCHES))]
            count += len(labels)
            jobs = [dispatcher.prepare("tasks:mark", category, args=(label,)) for label in labels]
            ledger.dispatch(dispatcher, jobs, labels)

    return work


def kill_some(torture: Torture, crowd: Crowd, kills: int) -> int:
    """Kill so many clients, some at a time, at random moments; return how many it were."""
    done = 0
    while done < kills:
        crowd.fill(torture.rng)
        time.sleep(torture.rng.expovariate(1 / PAUSE_S))
        victims = torture.rng.sample(crowd.clients, min(torture.rng.choice(AT_ONCE), kills - done))
        crowd.kill(victims)
        crowd.look_for_journals()
        done += len(victims)
    return done


def stop(torture: Torture, node: Node) -> None:
    node.terminate()
    torture.check(node.wait(30) == 0, f"a node did not stop: {node.end_of_log}")


def count_acknowledged(ledgers: Path) -> int:
    return sum(job.acknowledged for job in read_ledgers(ledgers))


def judged(torture: Torture, history: History, broken: list[str]) -> dict[str, Figure]:
    """Check the history; return its figures."""
    cut_off = [job for job in history.tried.values() if not job.acknowledged]
    return {
        "acknowledged": len(history.acknowledged),
        "cut_off": len(cut_off),
        "cut_off_and_stored": sum(job.id in history.stored for job in cut_off),
        "jobs": history.states(),
    } | torture.check_none(
        **history.wrongs(),
        run_twice=history.doubled(),
        out_of_order=history.out_of_client_order(),
        out_of_dispatch_order=[
            label for name in ("mail", "reports") for label in history.out_of_dispatch_order(name)
        ],
        structural_problems=broken,
    )
