import os
import re
import subprocess

import lmdb
import pytest


@pytest.fixture
def job(project):
    """The id of a pending job."""
    return project.dispatch("tasks:send", "--arg", '"a"')


def damage(place, job):
    """Damage a job's record behind the store's back."""
    with lmdb.open(str(place), max_dbs=32, map_size=1 << 30) as env:
        db = env.open_db(b"jobs")
        with env.begin(write=True, db=db) as txn:
            txn.put(bytes.fromhex(job.replace("-", "")), b"\x01damaged")


def test_a_backup_and_its_way_back(project, job):
    made = project("backup", "monday", "--json").json
    assert (made["jobs"]["pending"], made["findings"]) == (1, 0)
    assert made["path"] == str(project.folder / "monday")
    later = project.dispatch("tasks:send", "--arg", '"b"')
    ran = project("restore", "monday", "--yes")
    assert "1 job (1 pending)" in ran.out
    assert "jobs dispatched since are not in it" in ran.out
    assert [found["id"] for found in project("jobs", "--json").json] == [job]
    [aside] = project.folder.glob(".jobsched.before-restore-*")
    assert str(aside) in ran.out
    assert project("verify", str(aside), "--json").json["jobs"]["pending"] == 2
    project("show", later, code=2)


def test_a_backup_is_made_while_the_node_runs_and_a_restore_is_not(project, job):
    with project.node() as running:
        made = project("backup", "busy", "--json").json
        assert sum(made["jobs"].values()) == 1
        assert project("verify", "--json").json["ok"]
        ran = project("restore", "busy", "--yes", code=2)
        assert f"a node runs on {project.folder / '.jobsched'} (pid {running.pid}, since" in ran.err
    project("restore", "busy", "--yes")
    project.process("run", "--until-idle")
    assert project("show", job, "--json").json["state"] == "completed"


def test_a_backup_overwrites_nothing(project, job):
    project("backup", "monday")
    assert "monday exists: a backup overwrites nothing" in project("backup", "monday", code=2).err
    assert "no folder" in project("backup", "no/monday", code=2).err


@pytest.mark.parametrize("words", [["backup", "monday"], ["verify"]])
def test_there_is_nothing_to_back_up_before_the_first_dispatch(project, words):
    assert "nothing was dispatched" in project(*words, code=2).err
    assert not (project.folder / ".jobsched").exists()


def test_verify_says_what_is_damaged_and_what_mends_it(project, job):
    assert "whole; format" in project("verify").out
    damage(project.folder / ".jobsched", job)
    ran = project("verify", code=1)
    assert f"{job}\n           its record is unreadable" in ran.out
    assert f"jobsched cancel {job}" in ran.out
    assert "1 finding" in ran.err
    [finding] = project("verify", "--json", code=1).json["findings"]
    assert (finding["kind"], finding["job"]) == ("damaged", job)
    project("cancel", job)  # what it says mends it
    assert "jobsched restore BACKUP" in project("verify", code=1).out


def test_a_damaged_backup_says_so_and_needs_an_option(project, job):
    damage(project.folder / ".jobsched", job)
    ran = project("backup", "monday", code=1)
    assert "1 finding in it, as in the store: jobsched verify monday" in ran.err
    assert "is damaged: its record is unreadable" in project("restore", "monday", "--yes", code=74).err
    assert "1 finding in it" in project("restore", "monday", "--yes", "--damaged").err


def test_a_store_with_broken_pages_is_found_and_restored(project, job):
    project("backup", "monday")
    data = project.folder / ".jobsched" / "data.mdb"
    data.write_bytes(data.read_bytes()[: 6 * 4096])
    assert "structure" in project("verify", code=1).out
    assert "is broken, it was not copied" in project("backup", "tuesday", code=74).err
    project("restore", "monday", "--yes")
    assert "whole" in project("verify").out


def test_a_restore_asks_where_somebody_can_answer(project, job):
    project("backup", "monday")
    assert "pass --yes" in project("restore", "monday", code=2).err
    assert not list(project.folder.glob("*.before-restore-*"))


@pytest.mark.parametrize(("answer", "code"), [(b"y\n", 0), (b"\n", 1), (b"no\n", 1)])
def test_only_a_yes_replaces_the_store(project, job, answer, code):
    project("backup", "monday")
    keyboard, terminal = os.openpty()
    os.write(keyboard, answer)
    ran = subprocess.run(
        project.command("restore", "monday"),
        cwd=project.folder,
        env=project.environment,
        stdin=terminal,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    os.close(keyboard)
    os.close(terminal)
    assert ran.returncode == code
    assert "replace it? [y/N]" in ran.stdout
    assert ("nothing was changed" in ran.stdout) == bool(code)
    assert len(list(project.folder.glob(".jobsched.before-restore-*"))) == (not code)


def test_what_is_no_backup_is_refused(project, job):
    assert "no backup at nowhere" in project("restore", "nowhere", "--yes", code=2).err
    assert "no store at nowhere" in project("verify", "nowhere", code=2).err
    project.write("text", "no pages of LMDB")
    assert "is damaged" in project("restore", "text", "--yes", code=74).err


def test_a_memory_store_has_no_files(project):
    file = project.folder / "categories.toml"
    file.write_text(file.read_text().replace("lmdb:.jobsched", "memory:"))
    for words in (["backup", "x"], ["verify"], ["restore", "x", "--yes"]):
        assert "a memory: store has no files" in project(*words, code=2).err


def test_findings_fit_a_terminal(project, job):
    damage(project.folder / ".jobsched", job)
    shown = re.sub(r"\x1b\[[0-9;]*m", "", project.at_a_terminal("verify", ".jobsched")).splitlines()
    assert all(len(line) <= 80 for line in shown if not line.startswith("jobsched: "))
    assert shown[0].split() == ["damaged", job]


@pytest.mark.parametrize("verb", ["backup", "verify", "restore"])
def test_each_verb_shows_examples(project, verb):
    assert f"Examples:\n    jobsched {verb}" in project(verb, "--help").out
