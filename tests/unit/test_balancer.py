import pytest

from jobsched.balancer import Balancer
from jobsched.config import Config, parse_config
from jobsched.job import State
from jobsched.store.base import CategoryStats
from jobsched.supervisor import Supervisor

AT = 1_750_000_000_000_000


def stats(*, paused=False, **counts: int) -> CategoryStats:
    return CategoryStats([counts.get(str(state), 0) for state in State], paused)


class Bench:
    """A balancer with its supervisors."""

    def __init__(self, config: Config) -> None:
        self.supervisors = {name: Supervisor(name, found) for name, found in config.categories.items()}
        self.balancer = Balancer(config, self.supervisors)

    def step(self, now: float, upcoming=None, **by_category: CategoryStats):
        return self.balancer.step(now, AT, by_category, upcoming or {})

    @property
    def targets(self) -> dict[str, int]:
        return {name: supervisor.target for name, supervisor in self.supervisors.items()}


@pytest.fixture
def bench(tmp_path):
    """A function that makes a balancer of a configuration's text."""

    def make(categories="[categories.mail]\n[categories.reports]\n", *, workers=4, balancer="") -> Bench:
        text = f"tasks = ['m']\nworkers = {workers}\n[balancer]\n{balancer}\n{categories}"
        return Bench(parse_config(text, tmp_path))

    return make


def test_targets_follow_the_backlog(bench):
    it = bench()
    decision = it.step(0, mail=stats(pending=300), reports=stats(pending=100))
    assert it.targets == {"mail": 3, "reports": 1}
    assert (decision.before, decision.after) == ({"mail": 0, "reports": 0}, it.targets)
    assert (decision.at, decision.budget) == (AT, 4)
    assert decision.backlog == {"mail": 300, "reports": 100}
    assert set(decision.reasons) == {"mail", "reports"}
    it.step(1, mail=stats(pending=100), reports=stats(pending=300))
    assert it.targets == {"mail": 1, "reports": 3}


def test_what_runs_and_what_is_soon_due_counts_and_what_ended_does_not(bench):
    it = bench()
    counts = stats(pending=1, in_progress=2, scheduled=50, completed=9, failed=9, parked=9, cancelled=9)
    it.step(0, {"mail": 5}, mail=counts)
    assert it.balancer.last.backlog == {"mail": 8, "reports": 0}


def test_priorities_minima_and_maxima_are_those_of_the_configuration(bench):
    it = bench(
        "[categories.mail]\npriority = 3\n[categories.reports]\n"
        "[categories.capped]\nmax_workers = 1\n[categories.kept]\nmin_workers = 2\n",
        workers=11,
    )
    busy = stats(pending=1000)
    it.step(0, mail=busy, reports=busy, capped=busy)
    assert it.targets == {"mail": 6, "reports": 2, "capped": 1, "kept": 2}


def test_run_times_count_when_they_are_asked_for(bench):
    it = bench(balancer="weigh_by = 'work'")
    it.supervisors["mail"].ran(3.0)
    it.supervisors["reports"].ran(1.0)
    it.step(0, mail=stats(pending=100), reports=stats(pending=100))
    assert it.targets == {"mail": 3, "reports": 1}


def test_a_category_that_is_not_configured_gets_nothing(bench):
    it = bench()
    decision = it.step(0, {"gone": 5}, gone=stats(pending=100), mail=stats(pending=1))
    assert set(decision.after) == set(decision.backlog) == {"mail", "reports"}


def test_only_a_change_is_a_decision_for_the_record(bench):
    it = bench()
    assert it.step(0, mail=stats(pending=100)) is not None
    assert it.step(1, mail=stats(pending=100)) is None
    assert it.balancer.last.backlog == {"mail": 100, "reports": 0}
    assert it.step(2, mail=stats(pending=90)) is None
    assert it.balancer.last.backlog == {"mail": 90, "reports": 0}
    assert it.step(3, mail=stats(pending=90), reports=stats(pending=90)) is not None


def test_moves_are_counted_from_the_second_placement_on(bench):
    it = bench()
    it.step(0, mail=stats(pending=100))
    assert (it.targets["mail"], it.balancer.moves) == (4, 0)
    it.step(1, mail=stats(pending=100), reports=stats(pending=300))
    assert (it.targets["reports"], it.balancer.moves) == (3, 3)


def test_a_paused_category_has_no_demand_but_for_what_still_runs(bench):
    it = bench()
    it.step(0, mail=stats(pending=100, paused=True), reports=stats(pending=4))
    assert it.targets == {"mail": 0, "reports": 4}
    it.step(1, mail=stats(pending=100, in_progress=1, paused=True), reports=stats(pending=4))
    assert it.balancer.last.backlog == {"mail": 1, "reports": 4}


def test_what_is_soon_due_in_a_paused_category_is_no_demand(bench):
    it = bench()
    it.step(0, {"mail": 100}, mail=stats(scheduled=100, paused=True), reports=stats(pending=4))
    assert it.targets == {"mail": 0, "reports": 4}


# When.


def test_a_decision_is_due_at_once_and_then_every_interval(bench):
    it = bench(balancer="every = '2s'")
    assert it.balancer.is_due(0, {})
    it.step(10)
    assert not it.balancer.is_due(11.9, {})
    assert it.balancer.timeout_s(11.5) == 0.5
    assert it.balancer.is_due(12, {})
    assert it.balancer.timeout_s(13) == 0


@pytest.mark.parametrize(
    ("found", "due"),
    [
        (stats(pending=1), True),
        (stats(in_progress=1), True),
        (stats(pending=1, paused=True), False),
        (stats(scheduled=5, parked=5, completed=5), False),
        (stats(), False),
    ],
)
def test_work_for_a_category_without_a_worker_is_due_at_once(bench, found, due):
    it = bench()
    it.step(0, mail=stats(pending=100))
    assert it.targets["reports"] == 0
    assert it.balancer.is_due(0.1, {"mail": stats(pending=100), "reports": found}) is due


def test_work_for_a_category_with_a_worker_waits_for_the_interval(bench):
    it = bench()
    it.step(0, mail=stats(pending=100), reports=stats(pending=100))
    assert not it.balancer.is_due(0.1, {"mail": stats(pending=1), "reports": stats(pending=10_000)})


def test_a_category_that_stays_without_a_worker_is_looked_at_once_and_then_every_interval(bench):
    it = bench(workers=1)
    busy = {"mail": stats(pending=9), "reports": stats(pending=9)}
    it.step(0, mail=busy["mail"])
    assert it.balancer.is_due(0.1, busy)
    it.step(0.1, **busy)
    assert not it.balancer.is_due(0.2, busy)
    assert it.balancer.is_due(1.1, busy)


def test_a_category_that_waits_long_gets_its_turn(bench):
    it = bench("[categories.mail]\npriority = 10\n[categories.reports]\n", workers=1)
    busy = {"mail": stats(pending=9), "reports": stats(pending=9)}
    served: list[str] = []
    for second in range(40):
        it.step(second, **busy)
        served += [name for name, count in it.targets.items() if count]
    assert len(served) == 40
    assert 1 <= served.count("reports") < served.count("mail")
