"""Clients that dispatch often, and write to journals: real nodes, real clients, and kills of both."""

import contextlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from nodes import eventually, scaled

from jobsched import Dispatcher, StoreFull, Unique
from jobsched.job import State
from jobsched.job_id import parse_id
from jobsched.journal.file import START, journal_files
from jobsched.store.backup import restore
from jobsched.store.base import Query
from jobsched.store.lmdb import open_store
from jobsched.store.place import JOURNALS

OFTEN = 8  # dispatches of a process, before it gets a journal


def journals(project):
    return journal_files(project.store_path / JOURNALS)


def has_written(path):
    return any(path.read_bytes()[START:])


def with_journal(project):
    """Return a dispatcher that has a journal, once its node has imported the tasks; and its jobs so far."""
    dispatcher = project.dispatcher()
    before = len(journals(project))
    ids = []

    def has_begun():
        ids.append(dispatcher.dispatch("tasks:mark", "mail", args=(f"first-{len(ids)}",)).id)
        time.sleep(0.02)  # it asks for one each second only, until the node is ready
        return len(journals(project)) > before and any(map(has_written, journals(project)))

    eventually(has_begun)
    return dispatcher, ids


def dispatched(dispatcher, count, name="job", category="mail"):
    """Dispatch so many jobs one by one; return their ids."""
    return [
        dispatcher.dispatch("tasks:mark", category, args=(f"{name}-{number}",)).id for number in range(count)
    ]


def stored(project):
    """Return the ids of all jobs that are in the store's file as it is, in the order of their places."""
    found, after = [], b""
    with contextlib.closing(open_store(project.store_path)) as store:
        while after is not None:
            page = store.find(Query(limit=200, after=after))
            found += page.jobs
            after = page.next
    return [job.id for job in sorted(found, key=lambda job: job.status.sequence)]


def parsed(ids):
    return [parse_id(job_id) for job_id in ids]


def jobsched(project, *words):
    """Run a command; return what it says with --json."""
    command = [sys.executable, "-m", "jobsched", "-c", str(project.config), *words, "--json"]
    done = subprocess.run(
        command, cwd=project.folder, env=project.environment, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


@pytest.fixture
def paused(project):
    """A project with a node, whose category mail is paused: what is dispatched stays as it was put."""
    project.node = project.start()
    project.dispatcher().pause("mail")
    return project


# What goes through one.


def test_the_jobs_of_a_client_that_dispatches_often_run_in_their_order(project):
    project.configure({"mail": {"max_workers": 1}})
    project.start()
    dispatcher, ids = with_journal(project)
    ids += dispatched(dispatcher, 500)
    assert len(journals(project)) == 1
    assert [dispatcher.job(job_id).result(20) for job_id in ids[-3:]] == ["job-497", "job-498", "job-499"]
    eventually(project.is_settled)
    assert Counter(project.states(ids)) == {"completed": len(ids)}
    labels = [run.label for run in project.runs()]
    assert labels == [f"first-{n}" for n in range(len(ids) - 500)] + [f"job-{n}" for n in range(500)]


def test_a_process_that_dispatches_seldom_makes_none(paused):
    dispatched(paused.dispatcher(), OFTEN - 2)
    assert journals(paused) == []


@pytest.mark.parametrize(
    ("category", "settings", "options"),
    [("mail", {"max_pending": 1000}, {}), ("mail", {}, {"unique": Unique()})],
    ids=["max_pending", "unique"],
)
def test_what_a_node_may_refuse_is_never_written_to_one(project, category, settings, options):
    project.configure({"mail": settings})
    node = project.start()
    eventually(node.workers)
    dispatcher = project.dispatcher()
    for number in range(50):
        dispatcher.dispatch("tasks:mark", category, 3600, args=(f"{number}",), **options)
    assert not any(map(has_written, journals(project)))
    assert len(stored(project)) == 50  # each was there when its dispatch returned


def test_a_dispatch_returns_while_the_node_is_stopped_and_its_job_is_done_later(project):
    node = project.start()
    dispatcher, ids = with_journal(project)
    with node.stopped():
        ids += dispatched(dispatcher, 50)
    eventually(lambda: Counter(project.states(ids)) == {"completed": len(ids)})


def test_a_job_is_seen_by_others_as_soon_as_its_dispatch_has_returned(paused):
    dispatcher, _ = with_journal(paused)
    other = paused.dispatcher()
    for number in range(100):
        job = dispatcher.dispatch("tasks:mark", "mail", args=(f"job-{number}",))
        assert other.job(job.id).state() == "pending"
        if number % 10 == 0:
            assert other.job(job.id).cancel() is None or other.job(job.id).state() == "cancelled"


def test_dispatches_of_several_clients_keep_their_order(paused):
    """One by a journal, one by another, one that asks the node; each begins when the last has returned."""
    one, ids = with_journal(paused)
    two, more = with_journal(paused)
    ids += more
    for number in range(scaled(100)):
        third = paused.dispatcher()
        ids += [d.dispatch("tasks:mark", "mail", args=(f"job-{number}",)).id for d in (one, two, third, one)]
        third.close()
    one.dispatch("tasks:mark", "mail", args=("last",)).state()
    assert stored(paused)[:-1] == parsed(ids)


# Ends of clients and nodes.


def test_a_killed_client_leaves_what_it_was_told_and_no_file(paused):
    promised = paused.folder / "promised"
    client = multiprocessing.get_context("fork").Process(
        target=dispatch_away, args=(paused.config, promised, "a")
    )
    client.start()
    eventually(lambda: lines(promised) > 500)
    client.kill()
    client.join()
    eventually(lambda: journals(paused) == [])
    ids = [line.split()[0] for line in promised.read_text().splitlines()]
    assert len(ids) > 500
    kept = stored(paused)
    assert kept[: len(ids)] == parsed(ids)
    assert len(kept) <= len(ids) + 1  # one may have been under way


def test_what_was_dispatched_before_the_node_was_killed_is_there_with_the_next_one(paused):
    dispatcher, ids = with_journal(paused)
    with paused.node.stopped():
        ids += dispatched(dispatcher, 40)
        paused.node.kill()
    assert len(stored(paused)) < len(ids)  # it is in the journal alone
    paused.start()
    ids += dispatched(dispatcher, 40)
    dispatcher.job(ids[-1]).state()
    assert stored(paused) == parsed(ids)
    assert len(journals(paused)) == 1


def test_without_a_node_the_next_dispatch_takes_in_what_there_is_before_itself(paused):
    dispatcher, ids = with_journal(paused)
    with paused.node.stopped():
        ids += dispatched(dispatcher, 40)
        paused.node.kill()
    ids += dispatched(paused.dispatcher(), 1)
    assert stored(paused) == parsed(ids)
    ids += dispatched(dispatcher, 3)
    assert stored(paused) == parsed(ids)
    dispatcher.close()
    dispatched(paused.dispatcher(), 1)
    assert journals(paused) == []


@pytest.mark.parametrize("by_another", [False, True])
def test_without_a_node_a_job_is_seen_that_is_in_a_journal_alone(paused, by_another):
    dispatcher, ids = with_journal(paused)
    with paused.node.stopped():
        ids += dispatched(dispatcher, 10)
        paused.node.kill()
    asking = paused.dispatcher() if by_another else dispatcher
    assert asking.job(ids[-1]).state() == "pending"


def test_a_stop_takes_in_the_rest(paused):
    dispatcher, ids = with_journal(paused)
    with paused.node.stopped():
        ids += dispatched(dispatcher, 40)
        paused.node.terminate()
    assert paused.node.wait(30) == 0
    assert stored(paused) == parsed(ids)


def test_a_node_that_runs_until_idle_does_what_was_dispatched_before(project):
    """A dispatch has returned, so it is not idle."""
    node = project.launch("--until-idle")
    holding = project.dispatcher().dispatch("tasks:mark", "reports", args=("long", 1.5))
    eventually(project.answers)
    dispatcher, ids = with_journal(project)
    while True:
        ids += dispatched(dispatcher, 1, f"job-{len(ids)}")
        if holding.state() == "completed":
            break
    assert node.wait(30) == 0
    assert Counter(project.states(ids[:-1])) == {"completed": len(ids) - 1}


def test_a_fork_in_the_midst_harms_neither_side(paused):
    dispatcher, ids = with_journal(paused)
    promised = paused.folder / "promised"
    is_over = threading.Event()

    def go_on():
        while not is_over.is_set():
            ids.append(dispatcher.dispatch("tasks:mark", "mail", args=("parent",)).id)

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        for number in range(10):
            child = os.fork()
            if child == 0:
                code = 1
                with contextlib.suppress(BaseException):
                    dispatch_away(paused.config, promised, f"child-{number}", 30, dispatcher)
                    code = 0
                os._exit(code)
            assert os.waitpid(child, 0)[1] == 0
    finally:
        is_over.set()
        thread.join()
    paused.node.kill()
    ids += [line.split()[0] for line in promised.read_text().splitlines()]
    assert len(ids) > 300
    dispatched(paused.dispatcher(), 1)
    assert sorted(stored(paused)[:-1]) == sorted(parsed(ids))


def test_a_child_of_a_fork_does_not_take_the_journal_of_a_parent_that_has_not_used_it(paused):
    eventually(paused.node.workers)
    dispatcher = paused.dispatcher()
    for number in range(OFTEN + 2):  # which has one made, and is not written to it
        dispatcher.dispatch("tasks:mark", "mail", args=(f"{number}",), unique=Unique())
    assert journals(paused)
    child = os.fork()
    if child == 0:
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    with paused.node.stopped():
        ids = dispatched(dispatcher, 10)
        paused.node.kill()
    dispatched(paused.dispatcher(), 1)
    assert set(parsed(ids)) <= set(stored(paused))


@pytest.mark.parametrize("seed", range(scaled(2)))
def test_whoever_is_killed_nothing_is_lost_or_done_twice_or_out_of_order(project, seed):
    """Clients write down when each dispatch began and when it had returned."""
    project.configure({"mail": {}})
    project.start()
    project.dispatcher().pause("mail")
    project.nodes[-1].kill()
    context = multiprocessing.get_context("fork")
    clients = []
    for lap in range(4):
        node = project.launch() if lap % 4 != 3 else None
        for number in range(3):
            promised = project.folder / f"promised-{lap}-{number}"
            name = f"{lap}-{number}"
            client = context.Process(target=dispatch_away, args=(project.config, promised, name))
            client.start()
            clients.append((client, promised))
        newest = clients[-3:]
        eventually(lambda newest=newest: all(lines(promised) > 100 for _, promised in newest))
        if lap % 2 == seed % 2:
            newest[0][0].kill()
        if node is not None:
            node.kill()
            eventually(lambda newest=newest: lines(newest[1][1]) > 130)
    for client, _ in clients:
        client.kill()
        client.join()
    dispatched(project.dispatcher(), 1, "last")
    places = {job.hex(): place for place, job in enumerate(stored(project)[:-1])}
    known = [line.split() for _, promised in clients for line in promised.read_text().splitlines()]
    known = [line for line in known if len(line) == 3]  # the last one may be torn
    jobs = [(job.replace("-", ""), int(began), int(returned)) for job, began, returned in known]
    assert not [job for job, _, _ in jobs if job not in places]
    assert len(places) <= len(jobs) + len(clients)
    latest = 1 << 62
    for _, began, returned in sorted(jobs, key=lambda job: places[job[0]], reverse=True):
        assert began <= latest  # else one behind it had returned before it began
        latest = min(latest, returned)


def dispatch_away(config, promised, name, count=1_000_000, dispatcher=None):
    """Dispatch one by one, and write down each id, and when its dispatch began and had returned."""
    dispatcher = dispatcher or Dispatcher.from_config(config)
    log = os.open(promised, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    for number in range(count):
        began = time.monotonic_ns()
        job = dispatcher.dispatch("tasks:mark", "mail", args=(f"{name}-{number}",))
        os.write(log, f"{job.id} {began} {time.monotonic_ns()}\n".encode())


def lines(path):
    return path.read_bytes().count(b"\n") if path.exists() else 0


# No room.


def test_what_a_full_store_has_accepted_stays_and_then_it_says_that_it_is_full(project):
    project.configure({"mail": {}}, quota="2MiB")
    node = project.start()
    project.dispatcher().pause("mail")
    dispatcher, ids = with_journal(project)
    with contextlib.suppress(StoreFull):
        for _ in range(10_000):
            ids.append(dispatcher.dispatch("tasks:mark", "mail", args=("x" * 2000,)).id)
    with pytest.raises(StoreFull):
        project.dispatcher().dispatch("tasks:mark", "mail", args=("x" * 2000,))
    project.configure({"mail": {}}, quota="1GiB")
    node.kill()
    project.start()
    project.dispatcher().job(ids[-1]).state()
    assert stored(project) == parsed(ids)


def test_a_client_under_a_limit_on_files_dispatches_without_one(paused):
    """What it writes is never cut short and taken for whole."""
    words = [sys.executable, str(Path(__file__).with_name("dispatch_under_limit.py")), str(paused.config)]
    said = subprocess.run(words, env=paused.environment, capture_output=True, text=True, check=True).stdout
    ids = said.split()
    assert len(ids) == 40
    paused.node.kill()
    dispatched(paused.dispatcher(), 1)
    assert stored(paused)[:-1] == parsed(ids)


# Who looks.


@pytest.mark.parametrize("with_node", [True, False])
def test_commands_show_all_that_was_accepted(paused, with_node):
    dispatcher, ids = with_journal(paused)
    if with_node:
        ids += dispatched(dispatcher, 40)
    else:
        with paused.node.stopped():
            ids += dispatched(dispatcher, 40)
            paused.node.kill()
    assert {job["id"] for job in jobsched(paused, "jobs", "--limit", "200")} == set(ids)
    if with_node:
        ids += dispatched(dispatcher, 40)
        stats = jobsched(paused, "stats")
        assert stats["total"]["pending"] == len(ids)
        ids += dispatched(dispatcher, 40)
    jobsched(paused, "backup", "kept")
    with contextlib.closing(open_store(paused.folder / "kept")) as store:
        assert store.stats()["mail"][State.PENDING] == len(ids)


def test_a_restore_puts_the_journals_aside_with_the_file_that_they_belong_to(paused):
    dispatcher, ids = with_journal(paused)
    jobsched(paused, "backup", "kept")
    with paused.node.stopped():
        more = dispatched(dispatcher, 10)
        paused.node.kill()
    done = restore(paused.folder / "kept", paused.store_path, now=1)
    assert len(journal_files(Path(done.aside) / JOURNALS)) == 1
    assert journals(paused) == []
    paused.start()
    later = dispatched(dispatcher, 10)
    dispatcher.job(later[-1]).state()
    assert stored(paused) == parsed(ids + later)
    paused.nodes[-1].process.send_signal(signal.SIGTERM)
    paused.nodes[-1].wait()
    paused.store_path = Path(done.aside)
    assert set(parsed(more)) <= set(map(bytes.fromhex, paused.ids()))


def test_a_restore_that_fails_leaves_the_journals_where_they_are(paused, monkeypatch):
    dispatcher, ids = with_journal(paused)
    jobsched(paused, "backup", "kept")
    with paused.node.stopped():
        ids += dispatched(dispatcher, 10)
        paused.node.kill()
    rename = Path.rename

    def failing(self, target):
        if Path(target).name == "data.mdb":
            raise OSError(5, "Input/output error")
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", failing)
        with pytest.raises(Exception, match="Input/output error"):
            restore(paused.folder / "kept", paused.store_path, now=1)
    dispatched(paused.dispatcher(), 1)
    assert stored(paused)[:-1] == parsed(ids)
