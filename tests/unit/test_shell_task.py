"""The shell task with real programs."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import psutil
import pytest

from jobsched import InvalidOption
from jobsched.codec import encode_result
from jobsched.fence import MARKER
from jobsched.tasks.shell import ProgramFailed, ProgramNotStarted, shell

PATIENCE_S = 10


def python(code, **options):
    """Run some Python in a program of its own."""
    return shell([sys.executable, "-c", textwrap.dedent(code)], **options)


def is_running(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def wait_for(condition):
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_programs_end_is_a_plain_value():
    found = shell(["sh", "-c", "echo out; echo err >&2"])
    assert 0 < found.pop("took_s") < PATIENCE_S
    assert found == {"code": 0, "stdout": "out\n", "stderr": "err\n", "cut": {"stdout": 0, "stderr": 0}}
    encode_result(found)


def test_no_shell_reads_the_arguments():
    words = ["$HOME", "*", "; echo no", "`id`", "a b", ""]
    found = shell([sys.executable, "-c", "import sys; print(sys.argv[1:])", *words])
    assert found["stdout"] == f"{words}\n"


def test_a_program_starts_in_the_folder_and_with_the_input_that_it_is_given(tmp_path):
    assert shell(["pwd"], cwd=str(tmp_path))["stdout"] == f"{tmp_path.resolve()}\n"
    assert shell(["cat"], input="grüße\n")["stdout"] == "grüße\n"
    assert shell(["cat"])["stdout"] == ""
    assert shell(["cat"], input="")["stdout"] == ""


def test_more_input_than_a_pipe_holds_goes_in_while_output_comes_out():
    text = "x" * 3_000_000
    assert shell(["wc", "-c"], input=text)["stdout"].strip() == "3000000"
    assert shell(["cat"], input=text)["cut"]["stdout"] == 3_000_000 - (64 << 10)
    assert shell(["true"], input=text)["code"] == 0


def test_a_program_gets_a_small_environment_and_what_it_is_given(monkeypatch):
    monkeypatch.setenv("DATABASE_URL", "s3cret")
    monkeypatch.setenv("LC_TIME", "C")
    monkeypatch.setenv(MARKER, "/store")
    lines = shell(["env"], env={"MINE": "1", "HOME": "/nowhere"})["stdout"].splitlines()
    found = dict(line.split("=", 1) for line in lines)
    assert found.keys() >= {"PATH", "LC_TIME", "MINE"}
    assert (found["MINE"], found["HOME"], found[MARKER]) == ("1", "/nowhere", "/store")
    assert "DATABASE_URL" not in found


def test_output_that_is_no_text_is_replaced_and_still_fits_a_result():
    found = python(r"import sys; sys.stdout.buffer.write(b'a\xff' + b'b')")
    assert found["stdout"] == "a\N{REPLACEMENT CHARACTER}b"
    code = "import sys\nfor out in (sys.stdout, sys.stderr): out.buffer.write(bytes([255]) * 200_000)"
    encode_result(python(code, max_output=160 << 10))


def test_the_end_of_a_long_output_is_kept_and_what_is_cut_is_said():
    found = python("for n in range(100_000): print(n)", max_output=12)
    assert (found["stdout"], found["cut"]) == ("99998\n99999\n", {"stdout": 588_890 - 12, "stderr": 0})
    assert python("print('abc')", max_output=0)["cut"]["stdout"] == 4
    assert python("print('abc')", max_output=4)["cut"]["stdout"] == 0


def test_the_last_output_of_a_program_that_is_gone_is_taken(tmp_path):
    gone = tmp_path / "gone"
    code = f"""
        import fcntl, os, signal
        fcntl.fcntl(1, fcntl.F_SETPIPE_SZ, 1 << 20)
        os.kill(os.getppid(), signal.SIGUSR2)  # who reads is held up until all is written
        os.write(1, b"x" * (1 << 20))
        open({str(gone)!r}, "w").close()
    """
    before = signal.signal(signal.SIGUSR2, lambda *_: wait_for(lambda: gone.exists() and has_ended_child()))
    try:
        assert python(code)["cut"]["stdout"] == (1 << 20) - (64 << 10)
    finally:
        signal.signal(signal.SIGUSR2, before)


def has_ended_child():
    return any(child.status() == psutil.STATUS_ZOMBIE for child in psutil.Process().children())


def test_a_gigabyte_of_output_does_not_grow_the_process():
    code = """
        import resource, sys
        from jobsched.tasks.shell import shell
        shell(["true"])
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        found = shell(["head", "-c", "1000000000", "/dev/zero"])
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, found["cut"]["stdout"])
    """
    grown, cut = python(code, env={"PYTHONPATH": os.pathsep.join(sys.path)})["stdout"].split()
    assert int(cut) == 1_000_000_000 - (64 << 10)
    assert int(grown) < 4096  # KiB


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("echo a >&2; echo b >&2; echo; echo c >&2; echo d >&2; exit 3", "ended with exit code 3: b | c | d"),
        ("exit 7", "ended with exit code 7"),
        ("kill -9 $$", r"was ended by SIGKILL \(code -9\)"),
    ],
)
def test_a_bad_end_is_an_error_with_code_and_last_words(code, said):
    with pytest.raises(ProgramFailed, match=f"^'sh' {said}$") as caught:
        shell(["sh", "-c", code])
    assert not isinstance(caught.value, ProgramNotStarted)
    assert ProgramFailed not in shell.retry_rules  # the policy of job, task and category holds


def test_other_codes_may_be_good():
    assert shell(["sh", "-c", "exit 3"], ok_codes=(0, 3))["code"] == 3
    with pytest.raises(ProgramFailed):
        shell(["true"], ok_codes=(1,))


@pytest.mark.parametrize(
    ("argv", "options"),
    [
        (["no-such-program"], {}),
        (["/etc/passwd"], {}),
        (["/"], {}),
        (["true"], {"cwd": "/no/such/folder"}),
        (["tr\0ue"], {}),
        (["true", "x" * (1 << 20)], {}),
    ],
)
def test_what_cannot_be_started_is_not_tried_again(argv, options):
    with pytest.raises(ProgramNotStarted, match=r"^cannot start"):
        shell(argv, **options)
    assert shell.retry_rules[ProgramNotStarted].max_retries == 0


@pytest.mark.parametrize(
    ("argv", "options", "message"),
    [
        ([], {}, "argv must be a program and its arguments"),
        ([""], {}, "argv must be"),
        ("ls -l", {}, "argv must be"),
        (["true"], {"timeout_s": 0}, "timeout_s must be above 0"),
        (["true"], {"timeout_s": float("nan")}, "timeout_s must be above 0"),
        (["true"], {"max_output": -1}, "max_output must be from 0 to 163840"),
        (["true"], {"max_output": 1 << 20}, "max_output must be"),
    ],
)
def test_wrong_options_are_refused(argv, options, message):
    with pytest.raises(InvalidOption, match=message):
        shell(argv, **options)
    assert shell.retry_rules[InvalidOption].max_retries == 0


STUBBORN = """
    import os, signal, subprocess, sys, time
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    code = "import os, signal, sys, time; {leave}; signal.signal(15, signal.SIG_IGN); " \\
           "open(sys.argv[1], 'a').write(f'{{os.getpid()}} '); time.sleep(1000)"
    children = [subprocess.Popen([sys.executable, "-c", code, {file!r}]) for _ in range(2)]
    while not os.path.exists({file!r}) or len(open({file!r}).read().split()) < 2: time.sleep(0.005)
    {then}
"""


def family(tmp_path, leave, then):
    """A program with two children that ignore SIGTERM; and how to learn their pids afterwards."""
    file = tmp_path / "pids"
    code = textwrap.dedent(STUBBORN).format(leave=leave, file=str(file), then=then)
    return [sys.executable, "-c", code], lambda: [int(pid) for pid in file.read_text().split()]


@pytest.mark.parametrize("leave", ["pass", "os.setsid()", "os.setpgid(0, 0)"])
def test_nothing_of_a_program_survives_its_time(tmp_path, leave):
    argv, pids = family(tmp_path, leave, "time.sleep(1000)")
    began = time.monotonic()
    with pytest.raises(ProgramFailed, match=r"was ended after 2 s, its timeout_s"):
        shell(argv, timeout_s=2)
    assert 2 <= time.monotonic() - began < 4
    assert len(pids()) == 2
    assert not any(map(is_running, pids()))


@pytest.mark.parametrize("end", ["os._exit(0)", "os._exit(3)", "os.kill(os.getpid(), 9)"])
def test_nothing_is_left_in_the_background_of_a_program_that_has_ended(tmp_path, end):
    argv, pids = family(tmp_path, "pass", end)
    began = time.monotonic()
    assert shell(argv, ok_codes=(0, 3, -9), timeout_s=60)["stdout"] == ""
    assert time.monotonic() - began < 30  # they hold its pipes open
    assert len(pids()) == 2
    wait_for(lambda: not any(map(is_running, pids())))  # outside of a worker they are not ours to reap


def test_a_program_is_asked_before_it_is_killed():
    code = """
        import signal, sys, time
        def leave(*_): print("tidied up", file=sys.stderr); sys.exit(4)
        signal.signal(signal.SIGTERM, leave)
        time.sleep(1000)
    """
    with pytest.raises(ProgramFailed, match=r"was ended after 1\.5 s, its timeout_s: tidied up"):
        python(code, timeout_s=1.5)


class Ended(BaseException):
    """What a signal's handler raises here, as those of a worker do."""


@pytest.fixture
def alarm():
    """An alarm that raises Ended where the main thread stands."""

    def ring(*_):
        raise Ended

    before = signal.signal(signal.SIGALRM, ring)
    yield lambda seconds: signal.setitimer(signal.ITIMER_REAL, seconds)
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def test_an_interrupted_run_leaves_nothing_wherever_it_was(alarm):
    me = psutil.Process()
    ended = 0
    for step in range(40):
        try:
            alarm(0.0002 * step + 0.0001)
            shell(["sleep", "1000"], timeout_s=0.2)
        except (Ended, ProgramFailed) as error:
            ended += isinstance(error, Ended)
        assert not me.children()
    assert ended == 40


def test_a_second_interruption_does_not_keep_what_is_left_alive(tmp_path):
    rung = []

    def ring(*_):
        rung.append(time.monotonic())
        if len(rung) == 2:
            signal.setitimer(signal.ITIMER_REAL, 0)
        raise Ended

    argv, pids = family(tmp_path, "os.setsid()", "open('ready', 'w'); time.sleep(1000)")
    threading.Thread(target=lambda: ring_when_ready(tmp_path / "ready"), daemon=True).start()
    before = signal.signal(signal.SIGALRM, ring)
    try:
        with pytest.raises(Ended):
            shell(argv, cwd=str(tmp_path), timeout_s=60)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert len(rung) == 2
    assert not any(map(is_running, pids()))


def ring_when_ready(file):
    wait_for(file.exists)
    signal.setitimer(signal.ITIMER_REAL, 0.01, 0.05)  # the second comes while SIGTERM is waited for


def test_a_program_does_not_ignore_the_signals_that_a_worker_ignores():
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        found = shell(["sh", "-c", "grep SigIgn /proc/$$/status"])
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert int(found["stdout"].split()[1], 16) & ((1 << 14) | (1 << 1)) == 0


def test_two_threads_run_programs_beside_each_other():
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(shell(["sh", "-c", "sleep 0.2; echo x"])["stdout"]))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert found == ["x\n"] * 8


GIVES_BACK = """
from pathlib import Path
import psutil, pytest
from jobsched.tasks.shell import ProgramFailed, ProgramNotStarted, shell

shell(["true"])
before = len(list(Path("/proc/self/fd").iterdir()))
for _ in range(20):
    shell(["sh", "-c", "echo x"])
    with pytest.raises(ProgramNotStarted):
        shell(["no-such-program"])
    with pytest.raises(ProgramFailed):
        shell(["sleep", "1000"], timeout_s=0.01)
assert len(list(Path("/proc/self/fd").iterdir())) == before
assert not psutil.Process().children()
"""


def test_descriptors_and_processes_are_given_back():
    # In a process of its own: what other tests have left may be given back meanwhile.
    done = subprocess.run([sys.executable, "-c", GIVES_BACK], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
