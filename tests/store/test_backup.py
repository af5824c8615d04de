"""Backups beside a running writer, restores, and what stands in their way."""

import contextlib
import fcntl
import json
import os
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import churn
import lmdb as engine
import pytest
from golden.golden_stores import expected, unpack
from golden.make_golden import content

from jobsched.errors import InvalidOption, NodeRunning, StoreError, StoreFormatError
from jobsched.job import State
from jobsched.store import backup as module
from jobsched.store import lmdb_layout as layout
from jobsched.store.backup import backup, read_note, restore
from jobsched.store.base import Query, Request, Slot, Turn
from jobsched.store.lmdb import open_store
from jobsched.store.verify import verify

NOW = 1_790_000_000_000_000
NEWEST = layout.FORMAT


@pytest.fixture
def place(tmp_path):
    """The golden store of the first format."""
    return unpack(1, tmp_path / "store")


@pytest.fixture
def other(tmp_path, new_job):
    """A store with one pending job, closed again."""
    with contextlib.closing(open_store(tmp_path / "other")) as store:
        store.apply(Turn(now=NOW, requests=[Request(jobs=[new_job()])]))
    return tmp_path / "other"


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def held_by(place):
    with contextlib.closing(open_store(place)) as store:
        return content(store)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@contextlib.contextmanager
def another_process(*words):
    """A process that says ready, and ends when its stdin is closed."""
    process = subprocess.Popen(
        [sys.executable, *map(str, words)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with process:
        assert process.stdout.readline() == b"ready\n"
        yield process


def test_a_backup_holds_what_the_store_held_and_says_so(place, tmp_path):
    note = backup(place, tmp_path / "copy", now=NOW)
    assert (note.at, note.format, note.store) == ("2026-09-21T14:13:20+00:00", 1, expected(1)["store"])
    assert note.jobs["completed"] == 5
    assert note.bytes == (tmp_path / "copy" / "data.mdb").stat().st_size
    assert read_note(tmp_path / "copy") == note
    found = held_by(tmp_path / "copy")
    assert found["jobs"].keys() == expected(1)["jobs"].keys()


@pytest.mark.parametrize("mask", [0, 0o022, 0o277])
def test_only_its_owner_can_read_a_backup_whatever_the_umask(place, tmp_path, mask):
    before = os.umask(mask)
    try:
        backup(place, tmp_path / "copy", now=NOW)
    finally:
        os.umask(before)
    copy = tmp_path / "copy"
    assert {path.name: mode(path) for path in copy.iterdir()} == {"data.mdb": 0o600, "backup.json": 0o600}
    assert mode(copy) & 0o077 == 0


@pytest.mark.parametrize("make", [Path.mkdir, Path.touch, lambda path: path.symlink_to("nowhere")])
def test_a_backup_overwrites_nothing(place, tmp_path, make):
    make(tmp_path / "copy")
    with pytest.raises(InvalidOption, match="exists: a backup overwrites nothing"):
        backup(place, tmp_path / "copy", now=NOW)
    assert names(tmp_path) == ["copy", "store"]


def test_a_backup_into_no_folder_is_refused(place, tmp_path):
    with pytest.raises(InvalidOption, match="no folder"):
        backup(place, tmp_path / "no" / "copy", now=NOW)


def test_a_full_disk_leaves_nothing_behind_and_is_named(place, tmp_path, monkeypatch):
    # /dev/full answers as a full disk does; the copy itself is LMDB's own.
    @contextlib.contextmanager
    def full(file):
        file.touch()
        handle = os.open("/dev/full", os.O_WRONLY)
        yield handle
        os.close(handle)

    monkeypatch.setattr(module, "_private", full)
    (tmp_path / "target").mkdir()
    with pytest.raises(StoreError, match=r"no room for .*copy: the disk is full; nothing was left"):
        backup(place, tmp_path / "target" / "copy", now=NOW)
    assert names(tmp_path / "target") == []


def test_a_store_with_broken_pages_is_not_copied(place, tmp_path):
    data = place / "data.mdb"
    data.write_bytes(data.read_bytes()[: 10 * 4096])
    with pytest.raises(StoreError, match="is broken, it was not copied"):
        backup(place, tmp_path / "copy", now=NOW)
    assert names(tmp_path) == ["store"]


def test_a_store_with_a_damaged_record_is_copied_with_a_remark(other, tmp_path):
    damage(other)
    assert backup(other, tmp_path / "copy", now=NOW).findings == 1


def test_a_backup_beside_a_busy_writer_is_whole(tmp_path):
    with another_process(churn.__file__, tmp_path / "store"):
        notes = [backup(tmp_path / "store", tmp_path / f"copy{n}", now=NOW) for n in range(4)]
    assert [note.findings for note in notes] == [0] * 4
    assert sum(notes[0].jobs.values()) < sum(notes[3].jobs.values())
    assert all(verify(tmp_path / f"copy{n}").is_sound for n in range(4))


def test_a_restore_puts_the_backup_in_place_and_what_was_there_aside(place, other, tmp_path):
    backup(place, tmp_path / "copy", now=NOW)
    before = (other / "data.mdb").read_bytes()
    done = restore(tmp_path / "copy", other, now=NOW)
    aside = tmp_path / "other.before-restore-20260921T141320"
    assert done.aside == str(aside)
    assert (aside / "data.mdb").read_bytes() == before
    assert (mode(aside), mode(other / "data.mdb")) == (0o700, 0o600)
    assert (done.jobs["in_progress"], done.findings) == (2, 0)
    assert done.backup == read_note(tmp_path / "copy")
    assert "lock.mdb" not in names(other)
    assert held_by(other)["jobs"].keys() == expected(1)["jobs"].keys()
    assert sum(held_by(aside)["stats"]["mail"].values()) == 1


def test_two_restores_in_one_second_keep_both_stores(place, other, tmp_path):
    backup(place, tmp_path / "copy", now=NOW)
    for _ in range(2):
        restore(tmp_path / "copy", other, now=NOW)
    aside = tmp_path / "other.before-restore-20260921T141320"
    assert verify(aside).jobs["pending"] == 1
    assert verify(tmp_path / f"{aside.name}-2").jobs["completed"] == 5


def test_a_restore_to_a_mount_point_keeps_what_was_there_within(place, other, tmp_path):
    """Beside a container's volume is another file system, where a file cannot get a second name."""
    backup(place, tmp_path / "copy", now=NOW)
    volume = tmp_path / "volume"
    volume.mkdir(mode=0o700)
    script = """
        mount -t tmpfs -o mode=700 tmpfs "$2" || exit 77
        cp "$1"/data.mdb "$2" && chmod 600 "$2"/data.mdb
        "$3" -c "$4" "$5" "$2"
        ls "$2"
    """
    code = f"""
        import sys; from pathlib import Path; from jobsched.store.backup import restore
        print(restore(Path(sys.argv[1]), Path(sys.argv[2]), now={NOW}).aside)
    """
    words = [other, volume, sys.executable, textwrap.dedent(code), tmp_path / "copy"]
    command = ["unshare", "--map-root-user", "--mount", "sh", "-c", script, "sh", *words]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    if ran.returncode == 77 or "unshare" in ran.stderr:
        pytest.skip(f"nothing can be mounted here: {ran.stderr.strip()}")
    aside = volume / "before-restore-20260921T141320"
    assert ran.stdout.splitlines() == [str(aside), aside.name, "data.mdb", "node.lock", "writers.lock"]
    assert not list(tmp_path.glob("volume.*"))


def test_a_restore_makes_a_store_where_there_was_none(place, tmp_path):
    backup(place, tmp_path / "copy", now=NOW)
    done = restore(tmp_path / "copy" / "data.mdb", tmp_path / "new", now=NOW)
    assert done.aside is None
    assert verify(tmp_path / "new").is_sound


def test_jobs_that_ran_in_the_backup_are_pending_when_a_node_starts(place, tmp_path):
    backup(place, tmp_path / "copy", now=NOW)
    restore(tmp_path / "copy", tmp_path / "new", now=NOW)
    with contextlib.closing(open_store(tmp_path / "new")) as store:
        assert store.recover(NOW).put_back == 2
        assert store.find(Query(state=State.IN_PROGRESS)).jobs == []
        assert store.apply(Turn(now=NOW, slots=[Slot("mail", 9, 1)])).claims


def damage(place):
    """Damage a record behind the store's back."""
    with engine.open(str(place), max_dbs=32, map_size=1 << 30) as env:
        db = env.open_db(b"jobs")
        with env.begin(write=True, db=db) as txn:
            txn.put(next(iter(txn.cursor()))[0], b"\x01damaged")


def test_a_damaged_backup_is_refused_unless_that_is_accepted(place, other, tmp_path):
    damage(other)
    backup(other, tmp_path / "copy", now=NOW)
    before = (place / "data.mdb").read_bytes()
    with pytest.raises(StoreError, match="is damaged: its record is unreadable"):
        restore(tmp_path / "copy", place, now=NOW)
    assert (place / "data.mdb").read_bytes() == before
    assert not {"restoring.mdb"} & set(names(place))
    assert restore(tmp_path / "copy", place, now=NOW, accept_damaged=True).findings == 1


def test_a_backup_with_broken_pages_is_always_refused(place, other):
    data = other / "data.mdb"
    data.write_bytes(data.read_bytes()[: 3 * 4096])
    with pytest.raises(StoreError, match="is damaged"):
        restore(other, place, now=NOW, accept_damaged=True)
    assert verify(place).is_sound


def test_a_backup_of_a_newer_format_is_refused(place, other):
    with engine.open(str(other), max_dbs=32) as env, env.begin(write=True, db=env.open_db(b"meta")) as txn:
        txn.put(b"format", str(NEWEST + 1).encode())
    with pytest.raises(StoreFormatError, match="upgrade jobsched"):
        restore(other, place, now=NOW)
    assert verify(place).is_sound


@pytest.mark.parametrize("backup_of", ["nowhere", "store"])
def test_what_is_no_backup_is_refused(place, tmp_path, backup_of):
    with pytest.raises(InvalidOption, match=r"no backup at|is the store itself"):
        restore(tmp_path / backup_of, place, now=NOW)


def test_a_restore_waits_for_no_node(place, other):
    note = {"pid": 4711, "started": "2026-09-21T14:00:00+0000"}
    (place / "node.lock").write_text(json.dumps(note))
    with (place / "node.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(NodeRunning, match=r"a node runs on .*store \(pid 4711, since .*stop it first"):
            restore(other, place, now=NOW)
    assert verify(place).jobs["completed"] == 5


def test_a_restore_waits_for_no_client_that_writes(place, other):
    with (place / "writers.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        with pytest.raises(StoreError, match="a client writes to"):
            restore(other, place, now=NOW)


def test_a_restore_is_refused_while_any_process_has_the_store_open(place, other):
    reader = "import sys; from pathlib import Path; from jobsched.store.lmdb import open_store;"
    reader += "s = open_store(Path(sys.argv[1])); print('ready', flush=True); sys.stdin.read()"
    with (
        another_process("-c", reader, place) as process,
        pytest.raises(StoreError, match=rf"is open in other processes \(pid {process.pid}\)"),
    ):
        restore(other, place, now=NOW)
    assert verify(place).jobs["completed"] == 5


def test_a_restore_that_was_killed_half_way_can_be_repeated(place, other):
    (place / "restoring.mdb").write_bytes(b"half")
    restore(other, place, now=NOW)
    assert verify(place).jobs["pending"] == 1
