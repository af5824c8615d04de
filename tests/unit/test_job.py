import pytest

from jobsched.job import CANCELLABLE, ENDED, State


@pytest.mark.parametrize(
    ("state", "number"),
    [
        (State.SCHEDULED, 0),
        (State.PENDING, 1),
        (State.IN_PROGRESS, 2),
        (State.COMPLETED, 3),
        (State.FAILED, 4),
        (State.CANCELLED, 5),
        (State.PARKED, 6),
        (State.QUARANTINED, 7),
    ],
)
def test_the_numbers_of_the_states_are_those_on_disk(state, number):
    assert state == number
    assert len(State) == 8


def test_a_state_is_written_in_lower_case():
    assert f"{State.IN_PROGRESS}" == "in_progress"
    assert {str(state) for state in ENDED} == {"completed", "failed", "cancelled"}


def test_what_nobody_runs_can_be_cancelled():
    assert {str(state) for state in CANCELLABLE} == {"scheduled", "pending", "parked", "quarantined"}
