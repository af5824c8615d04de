"""Looking at schedules: it needs no node, nor one that lives until it has answered."""

import os
import socket
import threading

from jobsched import Every, wire


def test_a_look_at_schedules_outlasts_a_node_that_dies_with_the_question(project):
    schedules = project.dispatcher().schedules
    schedules.add("nightly", "tasks:mark", Every(3600), "mail", args=("x",))
    with socket.socket(socket.AF_UNIX) as listener, wire.unix_address(project.store_path) as address:
        listener.bind(address)
        listener.listen()
        listener.settimeout(10)
        dying = threading.Thread(target=greet_and_die, args=(listener,), daemon=True)
        dying.start()
        assert [info.name for info in schedules.list()] == ["nightly"]
        dying.join(10)
        assert not dying.is_alive()


def greet_and_die(listener):
    """Be a node that is killed when it has read the question."""
    connection, _ = listener.accept()
    with connection:
        connection.settimeout(10)
        connection.recv(4096)
        connection.sendall(wire.frame(wire.Welcome(os.getpid())))
        connection.recv(4096)
