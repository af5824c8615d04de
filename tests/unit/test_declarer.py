import logging

import msgspec
import pytest

from jobsched.config import parse_config
from jobsched.declarer import Declarer
from jobsched.reception import Reception
from jobsched.schedule import PutSchedule, RemoveSchedule
from jobsched.store.base import Refused, Request, Turn
from jobsched.store.memory import MemoryStore

NOW = 1_800_000_000_000_000
TEXT = """
tasks = ["shop"]
[categories.mail]
[schedules.a]
task = "shop:send"
category = "mail"
every = "5m"
[schedules.b]
task = "shop:send"
category = "mail"
cron = "@daily"
"""


class Clock:
    def now(self):
        return NOW

    def monotonic(self):
        return 0.0


class Start:
    """A node's start, as far as schedules are concerned."""

    def __init__(self, tmp_path):
        self.config = parse_config(TEXT, tmp_path)
        self.store = MemoryStore()
        self.reception = Reception(self.config)

    def ask(self):
        Declarer(self.config, self.store, self.reception, Clock()).ask()

    def turn(self, *before):
        """Apply what is asked, behind what somebody else asks; say whether there was anything."""
        requests = self.reception.requests()
        self.store.apply(Turn(now=NOW, requests=before))
        self.reception.answer(self.store.apply(Turn(now=NOW, requests=requests)).replies)
        return bool(requests)

    def names(self):
        return [stored.schedule.name for stored in self.store.schedules()]


@pytest.fixture
def start(tmp_path):
    return Start(tmp_path)


@pytest.fixture
def said(caplog):
    caplog.set_level(logging.INFO, "jobsched.declarer")
    return caplog


def test_the_first_turn_brings_the_store_up_to_date(start, said):
    start.ask()
    assert start.turn()
    assert start.names() == ["a", "b"]
    assert [line.partition(" (")[0] for line in said.messages] == ["schedule=a added", "schedule=b added"]


def test_a_store_that_has_all_is_asked_for_nothing(start):
    start.ask()
    start.turn()
    start.ask()
    assert not start.turn()


def test_more_schedules_than_a_page_has_are_all_looked_at(start):
    made = start.config.schedules["a"].schedule
    others = [
        msgspec.structs.replace(made, name=f"old-{number}", source="categories.toml") for number in range(450)
    ]
    start.store.apply(Turn(now=NOW, requests=[Request(schedules=[PutSchedule(one, 1, 1) for one in others])]))
    start.ask()
    start.turn()
    assert start.names() == ["a", "b"]


def test_a_store_that_fails_is_asked_again(start, said):
    start.ask()
    start.reception.requests()
    start.reception.refuse(Refused("NoRoom", "the disk is full"))
    assert said.messages == []
    assert start.turn()
    assert start.names() == ["a", "b"]


def test_what_somebody_else_has_changed_meanwhile_is_looked_at_again(start):
    start.ask()
    start.turn()
    changed = msgspec.structs.replace(
        start.config.schedules["a"].schedule, task="shop:none", trigger=["once", 5]
    )
    start.store.apply(Turn(now=NOW, requests=[Request(schedules=[PutSchedule(changed, 5, 5)])]))
    start.ask()
    start.turn(Request(schedules=[RemoveSchedule("a")]))
    assert start.names() == ["b"]
    assert start.turn()
    assert start.names() == ["a", "b"]


def test_what_cannot_be_done_is_said_and_the_node_goes_on(start, said):
    start.ask()
    start.reception.requests()
    start.reception.refuse(Refused("StoreFull", "the store is full"))
    assert not start.turn()
    [line] = said.messages
    assert "the schedules of categories.toml were not brought up to date: the store is full" in line
    assert "`jobsched schedule apply` does it" in line
