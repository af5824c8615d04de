import os
from collections import Counter

import pytest
from crews import COMMIT_S, NOW, job_id

from jobsched.job import State
from jobsched.pool import waiting
from jobsched.store.base import CategoryStats, Claim, GiveBack, Outcome, Slot


def given_back(*numbers: int) -> list[GiveBack]:
    return [GiveBack(job_id(number), number) for number in numbers]


def ran(claim: int) -> Outcome:
    return Outcome(job_id(claim), claim, State.COMPLETED, 1000, 2000)


# How many, and where.


def test_missing_workers_are_started_where_they_are_missing(crew):
    it = crew()
    it.target(mail=2, reports=1)
    assert it.homes == {1: "mail", 2: "mail", 3: "reports"}
    assert it.joined == [1, 2, 3]
    it.target(mail=2, reports=1)
    assert len(it.homes) == 3


def test_nobody_is_started_before_the_tasks_are_loaded(crew):
    it = crew()
    it.preloader.is_loaded = False
    it.target(mail=2)
    assert it.homes == {}
    it.preloader.is_loaded = True
    it.target(mail=2)
    assert len(it.homes) == 2


def test_a_category_in_back_off_gets_no_new_worker_but_others_do(crew):
    it = crew()
    it.supervisors["mail"].restart_at = NOW + 5
    it.target(mail=2, reports=1)
    assert it.homes == {1: "reports"}
    assert it.pool.restart_in(NOW) == 5
    assert it.pool.restart_in(NOW + 7) == 0
    it.supervisors["mail"].restart_at = NOW
    it.target(mail=2, reports=1)
    assert Counter(it.homes.values()) == {"mail": 2, "reports": 1}
    assert it.pool.restart_in(NOW) is None


def test_idle_workers_move_before_busy_ones_and_none_is_started(crew):
    it = crew()
    it.target(mail=4)
    it.give(1, "mail")
    it.give(2, "mail")
    assert it.target(mail=2, reports=2) == []
    assert it.homes == {1: "mail", 2: "mail", 3: "reports", 4: "reports"}


def test_a_busy_worker_that_moves_ends_its_job_and_gives_back_what_it_held_ahead(crew):
    it = crew()
    it.target(mail=2)
    it.give(1, "mail", 3)
    it.give(2, "mail", 1)
    assert it.target(mail=1, reports=1) == given_back(2, 3)
    assert it.homes == {1: "reports", 2: "mail"}
    assert [held.claim for held in it.pool.workers[1].held] == [1]
    assert it.pool.workers[1].serving == "mail"


def test_a_lent_worker_that_moves_to_its_borrower_keeps_what_it_holds(crew):
    it = crew()
    it.target(mail=1)
    it.give(1, "reports", 2)
    assert it.target(reports=1) == []
    assert len(it.pool.workers[1].held) == 2


def test_surplus_workers_stay_while_nobody_misses_one(crew):
    it = crew()
    it.target(mail=3)
    it.target(mail=1)
    assert it.homes == {1: "mail", 2: "mail", 3: "mail"}


def test_a_worker_that_leaves_is_replaced_and_never_moved(crew):
    it = crew()
    it.target(mail=1)
    it.pool.workers[1].dismiss()
    it.target(mail=1)
    assert it.homes == {1: "mail", 2: "mail"}
    it.target(reports=1)
    assert it.homes == {1: "mail", 2: "reports"}


# Slots at home.


def test_idle_workers_offer_themselves_to_the_work_of_their_category(crew):
    it = crew()
    it.target(mail=2, reports=1)
    assert it.slots(mail=5, reports=5) == {1: ("mail", 1), 2: ("mail", 1), 3: ("reports", 1)}


def test_an_idle_worker_offers_itself_even_if_nothing_waits(crew):
    it = crew()
    it.target(mail=1, reports=1)
    assert it.slots() == {1: ("mail", 1), 2: ("reports", 1)}


def test_who_is_not_up_or_leaves_or_is_busy_offers_nothing(crew):
    it = crew()
    it.target(mail=4)
    it.pool.workers[1].is_ready = False
    it.pool.workers[2].dismiss()
    it.give(3, "mail")
    assert it.slots(mail=9) == {4: ("mail", 1)}


def test_short_jobs_are_given_ahead_also_to_a_busy_worker(crew):
    it = crew()
    it.target(mail=2)
    it.supervisors["mail"].mean_run_s = 0.0005
    it.give(1, "mail", 2)
    assert it.slots(mail=50) == {1: ("mail", 3), 2: ("mail", 5)}
    assert it.slots() == {2: ("mail", 5)}


# Lending.


def test_an_idle_worker_is_lent_where_there_is_more_than_the_own_workers_take(crew):
    it = crew()
    it.supervisors["reports"].mean_run_s = 0.0001
    it.target(mail=2, reports=1)
    assert it.slots(reports=100) == {3: ("reports", 21), 1: ("reports", 21), 2: ("reports", 21)}
    assert it.slots(reports=30) == {3: ("reports", 21), 1: ("reports", 21), 2: ("mail", 1)}


def test_a_lent_worker_goes_on_while_its_own_category_has_no_work(crew):
    it = crew()
    it.supervisors["reports"].mean_run_s = 0.0001
    it.target(mail=1)
    it.give(1, "reports", 5)
    assert it.slots(reports=100) == {1: ("reports", 16)}
    assert it.slots(reports=100, mail=1) == {}


def test_a_lent_worker_whose_category_has_work_is_recalled_and_keeps_what_it_runs(crew):
    it = crew()
    it.target(mail=1)
    it.give(1, "reports", 3)
    assert it.pool.recall({"reports": 9}, NOW) == []
    assert it.pool.recall({"reports": 9, "mail": 1}, NOW) == given_back(2, 3)
    assert it.homes == {1: "mail"}
    assert [held.claim for held in it.pool.workers[1].held] == [1]


def test_no_more_lent_workers_are_recalled_than_their_category_has_work_for(crew):
    it = crew()
    it.target(mail=3)
    it.give(1, "reports", 2)
    it.give(2, "reports", 2)
    assert it.pool.recall({"mail": 1}, NOW) == []
    assert it.pool.recall({"mail": 2}, NOW) == given_back(2)
    assert it.pool.recall({"mail": 3}, NOW) == given_back(4)


def test_whoever_is_free_soonest_comes_in_the_place_of_a_lent_worker(crew):
    it = crew()
    it.supervisors["reports"].mean_run_s = 0.005
    it.target(mail=1, reports=3)
    for number, ran_s in ((1, 0.001), (2, 0.004), (3, 0.003), (4, 0.05)):
        it.give(number, "reports", 2)
        it.pool.workers[number].progress_at = NOW - ran_s
    assert it.pool.recall({"mail": 1}, NOW) == given_back(4)
    assert it.homes == {1: "reports", 2: "mail", 3: "reports", 4: "reports"}
    assert it.pool.recall({"mail": 1}, NOW) == []


def test_of_busy_workers_that_one_moves_that_is_free_soonest(crew):
    it = crew()
    it.supervisors["reports"].mean_run_s = 0.005
    it.target(reports=3)
    for number, ran_s in ((1, 0.001), (2, 0.05), (3, 0.004)):
        it.give(number, "reports", 2)
        it.pool.workers[number].progress_at = NOW - ran_s
    assert it.target(mail=1, reports=2) == given_back(6)
    assert it.homes == {1: "reports", 2: "reports", 3: "mail"}


def test_nobody_is_lent_when_the_own_workers_take_it_all(crew):
    it = crew()
    it.target(mail=1, reports=2)
    assert it.slots(reports=2) == {1: ("mail", 1), 2: ("reports", 1), 3: ("reports", 1)}


def test_a_categorys_own_work_comes_before_lending(crew):
    it = crew()
    it.target(mail=2)
    assert it.slots(mail=1, reports=100) == {1: ("mail", 1), 2: ("reports", 1)}


def test_a_category_keeps_its_minimum_of_idle_workers_at_home(crew):
    it = crew("[categories.mail]\nmin_workers = 2\n[categories.reports]\n")
    it.target(mail=3)
    assert it.slots(reports=100) == {1: ("reports", 1), 2: ("mail", 1), 3: ("mail", 1)}
    it.give(1, "reports")
    assert it.slots(reports=100) == {2: ("mail", 1), 3: ("mail", 1)}


def test_a_lent_worker_goes_home_where_less_than_the_minimum_are(crew):
    it = crew("[categories.mail]\nmin_workers = 1\n[categories.reports]\n")
    it.supervisors["reports"].mean_run_s = 0.0001
    it.target(mail=2)
    it.give(1, "reports", 2)
    it.target(mail=1, reports=1)
    assert it.homes == {1: "mail", 2: "reports"}
    assert it.slots(reports=100) == {2: ("reports", 21)}


def test_a_busy_worker_that_moves_gets_no_more_where_the_minimum_needs_it(crew):
    it = crew("[categories.mail]\nmin_workers = 1\n[categories.reports]\n")
    it.supervisors["reports"].mean_run_s = 0.0001
    it.target(reports=1)
    it.give(1, "reports", 2)
    assert it.target(mail=1) == given_back(2)
    assert it.slots(reports=100) == {}


def test_a_lent_worker_gets_only_a_job_of_its_own_before_it_is_back(crew):
    it = crew()
    it.target(mail=1)
    it.supervisors["mail"].mean_run_s = it.supervisors["reports"].mean_run_s = 0.0001
    it.give(1, "reports")
    assert it.slots(mail=5, reports=5) == {1: ("mail", 1)}
    it.give(1, "mail")
    assert it.slots(mail=5, reports=5) == {}
    it.pool.workers[1].held.clear()
    list(it.pool.workers[1].by_category([ran(1), ran(2)]))
    assert it.slots(mail=5, reports=5) == {1: ("mail", 21)}


@pytest.mark.parametrize(
    ("mail_s", "reports_s", "ran_s"),
    [
        (None, 0.005, 0.001),  # who knows how long one of its own takes
        (1.0, 0.005, 0.001),
        (0.0001, 1.0, 0.001),
        (0.0001, 0.005, 0.02),  # it should have ended long ago: who knows when it will
    ],
)
def test_a_lent_worker_takes_a_job_of_its_own_ahead_only_if_that_starts_soon_and_is_short(
    crew, mail_s, reports_s, ran_s
):
    it = crew()
    it.target(mail=1)
    it.supervisors["mail"].mean_run_s, it.supervisors["reports"].mean_run_s = 0.0001, 0.005
    it.give(1, "reports")
    assert it.slots(mail=1) == {1: ("mail", 1)}
    it.supervisors["mail"].mean_run_s, it.supervisors["reports"].mean_run_s = mail_s, reports_s
    it.pool.workers[1].progress_at = NOW - ran_s
    assert it.slots(mail=1) == {}


def test_no_more_workers_hold_jobs_of_a_category_than_it_may_have(crew):
    it = crew("[categories.mail]\nmax_workers = 1\n[categories.reports]\n")
    it.supervisors["mail"].mean_run_s = it.supervisors["reports"].mean_run_s = 0.005
    it.target(mail=1, reports=1)
    it.give(2, "mail")  # it is lent, too
    it.give(1, "reports")
    assert it.slots(mail=5) == {2: ("mail", 1)}
    it.pool.workers[2].held.clear()
    it.give(2, "reports")
    assert it.slots(mail=5) == {1: ("mail", 1)}
    it.give(1, "mail")
    assert it.slots(mail=5) == {}


def test_behind_the_job_of_its_own_a_lent_worker_gets_nothing_more(crew):
    """It would stand behind jobs of two categories, and be counted for one."""
    it = crew()
    it.target(mail=1)
    it.supervisors["mail"].mean_run_s = it.supervisors["reports"].mean_run_s = 0.0001
    it.give(1, "reports")
    assert it.slots(reports=100) == {1: ("reports", 20)}
    it.give(1, "mail")
    assert it.slots(reports=100) == {}


def test_a_lent_worker_keeps_the_job_of_its_own_that_it_holds_ahead(crew):
    it = crew()
    it.target(mail=1)
    it.give(1, "reports")
    it.give(1, "mail")
    assert (it.pool.workers[1].serving, it.pool.workers[1].succeeding) == ("reports", "mail")
    assert it.pool.recall({"mail": 1}, NOW) == []
    assert it.pool.revoke_from({"mail"}) == given_back(2)
    assert it.pool.workers[1].succeeding is None


def test_runs_count_for_the_categories_of_their_jobs(crew):
    it = crew()
    it.target(mail=1)
    it.give(1, "reports")
    it.give(1, "mail")
    worker = it.pool.workers[1]
    assert list(worker.by_category([ran(1), ran(2)])) == [("reports", [ran(1)]), ("mail", [ran(2)])]
    assert list(worker.by_category([ran(3)])) == [("mail", [ran(3)])]
    assert (worker.serving, worker.succeeding) == ("mail", None)


def test_a_lent_worker_in_a_long_job_is_given_back_by_an_idle_one_of_the_borrower(crew):
    it = crew()
    it.target(mail=1, reports=1)
    it.give(1, "reports")
    assert it.slots(mail=1) == {2: ("mail", 1)}
    assert it.homes == {1: "reports", 2: "mail"}
    assert it.pool.workers[1].held


def test_a_lent_worker_stays_lent_while_nothing_waits_at_its_home(crew):
    it = crew()
    it.target(mail=1, reports=1)
    it.give(1, "reports")
    it.slots(reports=1)
    assert it.homes == {1: "mail", 2: "reports"}


def test_each_idle_worker_gives_back_one(crew):
    it = crew()
    it.target(mail=2, reports=1)
    it.give(1, "reports")
    it.give(2, "reports")
    assert it.slots(mail=5) == {3: ("mail", 1)}
    assert Counter(it.homes.values()) == {"mail": 2, "reports": 1}


def test_the_borrower_with_the_greatest_weight_is_served_first(crew):
    it = crew("[categories.a]\n[categories.b]\npriority = 5\n[categories.c]\n")
    it.target(a=3)
    assert it.slots(b=2, c=9) == {1: ("b", 1), 2: ("c", 1), 3: ("c", 1)}


def test_lending_stops_at_the_borrowers_maximum(crew):
    it = crew("[categories.mail]\n[categories.reports]\nmax_workers = 2\n")
    it.target(mail=3, reports=1)
    assert it.slots(reports=100) == {4: ("reports", 1), 1: ("reports", 1), 2: ("mail", 1), 3: ("mail", 1)}
    it.give(1, "reports")
    it.give(4, "reports")
    assert it.slots(reports=100) == {2: ("mail", 1), 3: ("mail", 1)}


def test_borrowed_workers_count_against_the_maximum(crew):
    it = crew("[categories.mail]\n[categories.reports]\nmax_workers = 2\n")
    it.target(mail=2)
    it.give(1, "reports")
    it.target(mail=0, reports=2)
    it.pool.workers[1].home = "mail"  # it was lent by another category and is not back yet
    it.supervisors["reports"].target = 3
    it.pool.reconcile(NOW)
    for worker in it.pool.workers.values():
        worker.is_ready = True
    assert sum(category == "reports" for category, _ in it.slots(reports=9).values()) == 1


def test_whom_a_borrower_at_its_maximum_has_no_place_for_takes_that_of_the_lent_worker(crew):
    it = crew("[categories.mail]\n[categories.reports]\nmax_workers = 1\n[categories.web]\n")
    it.supervisors["reports"].mean_run_s = 0.0001
    it.target(mail=1, reports=1)
    it.give(1, "reports", 2)
    assert it.slots(reports=100, web=5) == {1: ("reports", 19), 2: ("web", 1)}
    assert it.homes == {1: "reports", 2: "mail"}


def test_the_maximum_holds_for_work_that_only_turns_up_within_the_turn(crew):
    # Due jobs are released and claimed in one turn: `waiting` does not know them yet.
    it = crew("[categories.mail]\n[categories.reports]\nmax_workers = 2\n")
    it.target(mail=1, reports=2)
    it.give(1, "reports")
    assert sum(category == "reports" for category, _ in it.slots().values()) == 1


# Handing out, taking back.


def test_claims_go_to_their_workers(crew):
    it = crew()
    it.target(mail=2)
    claims = [Claim(number, worker, 1, job_id(number), b"") for number, worker in [(1, 2), (2, 1), (3, 2)]]
    assert it.pool.hand_out(claims, [Slot("mail", 1, 1), Slot("reports", 2, 2)], NOW) == []
    held = {number: [one.claim for one in worker.held] for number, worker in it.pool.workers.items()}
    assert held == {1: [2], 2: [1, 3]}
    assert it.pool.workers[2].serving == "reports"


def test_claims_of_workers_that_are_gone_or_leave_are_given_back(crew):
    it = crew()
    it.target(mail=2)
    it.pool.workers[1].dismiss()
    claims = [Claim(number, worker, 1, job_id(number), b"") for number, worker in [(1, 1), (2, 2), (3, 9)]]
    slots = [Slot("mail", worker, 1) for worker in (1, 2, 9)]
    assert it.pool.hand_out(claims, slots, NOW) == given_back(1, 3)


def test_what_waits_behind_a_long_job_is_taken_back_and_what_runs_is_not(crew):
    it = crew()
    it.target(mail=2)
    it.give(1, "mail", 3)
    it.give(2, "mail", 1)
    assert it.pool.holds_ahead
    assert it.pool.revoke_stuck(NOW + 0.01, COMMIT_S) == []
    assert it.pool.revoke_stuck(NOW + 0.0101, COMMIT_S) == given_back(2, 3)
    assert it.pool.revoke_stuck(NOW + 60, COMMIT_S) == []
    assert not it.pool.holds_ahead


def test_slow_commits_give_more_time_before_taking_back(crew):
    it = crew()
    it.target(mail=1)
    it.give(1, "mail", 2)
    assert it.pool.revoke_stuck(NOW + 0.4, 0.04) == []
    assert it.pool.revoke_stuck(NOW + 0.41, 0.04) == given_back(2)


# The end.


def test_all_leave_after_their_running_jobs(crew):
    it = crew()
    it.target(mail=2, reports=1)
    it.give(1, "mail", 3)
    assert it.pool.dismiss() == given_back(2, 3)
    assert all(worker.is_leaving for worker in it.pool.workers.values())
    assert it.slots(mail=9, reports=9) == {}
    for number in (2, 3):
        assert os.read(it.preloader.tokens[number], 1) == b""


def test_all_are_killed(crew):
    it = crew()
    it.target(mail=2, reports=1)
    it.pool.kill()
    assert it.preloader.killed == [1, 2, 3]


# What it shows.


def test_the_view_has_workers_at_home_and_those_that_run(crew):
    it = crew()
    it.target(mail=2, reports=1)
    it.give(1, "reports")
    it.give(3, "reports")
    counts = [0, 5, 2, 0, 0, 0, 0, 0]
    view = it.pool.view({"reports": CategoryStats(counts, paused=True)})
    assert (view["mail"].workers, view["mail"].busy, view["mail"].count(State.PENDING)) == (2, 0, 0)
    assert (view["reports"].workers, view["reports"].busy) == (1, 2)
    assert (view["reports"].counts, view["reports"].paused) == (counts, True)


def test_jobs_of_a_paused_or_unknown_category_cannot_start():
    stats = {
        "mail": CategoryStats([9, 3, 9, 9, 9, 9, 9, 9]),
        "paused": CategoryStats([0, 3, 0, 0, 0, 0, 0, 0], paused=True),
        "gone": CategoryStats([0, 3, 0, 0, 0, 0, 0, 0]),
    }
    assert waiting(stats, ["mail", "paused", "new"]) == {"mail": 3, "paused": 0}
