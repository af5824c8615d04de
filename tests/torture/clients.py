"""Clients that can be killed: forks of this process, which has imported everything already."""

import contextlib
import os
import random
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from history import Ledger
from nodes import eventually

from jobsched import Dispatcher
from jobsched.journal.file import START, journal_files
from jobsched.linux import die_with_parent

PATIENCE_S = 120.0

Work = Callable[[Dispatcher, Ledger], None]


class Client:
    """A process that dispatches, and writes in a ledger of its own what was acknowledged to it."""

    def __init__(self, config: Path, ledger: Path, work: Work) -> None:
        parent = os.getpid()
        with warnings.catch_warnings():  # pytest's own threads do not concern the child
            warnings.simplefilter("ignore", DeprecationWarning)
            self.pid = os.fork()
        if self.pid == 0:
            os._exit(_work(config, ledger, work, parent))

    def kill(self) -> None:
        """Kill it by force; `end` is to follow."""
        os.kill(self.pid, signal.SIGKILL)  # it is our child and not reaped: nobody else has its pid

    def end(self) -> int:
        """Wait until it is gone; return its exit code, minus the signal's number if it was killed."""
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def _work(config: Path, ledger: Path, work: Work, parent: int) -> int:
    """Be the client; return its exit code."""
    try:
        die_with_parent(parent)
        dispatcher = Dispatcher.from_config(config)
        written = Ledger(ledger)
        work(dispatcher, written)
        dispatcher.close()
        written.close()
    except BaseException:  # noqa: BLE001 (nothing may come out of a fork)
        traceback.print_exc()
        sys.stderr.flush()
        return 1
    return 0


class Crowd:
    """Some clients at work at the same time, replaced as they are killed."""

    def __init__(
        self,
        config: Path,
        folder: Path,
        work: Callable[[str, int], Work],
        size: int,
        journals: Path | None = None,
    ) -> None:
        """`work` gives what a client does, for its name and a seed; `journals` is where theirs are."""
        self._config = config
        self._folder = folder
        self._work = work
        self._size = size
        self._started = 0
        self.clients: list[Client] = []
        self.unexpected_ends: list[int] = []
        self._journals = journals
        self._seen: set[str] = set()
        folder.mkdir()

    @property
    def journals(self) -> int:
        """How many journals were seen that had been written to."""
        return len(self._seen)

    def look_for_journals(self) -> None:
        """Look for journals that clients use, or have left."""
        for file in journal_files(self._journals) if self._journals else ():
            with contextlib.suppress(FileNotFoundError):
                if any(file.read_bytes()[START : START + 8]):
                    self._seen.add(file.stem)

    def has_journals(self) -> bool:
        """Say whether a client has written to a journal by now."""
        self.look_for_journals()
        return self.journals > 0

    def fill(self, rng: random.Random) -> None:
        """Start the clients that are missing."""
        while len(self.clients) < self._size:
            self._started += 1
            name = f"c{self._started}"
            work = self._work(name, rng.getrandbits(32))
            self.clients.append(Client(self._config, self._folder / f"{name}.ledger", work))

    def kill(self, victims: list[Client]) -> None:
        """Kill some at once, and wait until they are gone."""
        for client in victims:
            client.kill()
        for client in victims:
            self.clients.remove(client)
            code = client.end()
            if code not in (0, -signal.SIGKILL):
                self.unexpected_ends.append(code)

    def wait(self, seconds: float) -> None:
        """Wait until all have done their work; kill those that have not in time."""
        deadline = time.monotonic() + seconds
        while self.clients and time.monotonic() < deadline:
            for client in list(self.clients):
                pid, status = os.waitpid(client.pid, os.WNOHANG)
                if pid:
                    self.clients.remove(client)
                    code = os.waitstatus_to_exitcode(status)
                    self.unexpected_ends += [code] if code else []
            time.sleep(0.01)
        self.unexpected_ends += [-signal.SIGKILL] * len(self.clients)
        self.kill(list(self.clients))


class Allowance:
    """The share of their jobs that clients may have dispatched: written here, read by them."""

    def __init__(self, path: Path, share: float) -> None:
        self._path = path
        self.set(share)

    def set(self, share: float) -> None:
        new = self._path.with_suffix(".new")
        new.write_text(str(share))
        new.rename(self._path)

    def batches(self, count: int, sizes: Sequence[int], rng: random.Random) -> Iterator[list[int]]:
        """Yield the numbers of all jobs in batches of some sizes, each as soon as it is allowed."""
        numbers = list(range(count))
        while numbers:
            part, numbers = numbers[: (size := rng.choice(sizes))], numbers[size:]
            self._wait_for(part[0] / count)
            yield part

    def _wait_for(self, share: float) -> None:
        eventually(lambda: float(self._path.read_text()) > share, PATIENCE_S)
