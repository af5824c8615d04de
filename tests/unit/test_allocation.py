import math
import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobsched.allocation import Allocation, Demand, allocate
from jobsched.errors import InvalidOption

demands_by_name = st.dictionaries(
    st.sampled_from("abcdefgh"),
    st.builds(
        Demand,
        priority=st.sampled_from([0.001, 0.5, 1, 1, 2, 5, 7.3, 1000]),
        backlog=st.one_of(st.integers(0, 8), st.sampled_from([0, 50, 1000, 10**7])),
        min_workers=st.integers(0, 3),
        max_workers=st.one_of(st.none(), st.integers(0, 12)),
        mean_run_s=st.one_of(st.none(), st.sampled_from([0.0, 0.001, 2.5, 3600])),
        starved_s=st.sampled_from([0.0, 0.0, 0.3, 5, 1000]),
    ),
    max_size=8,
)
currents = st.dictionaries(st.sampled_from("abcdefghxyz"), st.integers(0, 15))
budgets = st.integers(0, 40)
options = st.fixed_dictionaries(
    {"damping": st.sampled_from([0.0, 0.3, 0.5, 2.0]), "weigh_by": st.sampled_from(["backlog", "work"])}
)


def most(demand: Demand, budget: int) -> int:
    return budget if demand.max_workers is None else min(budget, demand.max_workers)


def least(demand: Demand, budget: int) -> int:
    return min(demand.min_workers, most(demand, budget))


def met(allocation: Allocation) -> float:
    """The part of the ideal that has a worker."""
    ideal = allocation.ideal
    return sum(min(allocation.workers[name], ideal[name]) for name in ideal) / sum(ideal.values())


def replay(budget: int, ticks: list[dict[str, Demand]]) -> list[dict[str, int]]:
    """The decisions over time, each starting from the one before it."""
    history: list[dict[str, int]] = [{}]
    for demands in ticks:
        history.append(allocate(budget, demands, history[-1]).workers)
    return history[1:]


@given(budgets, demands_by_name, currents, options)
def test_the_sum_is_the_budget_or_the_sum_of_the_maxima(budget, demands, current, options):
    workers = allocate(budget, demands, current, **options).workers
    assert sum(workers.values()) == min(budget, sum(most(demand, budget) for demand in demands.values()))


@given(budgets, demands_by_name, currents, options)
def test_no_category_is_above_its_maximum(budget, demands, current, options):
    workers = allocate(budget, demands, current, **options).workers
    assert all(0 <= workers[name] <= most(demand, budget) for name, demand in demands.items())


@given(budgets, demands_by_name, currents, options)
def test_minima_that_fit_the_budget_are_kept_with_work_or_without(budget, demands, current, options):
    minima = {name: least(demand, 99) for name, demand in demands.items()}
    workers = allocate(max(budget, sum(minima.values())), demands, current, **options).workers
    assert all(workers[name] >= minimum for name, minimum in minima.items())


@given(budgets, demands_by_name, currents, options)
def test_no_category_with_work_goes_without_when_there_is_a_worker_for_each(
    budget, demands, current, options
):
    hungry = [name for name, demand in demands.items() if demand.backlog and demand.max_workers != 0]
    needed = sum(max(name in hungry, least(demand, 99)) for name, demand in demands.items())
    workers = allocate(max(budget, needed), demands, current, **options).workers
    assert all(workers[name] >= 1 for name in hungry)


@given(budgets, demands_by_name, currents, options)
def test_a_decision_handed_in_again_changes_nothing(budget, demands, current, options):
    first = allocate(budget, demands, current, **options)
    again = allocate(budget, demands, first.workers, **options)
    assert again.workers == first.workers


@given(budgets, demands_by_name, currents, options, st.randoms())
def test_the_order_of_the_categories_does_not_matter(budget, demands, current, options, rng):
    shuffled = dict(rng.sample(list(demands.items()), len(demands)))
    assert allocate(budget, shuffled, current, **options) == allocate(budget, demands, current, **options)


@given(budgets, demands_by_name, currents, options)
def test_the_ideal_fills_the_budget_and_never_counts_more_workers_than_jobs(
    budget, demands, current, options
):
    ideal = allocate(budget, demands, current, **options).ideal
    assert sum(ideal.values()) <= budget + 1e-6
    for name, demand in demands.items():
        assert ideal[name] <= min(most(demand, budget), max(demand.min_workers, demand.backlog)) + 1e-6


@given(budgets, demands_by_name, currents, options)
def test_shares_between_their_bounds_stand_in_the_ratio_of_their_weights(budget, demands, current, options):
    ideal = allocate(budget, demands, current, **options).ideal
    level = {
        name: ideal[name] / demands[name].weight(options["weigh_by"])
        for name in ideal
        if ideal[name] and demands[name].backlog
    }
    for name, demand in demands.items():
        free = max(1, demand.min_workers) + 1e-6 < ideal.get(name, 0)
        can_give = [
            other
            for other in level
            if ideal[other] < min(demands[other].backlog, most(demands[other], budget)) - 1e-6
        ]
        if free:
            assert all(level[name] <= level[other] * (1 + 1e-6) + 1e-9 for other in can_give)


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(100, 2000), st.integers(1, 10)), min_size=2))
def test_even_strong_damping_misplaces_no_more_than_a_tenth_of_the_workers(categories):
    demands = {str(i): Demand(priority=p, backlog=backlog) for i, (p, backlog, _) in enumerate(categories)}
    current = {str(i): workers for i, (_, _, workers) in enumerate(categories)}
    budget = sum(current.values())
    damped = allocate(budget, demands, current, damping=5)
    assert met(damped) >= met(allocate(budget, demands, {}, damping=0)) - 0.1 - 1e-6


@given(budgets, demands_by_name, currents, options)
def test_every_category_is_explained_in_one_line(budget, demands, current, options):
    allocation = allocate(budget, demands, current, **options)
    assert allocation.reasons.keys() == allocation.ideal.keys() == allocation.workers.keys() == demands.keys()
    assert all(reason and "\n" not in reason for reason in allocation.reasons.values())


@pytest.mark.parametrize(
    ("budget", "demands", "expected"),
    [
        (10, {}, {}),
        (0, {"a": Demand(priority=1, backlog=9)}, {"a": 0}),
        (10, {"a": Demand(priority=5, backlog=100), "b": Demand(priority=1, backlog=100)}, {"a": 8, "b": 2}),
        (10, {"a": Demand(priority=1, backlog=300), "b": Demand(priority=3, backlog=100)}, {"a": 5, "b": 5}),
        (12, {"a": Demand(priority=1, backlog=10), "b": Demand(priority=2, backlog=10)}, {"a": 4, "b": 8}),
        # What one cannot take, the others share by the same rule.
        (
            10,
            {
                "a": Demand(priority=9, backlog=100, max_workers=2),
                "b": Demand(priority=3, backlog=100),
                "c": Demand(priority=1, backlog=100),
            },
            {"a": 2, "b": 6, "c": 2},
        ),
        (10, {"a": Demand(priority=9, backlog=2), "b": Demand(priority=1, backlog=100)}, {"a": 2, "b": 8}),
        (10, {"a": Demand(priority=9, backlog=99), "b": Demand(priority=1, backlog=1, min_workers=3)},
         {"a": 7, "b": 3}),
        (4, {"a": Demand(priority=1000, backlog=1000), "b": Demand(priority=1, backlog=1)}, {"a": 3, "b": 1}),
        # Spare workers spread by priority, also where there is no work at all.
        (9, {"a": Demand(priority=2, backlog=0), "b": Demand(priority=1, backlog=0)}, {"a": 6, "b": 3}),
        # Minima beyond the budget: the highest priority first.
        (
            4,
            {
                "a": Demand(priority=1, backlog=9, min_workers=3),
                "b": Demand(priority=2, backlog=0, min_workers=3),
            },
            {"a": 1, "b": 3},
        ),
    ],
)  # fmt: skip
def test_the_rule_in_examples(budget, demands, expected):
    assert allocate(budget, demands, {}).workers == expected


def test_weighing_by_work_counts_run_time_and_assumes_one_where_none_is_measured():
    demands = {
        "slow": Demand(priority=1, backlog=100, mean_run_s=0.15),
        "unmeasured": Demand(priority=1, backlog=100),
    }
    assert allocate(8, demands, {}, weigh_by="work").workers == {"slow": 6, "unmeasured": 2}
    assert allocate(8, demands, {}, weigh_by="backlog").workers == {"slow": 4, "unmeasured": 4}


def test_spare_workers_stay_where_they_are():
    demands = {"a": Demand(priority=1, backlog=0), "b": Demand(priority=9, backlog=3)}
    allocation = allocate(10, demands, {"a": 6, "b": 4})
    assert allocation.workers == {"a": 6, "b": 4}
    assert allocation.reasons["a"] == "no work; spare worker stays"


def test_the_place_of_a_dead_worker_is_filled_again():
    demands = {"a": Demand(priority=1, backlog=50), "b": Demand(priority=1, backlog=50)}
    assert allocate(10, demands, {"a": 5, "b": 4}).workers == {"a": 5, "b": 5}


def test_a_reduced_budget_is_respected():
    demands = {"a": Demand(priority=1, backlog=50), "b": Demand(priority=1, backlog=0)}
    assert allocate(3, demands, {"a": 5, "b": 5}).workers == {"a": 3, "b": 0}


def test_a_category_that_gets_its_first_job_is_served_at_once_and_takes_one_worker_only():
    demands = {
        "a": Demand(priority=5, backlog=100),
        "b": Demand(priority=1, backlog=100),
        "c": Demand(priority=1, backlog=1),
    }
    allocation = allocate(10, demands, {"a": 8, "b": 2}, damping=0.5)
    assert allocation.workers == {"a": 8, "b": 1, "c": 1}
    assert allocation.reasons["c"].endswith("; had work and no worker")


def test_of_those_that_damping_would_leave_alone_the_furthest_from_its_ideal_follows():
    backlogs = {"a": 920, "b": 860, "c": 1, "d": 1020}  # ideal 9.2, 8.6, 1 and 10.2
    demands = {name: Demand(priority=1, backlog=backlog) for name, backlog in backlogs.items()}
    workers = allocate(29, demands, {"a": 10, "b": 10, "d": 9}).workers
    assert workers == {"a": 10, "b": 9, "c": 1, "d": 9}


def test_of_equal_claims_to_a_seat_that_of_a_holder_wins():
    demands = {name: Demand(priority=1, backlog=5) for name in "abcd"}
    allocation = allocate(2, demands, {"c": 1, "d": 1})
    assert allocation.workers == {"a": 0, "b": 0, "c": 1, "d": 1}
    assert allocation.reasons["a"].endswith("; waits for its turn: more categories than workers")


def test_a_small_difference_moves_nobody_and_is_explained():
    demands = {"a": Demand(priority=1, backlog=56), "b": Demand(priority=1, backlog=44)}
    allocation = allocate(10, demands, {"a": 5, "b": 5})
    assert allocation.workers == {"a": 5, "b": 5}
    assert allocation.reasons["a"] == "priority 1 x backlog 56 = 56 of 100: ideal 5.6; damped: would be 6"
    assert allocate(10, demands, {"a": 5, "b": 5}, damping=0).workers == {"a": 6, "b": 4}


@pytest.mark.parametrize(("budget", "noise"), [(8, 0.2), (10, 0.2), (32, 0.1), (100, 0.1)])
def test_steady_load_with_noisy_backlogs_moves_nobody(budget, noise):
    rng = random.Random(budget)
    steady = {"a": (5, 1000), "b": (1, 1000), "c": (2, 800)}
    ticks = [
        {
            name: Demand(priority=priority, backlog=round(backlog * rng.uniform(1 - noise, 1 + noise)))
            for name, (priority, backlog) in steady.items()
        }
        for _ in range(600)
    ]
    assert count_changes(replay(budget, ticks)[10:]) == 0
    assert count_changes([allocate(budget, demands, {}).workers for demands in ticks]) > 50


def count_changes(history: list[dict[str, int]]) -> int:
    return sum(earlier != later for earlier, later in pairwise(history))


@given(
    st.integers(1, 64),
    st.lists(
        st.tuples(st.integers(1, 9), st.integers(0, 2000), st.integers(1, 2000)), min_size=1, max_size=8
    ),
)
def test_a_step_change_is_met_by_the_next_call(budget, steps):
    before = {str(i): Demand(priority=priority, backlog=old) for i, (priority, old, _) in enumerate(steps)}
    after = {str(i): Demand(priority=priority, backlog=new) for i, (priority, _, new) in enumerate(steps)}
    settled = replay(budget, [before] * 3)[-1]
    best = allocate(budget, after, {}, damping=0)
    if budget >= len(steps):  # else the seats go round by age
        assert met(allocate(budget, after, settled)) >= met(best) - 0.1 - 1e-6


def test_a_turned_load_turns_the_workers_at_once():
    one_way = {"a": Demand(priority=5, backlog=1000), "b": Demand(priority=1, backlog=10)}
    other_way = {"a": Demand(priority=5, backlog=10), "b": Demand(priority=1, backlog=1000)}
    history = replay(10, [one_way, one_way, other_way])
    assert history[-2:] == [{"a": 9, "b": 1}, {"a": 1, "b": 9}]


def simulate_waits(priorities: dict[str, float], budget: int, every_s: float, ticks: int) -> dict[str, float]:
    """The longest wait of each category, all with work all the time, workers moving at each call."""
    starved = dict.fromkeys(priorities, 0.0)
    longest = dict(starved)
    current: dict[str, int] = {}
    for _ in range(ticks):
        demands = {
            name: Demand(priority=priority, backlog=50, starved_s=starved[name])
            for name, priority in priorities.items()
        }
        current = allocate(budget, demands, current).workers
        assert sum(current.values()) == budget
        for name in priorities:
            starved[name] = 0.0 if current[name] else starved[name] + every_s
            longest[name] = max(longest[name], starved[name])
    return longest


@pytest.mark.parametrize("every_s", [0.2, 1.0, 5.0])
@pytest.mark.parametrize("spread", [1, 3, 30])
def test_with_more_categories_than_workers_each_has_its_turn_within_the_stated_bound(spread, every_s):
    priorities = {f"c{i:02}": 1 + (spread - 1) * i / 19 for i in range(20)}
    longest = simulate_waits(priorities, budget=3, every_s=every_s, ticks=1000)
    turns_s = math.ceil(20 / 3) * every_s
    for name, priority in priorities.items():
        ratio = spread / priority
        assert longest[name] <= ratio * (1 + turns_s) + turns_s


def test_unknown_names_in_current_are_ignored():
    assert allocate(2, {"a": Demand(priority=1, backlog=9)}, {"gone": 2}).workers == {"a": 2}


def test_what_cannot_be_used_is_refused_by_name():
    with pytest.raises(InvalidOption, match=r"priority must be from 1e-06 to 1e\+06, got 0"):
        Demand(priority=0, backlog=1)
    with pytest.raises(InvalidOption, match="weigh_by must be 'backlog' or 'work', got 'wait'"):
        allocate(1, {"a": Demand(priority=1, backlog=1)}, {}, weigh_by="wait")
