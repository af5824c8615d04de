import re
from pathlib import Path

import msgspec
import pytest

import jobsched
from jobsched import event as events

FAILED = events.JobFailed(
    at=1_000_000, job="id", task="m:t", category="mail", attempt=2, worker=1, cause="no"
)


def test_the_kinds_are_the_names_of_the_types():
    assert len(set(events.KINDS)) == len(events.KINDS) == len(events.EVENTS.__args__)
    assert FAILED.kind == "job.failed"
    written = {name for name in events.__all__ if name[0].isupper() and not name.isupper()}
    bases = {"Event", "JobEvent", "WorkerEvent", "ScheduleEvent"}
    assert {kind.__name__ for kind in events.EVENTS.__args__} == written - bases


def test_the_manual_has_each_kind_with_its_fields():
    text = (Path(jobsched.__file__).parents[1] / "docs" / "events.md").read_text()
    rows = [line.split("|") for line in text.splitlines() if line.startswith("| `")]
    bases = {"at", "job", "task", "category", "worker", "schedule"}
    for kind, event in zip(events.KINDS, events.EVENTS.__args__, strict=True):
        [row] = [row for row in rows if f"`{kind}`" in row[1]]
        fields = set(event.__struct_fields__) - bases
        assert kind == "node.released" or set(re.findall(r"`(\w+)`", row[2])) - bases == fields


def test_an_event_cannot_be_changed():
    with pytest.raises(AttributeError):
        FAILED.cause = "yes"


def test_events_travel_between_processes():
    told = [FAILED, events.Dropped(at=5, count=3)]
    assert events.from_frame(events.to_frame(told)) == told


def test_in_json_the_kind_comes_first_and_times_are_iso_8601():
    assert list(events.plain(FAILED).items())[:2] == [
        ("kind", "job.failed"),
        ("at", "1970-01-01T00:00:01.000000+00:00"),
    ]
    retried = events.JobRetried(at=1, job="", task="", category="", attempt=1, worker=1, due_at=0, cause="")
    assert events.plain(retried)["due_at"] is None
    assert msgspec.json.encode(events.plain(retried))
