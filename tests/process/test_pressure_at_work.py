"""A machine that is busier than allowed: nothing new starts until it is calm."""

import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

from nodes import eventually

BURN = "while True: pass"
MEMINFO = "/proc/meminfo"


@contextmanager
def burning(count):
    """Keep so many CPUs busy."""
    burners = [subprocess.Popen([sys.executable, "-c", BURN]) for _ in range(count)]
    try:
        yield
    finally:
        for burner in burners:
            burner.kill()
            burner.wait(10)


def test_nothing_new_starts_while_the_cpus_are_busy_and_what_runs_goes_on(project):
    project.configure({"mail": {}}, workers=2)
    with project.config.open("a") as config:
        config.write("\n[pressure]\nmax_cpu = 10\n")
    node = project.start()
    jobs = project.dispatcher()
    running = jobs.dispatch("tasks:until", "mail", args=("running", "gate"))
    eventually(lambda: project.started("running"))
    with burning(1 + (os.cpu_count() or 1) // 5):
        eventually(lambda: node.says(" %, above 10 %"))
        held = jobs.dispatch("tasks:mark", "mail", args=("held",))
        project.open("gate")
        assert running.result(20) == "running"
        node.terminate()
        assert node.wait() == 0
    assert held.state() == "pending"
    assert project.started("held") == []


def test_jobs_start_again_once_the_machine_is_calm(project):
    """Its memory is what the kernel says in a file, here in a copy where the test says it."""
    proc = project.folder / "proc"
    proc.mkdir()
    (proc / "stat").symlink_to("/proc/stat")
    say_available(proc, 0.5)
    project.environment["PYTHONPATH"] += os.pathsep + str(project.folder)
    hook = f"import psutil\npsutil.PROCFS_PATH = {str(proc)!r}\n"
    (project.folder / "sitecustomize.py").write_text(hook)
    project.configure({"mail": {}}, workers=2)
    with project.config.open("a") as config:
        config.write("\n[pressure]\nmax_memory = 60\n")
    node = project.start()
    jobs = project.dispatcher()
    jobs.dispatch("tasks:mark", "mail", args=("before",)).result(20)
    say_available(proc, 0.1)
    eventually(lambda: node.says("memory at 90 %, above 60 %"))
    held = jobs.dispatch("tasks:mark", "mail", args=("held",))
    assert [held.state() for _ in range(50)] == ["pending"] * 50
    say_available(proc, 0.7)
    assert held.result(20) == "held"
    assert node.says("the machine is calm again: jobs start")


def say_available(proc, share):
    """Have the copy of the kernel's file say which share of the memory is available."""
    lines = Path(MEMINFO).read_text().splitlines(keepends=True)
    total = int(next(line for line in lines if line.startswith("MemTotal")).split()[1])
    said = {"MemAvailable:": f"MemAvailable: {int(total * share)} kB\n"}
    (proc / "new").write_text("".join(said.get(line.split()[0], line) for line in lines))
    (proc / "new").rename(proc / "meminfo")
