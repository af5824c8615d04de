"""Processes that kill themselves at named places: nothing is lost, and nothing done twice without need."""

import os
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from crash_places import PLACES, Place
from invariants import problems, read_store
from nodes import Node, Project, eventually
from scenario import HERE, Figure, Torture, scenario

from jobsched.errors import JobschedError
from jobsched.job import State
from jobsched.job_id import format_id, parse_id

_AT_ONCE = 2
_PASSAGES = (1, 3, 12)
_RARE_PASSAGES = (1, 2, 3)
_BEFORE = ("once",) * 10 + ("fail_first", "die_first", "parent")
_MEANWHILE = ("once",) * 12 + ("fail_first",)
_LIFE_S = 40.0
_SEVERAL = 2  # workers: as many jobs may run when the preloader dies


class Case(NamedTuple):
    place: Place
    passage: int

    @property
    def name(self) -> str:
        return f"{self.place.name}, passage {self.passage}"


@scenario("crash-points", quick={"points": 4, "hits": 1}, full={"points": 1000, "hits": 3})
def crash_points(torture: Torture, points: int, hits: int) -> dict[str, Figure]:
    """Kill a node, its preloader or a worker at named places: what follows is as if it were nothing."""
    places = torture.rng.sample(list(PLACES.values()), min(points, len(PLACES)))
    cases = [
        Case(place, (_RARE_PASSAGES if place.is_rare else _PASSAGES)[hit])
        for place in places
        for hit in range(min(hits, len(_PASSAGES)))
    ]
    projects = [torture.project(f"case-{number}") for number in range(len(cases))]
    found: Counter[str] = Counter()
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for case, came in zip(cases, pool.map(try_case, cases, projects), strict=True):
            torture.progress(f"{found['cases']} of {len(cases)} crash points")
            found.update(came.figures)
            for text in came.wrong:
                torture.check(False, f"{case.name}: {text}")
    return {"points": len(places), **found}


class Came(NamedTuple):
    """What came of a case."""

    figures: Counter[str]
    wrong: list[str]


def try_case(case: Case, project: Project) -> Came:
    """Let nodes live until one process has killed itself, then let all be done."""
    trial = _Trial(case, project)
    try:
        trial.run()
    except Exception as error:  # noqa: BLE001 (it is the outcome)
        trial.wrong.append(f"{type(error).__name__}: {error}")
    finally:
        project.close()
    return Came(trial.figures, trial.wrong)


class _Trial:
    def __init__(self, case: Case, project: Project) -> None:
        self._case = case
        self._project = project
        self._labels = 0
        self._accepted: dict[str, str] = {}  # label → id; the life's client thread adds, too
        self._passed = project.folder / "passed"
        self.figures: Counter[str] = Counter(cases=1)
        self.wrong: list[str] = []
        project.configure({"mail": {}, "reports": {}}, tasks=["crash_point_tasks"])

    def run(self) -> None:
        for _ in range(self._case.passage + 1):
            self._dispatch(_BEFORE)
            self._live()
            if self._is_hit:
                break
        self._check(self._is_hit, f"was not reached: {self._size} passages")
        self.figures["hit"] += self._is_hit
        unfinished, completed = self._look_after_crash()
        began = len(self._project.runs())
        if not self._project.is_settled():
            self.figures["restarts"] += 1
            code = self._project.run_until_idle()
            self._check(code == 0, f"the next node ended with {code}")
        self._judge(unfinished, completed, began)

    def _live(self) -> None:
        """Have a node do all there is while a client adds more; then stop it."""
        node = self._launch()
        eventually(lambda: self._project.answers() or not node.is_alive, _LIFE_S)
        client = threading.Thread(target=self._dispatch, args=(_MEANWHILE,))
        client.start()
        client.join(_LIFE_S)
        eventually(lambda: not node.is_alive or self._project.is_settled(), _LIFE_S)
        node.terminate()
        code = node.wait(_LIFE_S)
        self._check(code in (0, -9), f"the node ended with {code}: {node.end_of_log}")
        self._check(
            code == 0 or self._case.place.process == "node", f"the node ended with {code} by another's death"
        )

    def _launch(self) -> Node:
        project = self._project
        settings = {
            "TORTURE_PLACE": self._case.place.name,
            "TORTURE_PASSAGE": str(self._case.passage),
            "TORTURE_PASSED": str(self._passed),
            "PYTHONPATH": os.pathsep.join((project.environment["PYTHONPATH"], str(HERE))),
        }
        command = [sys.executable, str(HERE / "crash_launcher.py"), "-c", str(project.config), "run"]
        node = Node(command, project.folder, project.environment | settings)
        project.nodes.append(node)
        return node

    def _dispatch(self, tasks: tuple[str, ...]) -> None:
        dispatcher = self._project.dispatcher()
        for task in tasks:
            self._labels += 1
            label = f"{self._labels:04}-{task}"
            category = "mail" if self._labels % 3 else "reports"
            try:
                job = dispatcher.dispatch(f"crash_point_tasks:{task}", category, args=(label,))
            except JobschedError as error:
                self.wrong.append(f"a client was told {type(error).__name__}: {error}")
            else:
                self._accepted[label] = job.id

    @property
    def _size(self) -> int:
        return self._passed.stat().st_size if self._passed.exists() else 0

    @property
    def _is_hit(self) -> bool:
        return self._size >= self._case.passage

    def _look_after_crash(self) -> tuple[set[str], set[str]]:
        """Check the store as the crash has left it; return which jobs may have run, and which were completed:
        beside those in progress it may be those that no claim in the store was ever of.
        """
        self.wrong += problems(read_store(self._project.store_path))[:3]
        with self._project.store():  # which takes in what journals hold
            contents = read_store(self._project.store_path)
        statuses = {format_id(job): status for job, status in contents.statuses().items() if status}
        lost = set(self._accepted.values()) - statuses.keys()
        self._check(not lost, f"{len(lost)} acknowledged jobs are lost")
        return (
            {job for job, found in statuses.items() if found.state is State.IN_PROGRESS or not found.claim},
            {job for job, status in statuses.items() if status.state is State.COMPLETED},
        )

    def _judge(self, unfinished: set[str], completed: set[str], began: int) -> None:
        """Check that all is done, and that only what had no recorded finish was done again."""
        project = self._project
        self.wrong += problems(read_store(project.store_path))[:3]
        ids = [format_id(parse_id(job_id)) for job_id in project.ids()]
        states = Counter(project.states(ids))
        self._check(states.keys() == {"completed"}, f"jobs are {dict(states)}")
        self._check(set(self._accepted.values()) <= set(ids), "an acknowledged job is gone")
        events = project.events()
        self._check(all(event[0] != "overlap" for event in events), "two runs of one job overlapped")
        children = {event[1] for event in events if event[0] == "child"}
        self._check(children <= set(ids), "a job dispatched by a job is lost")
        runs = project.runs()
        late = {run.label for run in runs[began:]}
        again = [label for label in late if self._accepted.get(label) in completed]
        self._check(not again, f"completed jobs were run again: {again}")
        excess = Counter(run.label for run in runs)
        excess.subtract({label: 2 if "fail_first" in label else 1 for label in excess})
        excess = +excess
        self.figures["run_again"] += excess.total()
        if self._case.place.process == "node":
            finished = [label for label in excess if self._accepted.get(label, "") not in {*unfinished, ""}]
            self._check(not finished, f"{finished} ran again, and their finish was recorded")
        else:
            self._check(excess.total() <= _SEVERAL, f"{dict(excess)} ran too often for one death")

    def _check(self, condition: object, text: str) -> None:
        if not condition:
            self.wrong.append(text)
