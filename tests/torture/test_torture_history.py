"""The judge of the torture suite is judged: each wrong is put into a history, and found."""

import re
import time

import pytest
from history import History, Ledger
from scenario import Torture


@pytest.fixture
def wrecked(tmp_path):
    """A project with two acknowledged batches of two jobs each, none of which has run."""
    torture = Torture(1, tmp_path)
    project = torture.project()
    (tmp_path / "ledgers").mkdir()
    dispatch(project, tmp_path, "first", "a", "b")
    dispatch(project, tmp_path, "second", "c", "d")
    yield project
    torture.close()


def dispatch(project, folder, name, *labels):
    dispatcher = project.dispatcher()
    jobs = [dispatcher.prepare("tasks:mark", "mail", args=(label,)) for label in labels]
    ledger = Ledger(folder / "ledgers" / f"{name}.ledger")
    ledger.dispatch(dispatcher, jobs, labels)
    ledger.close()


def history(project):
    return History.of(project, project.folder.parent / "ledgers")


def write_runs(project, *lines):
    """Write what the tasks would have noted: event and label, at rising times."""
    text = "".join(
        f"{event} {label} {pid} 1 {time.monotonic_ns()}\n" for event, label, pid in map(str.split, lines)
    )
    (project.folder / "runs").write_text(text)


def rewrite_ledger(project, name, change):
    path = project.folder.parent / "ledgers" / f"{name}.ledger"
    path.write_text(change(path.read_text()))


def test_a_good_history_has_nothing_to_find(wrecked):
    write_runs(wrecked, "start a 1", "end a 1", "start b 1", "end b 1")
    good = history(wrecked)
    assert len(good.acknowledged) == 4
    wrongs = [good.lost(), good.torn(), good.phantoms(), good.doubled(), good.overlapping()]
    wrongs += [good.out_of_order("mail"), good.out_of_client_order(), good.never_run()]
    wrongs += [good.out_of_dispatch_order("mail")]
    assert not any(wrongs)
    assert good.unfinished() == dict.fromkeys("abcd", "pending ")


def test_an_acknowledged_job_that_is_not_stored_is_lost_and_its_batch_torn(wrecked):
    lost = "00000000-0000-7000-8000-000000000000"
    rewrite_ledger(wrecked, "first", lambda text: text.replace("send 1 ", f"try 1 {lost} mail e\nsend 1 "))
    assert history(wrecked).lost() == {lost}
    assert history(wrecked).torn() == [("first.ledger", 1)]


def test_what_was_not_acknowledged_may_be_missing(wrecked):
    cut = "try 2 00000000-0000-7000-8000-000000000000 mail e\nsend 2 1\nac"
    rewrite_ledger(wrecked, "first", lambda text: text + cut)
    assert not history(wrecked).lost()
    assert not history(wrecked).torn()


def test_what_nobody_dispatched_is_a_phantom_in_the_store_and_in_the_runs(wrecked):
    rewrite_ledger(wrecked, "second", lambda _: "")
    write_runs(wrecked, "start x 1")
    found = history(wrecked)
    assert found.phantoms() == (found.stored.keys() - found.tried.keys()) | {"x"}
    assert len(found.phantoms()) == 3


def test_a_second_run_needs_an_excuse(wrecked):
    write_runs(wrecked, "start a 1", "end a 1", "start a 2", "end a 2", "start b 1")
    assert history(wrecked).doubled() == ["a"]
    assert not history(wrecked).doubled(lambda before, after: (before.pid, after.pid) == (1, 2))


def test_two_runs_at_once_are_seen_by_the_clock_and_by_the_lock(wrecked):
    write_runs(wrecked, "start a 1", "start a 2", "end a 1", "end a 2", "overlap b 3")
    assert history(wrecked).overlapping() == ["b", "a"]


def test_a_job_that_starts_before_its_turn_is_out_of_order(wrecked):
    write_runs(wrecked, "start a 1", "start c 1", "start b 1")
    assert set(history(wrecked).out_of_order("mail")) == {"b"}


def test_a_job_behind_one_that_was_sent_when_its_dispatch_had_returned_is_found(wrecked):
    """The clients are two: nothing but the times says who was first."""
    rewrite_ledger(wrecked, "second", lambda text: re.sub(r"(send|ack) 1 \d+", r"\1 1 5", text))
    assert history(wrecked).out_of_dispatch_order("mail") == ["c behind a", "d behind a"]
    assert not history(wrecked).out_of_dispatch_order("reports")
    rewrite_ledger(wrecked, "second", lambda text: text.replace("ack", "nak"))
    assert not history(wrecked).out_of_dispatch_order("mail")


def test_a_client_whose_jobs_were_stored_the_other_way_round_is_found(wrecked):
    def swapped(text):
        first, second, *rest = text.splitlines(keepends=True)
        return "".join([second, first, *rest])

    rewrite_ledger(wrecked, "first", swapped)
    assert history(wrecked).out_of_client_order() == ["a"]


def test_a_completed_job_without_a_run_is_found(wrecked):
    assert wrecked.run_until_idle() == 0
    assert history(wrecked).never_run() == []
    (wrecked.folder / "runs").unlink()
    assert set(history(wrecked).never_run()) == set("abcd")
