"""Dispatching goes on while nodes die and come back: what was promised is there, once."""

import multiprocessing
import os
import random
from collections import Counter

from nodes import eventually, scaled

from jobsched import Dispatcher
from jobsched.job import State

CLIENTS = 8


def dispatch_away(config, client, count, promised):
    """Dispatch jobs in every way, and write down each id once its dispatch has returned."""
    rng = random.Random(client)
    log = os.open(promised, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    dispatcher = Dispatcher.from_config(config)
    while count > 0:
        size = rng.choice((1, 1, 1, 1, 1, 20, 100))
        labels = [f"{client}-{count - n}" for n in range(min(size, count))]
        count -= len(labels)
        if size == 1:
            jobs = [dispatcher.dispatch("tasks:mark", "mail", args=(labels[0],))]
        else:
            jobs = dispatcher.dispatch_many(
                [dispatcher.prepare("tasks:mark", "reports", args=(label,)) for label in labels]
            )
        os.write(
            log, "".join(f"{job.id} {label}\n" for job, label in zip(jobs, labels, strict=True)).encode()
        )
    dispatcher.close()


def test_every_dispatch_that_returned_is_one_job_and_is_done(project):
    count = scaled(2000)
    promised = project.folder / "promised"
    context = multiprocessing.get_context("fork")
    clients = [
        context.Process(target=dispatch_away, args=(project.config, n, count, promised))
        for n in range(CLIENTS)
    ]
    for client in clients:
        client.start()
    kills = 0
    try:
        while any(client.is_alive() for client in clients) or kills < 3:
            node = project.start()
            before = size_of(promised)
            eventually(
                lambda before=before: (
                    size_of(promised) > before + 30_000 or not any(client.is_alive() for client in clients)
                ),
                30,
            )
            node.kill()
            kills += 1
            directly = size_of(promised)
            if kills % 2:  # sometimes there is no node for a while
                eventually(
                    lambda directly=directly: (
                        size_of(promised) > directly + 5000
                        or not any(client.is_alive() for client in clients)
                    ),
                    30,
                )
    finally:
        for client in clients:
            client.kill()
            client.join()
    assert [client.exitcode for client in clients] == [0] * CLIENTS
    assert project.run_until_idle() == 0
    lines = [line.split() for line in promised.read_text().splitlines()]
    ids = [job_id for job_id, _ in lines]
    assert len(ids) == len(set(ids)) == CLIENTS * count
    assert Counter(project.states(ids)) == {"completed": len(ids)}
    assert project.count(State.COMPLETED) == len(ids)
    assert sorted(project.ids()) == sorted(job_id.replace("-", "") for job_id in ids)
    runs = project.runs_by_label()
    assert set(runs) == {label for _, label in lines}
    assert sum(len(of_label) > 1 for of_label in runs.values()) <= 600 * kills


def size_of(path):
    return path.stat().st_size if path.exists() else 0
