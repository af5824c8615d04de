"""The demo's tasks, its input, its waves, its check and its pictures, without a node."""

import hashlib
import zlib
from pathlib import Path

import pytest
from rich.console import Console

from jobsched.config import load_config
from jobsched.demo import tasks
from jobsched.demo.check import check, direct_results
from jobsched.demo.files import find_files, library, library_files, write_invalid
from jobsched.demo.moves import changes, reason, telling
from jobsched.demo.results import Ended, figures
from jobsched.demo.run import CATEGORIES, bundled_config, demo_config
from jobsched.demo.view import picture
from jobsched.demo.waves import TASKS, inputs, waves
from jobsched.errors import ConfigError
from jobsched.job import State
from jobsched.report import CategoryReport, Decision, NodeReport

SOURCE = """\
import os

class Shop:
    def open(self):
        def greet():
            pass

    async def close(self):
        pass

if os.name == "posix":
    def total(): ...
else:
    try:
        def total(): ...
    except ImportError:
        class Total: ...

match os.name:
    case "nt":
        def special(): ...
"""


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "shop.py"
    path.write_text(SOURCE)
    return path


def test_checksum_gives_size_and_sha256(source):
    assert tasks.checksum(str(source)) == {
        "bytes": len(SOURCE),
        "sha256": hashlib.sha256(SOURCE.encode()).hexdigest(),
    }


def test_compress_gives_both_sizes(source):
    packed = len(zlib.compress(SOURCE.encode(), 3))
    assert tasks.compress(str(source)) == {"bytes": len(SOURCE), "packed": packed}


def test_index_finds_definitions_in_every_kind_of_block(source):
    assert tasks.index(str(source)) == {
        "classes": 2,
        "functions": 6,
        "names": ["Shop", "Shop.open", "Shop.open.greet", "Shop.close", "total", "total", "Total", "special"],
    }


def test_index_does_not_warn_of_old_escapes(tmp_path):
    path = tmp_path / "old.py"
    path.write_text(r"pattern = '\d'")
    assert tasks.index(str(path))["names"] == []


def test_the_two_invalid_files_are_no_source(tmp_path):
    paths = write_invalid(tmp_path)
    assert len(paths) == 2
    for path in paths:
        with pytest.raises(SyntaxError):
            tasks.index(str(path))


def test_files_of_installed_packages_and_caches_are_left_out(tmp_path):
    for name in ("a.py", "b/c.txt", "b/__pycache__/c.pyc", "site-packages/x.py", "b/dist-packages/y.py"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    assert library_files(tmp_path) == [tmp_path / "a.py", tmp_path / "b/c.txt"]


def test_the_library_is_that_of_the_running_python():
    assert library_files(library()).count(Path(hashlib.__file__)) == 1


def test_a_limit_spreads_over_the_library_and_keeps_the_invalid_files(tmp_path):
    files = find_files(tmp_path, 10)
    assert len(files) == len(set(files)) == 12
    assert [path.parent for path in files[-2:]] == [tmp_path, tmp_path]
    assert len({path.parent for path in files[:-2]}) > 1


def test_the_waves_bring_each_file_once_to_each_of_its_tasks(tmp_path):
    files = [tmp_path / f"{number}{'.py' if number % 3 else '.txt'}" for number in range(20)]
    load = waves(files)
    for task in TASKS:
        sent = sorted(path for wave in load if wave.task is task for path in wave.files)
        assert sent == sorted(inputs(task, files))
    assert load[0].after == 0
    assert all(0 < wave.after < 1 for wave in load[1:])


def ended(task, path, result):
    """What a job leaves; a text as the result is the cause of its failure."""
    failed = isinstance(result, str)
    return Ended(
        category=task.category,
        path=str(path),
        state=State.FAILED if failed else State.COMPLETED,
        wait_s=1.0,
        run_s=0.5,
        result=None if failed else result,
        cause=result if failed else "",
    )


@pytest.fixture
def done(source, tmp_path):
    """Files, and jobs that did what they should."""
    files = [source, *write_invalid(tmp_path)]
    jobs = [
        ended(task, path, f"{result}: why" if isinstance(result, str) else result)
        for task in TASKS
        for path in files
        for result in [direct_results(files)[task.category, str(path)]]
    ]
    return files, jobs


def test_results_that_agree_pass_the_check(done):
    files, jobs = done
    found = check(jobs, files)
    assert found.is_good
    assert (found.expected, found.ended, found.agree) == (9, 9, 9)
    assert found.bytes_by_jobs == found.bytes_of_files == sum(path.stat().st_size for path in files)


@pytest.mark.parametrize("wrong", [{"bytes": 1, "sha256": "0"}, "OSError: gone"])
def test_a_wrong_result_fails_the_check(done, wrong):
    files, jobs = done
    jobs[0] = ended(tasks.checksum, files[0], wrong)
    found = check(jobs, files)
    assert not found.is_good
    assert found.disagree == [f"checksum {files[0]}"]
    assert found.sha256_by_jobs != found.sha256_of_files


def test_a_missing_job_fails_the_check(done):
    files, jobs = done
    assert not check(jobs[:-1], files).is_good


def test_a_job_too_many_fails_the_check(done):
    files, jobs = done
    assert not check([*jobs, jobs[0]], files).is_good


def test_a_file_changed_meanwhile_fails_the_check(done):
    files, jobs = done
    files[0].write_text(SOURCE + "last = 1\n")
    assert check(jobs, files).disagree == [f"checksum {files[0]}", f"compress {files[0]}"]


def test_figures_of_no_jobs_are_zero():
    assert figures([]).wait_p95_s == 0.0


def test_figures_count_and_average(done):
    _, jobs = done
    row = figures(jobs)
    assert (row.jobs, row.completed, row.failed) == (9, 7, 2)
    assert (row.wait_mean_s, row.wait_p95_s, row.run_mean_s, row.run_max_s) == (1.0, 1.0, 0.5, 0.5)


def test_the_bundled_configuration_serves_the_demo(tmp_path):
    config = demo_config(load_config(bundled_config()), tmp_path)
    assert set(CATEGORIES) == set(config.categories)
    assert config.store.path.parent == tmp_path


def test_a_configuration_without_its_categories_is_refused(tmp_path):
    path = tmp_path / "categories.toml"
    path.write_text("tasks = ['shop']\n[categories.index]\n")
    with pytest.raises(ConfigError) as caught:
        demo_config(load_config(path), tmp_path)
    assert [problem.rpartition(" ")[2] for problem in caught.value.problems] == [
        "[categories.checksum]",
        "[categories.compress]",
    ]


def decision(before, after, at=0):
    return Decision(
        at=at,
        budget=4,
        backlog=dict.fromkeys(after, 1000),
        before=before,
        after=after,
        ideal={name: float(count) for name, count in after.items()},
        reasons={
            name: f"priority 5 x backlog 1000 = 5000 of 12345: ideal {count:.1f}"
            for name, count in after.items()
        },
    )


def test_a_move_is_told_with_the_reason_of_its_winner():
    move = decision({"compress": 4, "index": 0}, {"compress": 1, "index": 3})
    assert changes(move) == "compress 4→1, index 0→3"
    assert reason(move).startswith("index: priority 5")


def test_the_largest_moves_are_told_in_their_order():
    start = decision({"a": 0, "b": 0}, {"a": 4, "b": 0})
    large = decision({"a": 4, "b": 0}, {"a": 1, "b": 3}, 1)
    none = decision({"a": 1, "b": 3}, {"a": 1, "b": 3}, 2)
    small = decision({"a": 1, "b": 3}, {"a": 2, "b": 2}, 3)
    larger = decision({"a": 2, "b": 2}, {"a": 0, "b": 4}, 4)
    assert telling([start, large, none, small, larger], 2) == [large, larger]


def counts(**by_state):
    return [by_state.get(str(state), 0) for state in State]


@pytest.mark.parametrize("workers", [4, 40])
def test_the_picture_fits_80_columns(workers):
    busy = CategoryReport(
        counts=counts(pending=98_765, completed=12_345, failed=1_234),
        paused=False,
        workers=workers,
        busy=workers,
    )
    idle = CategoryReport(counts=counts(), paused=False, workers=1, busy=0)
    report = NodeReport(
        at=20_000_000,
        uptime_s=12.3,
        ended=1,
        failed=1,
        moves=17,
        draining=False,
        categories={"checksum": idle, "compress": busy, "index": idle},
        decision=None,
    )
    moves = [
        decision({"checksum": 2, "compress": 12, "index": 4}, {"checksum": 3, "compress": 10, "index": 5})
    ] * 3
    console = Console(width=200, highlight=False, markup=False)
    with console.capture() as capture:
        console.print(
            picture(report, CATEGORIES, "jobsched demo: 2,452 files of Python 3.11.7", 98_765, moves)
        )
    lines = capture.get().splitlines()
    assert max(map(len, lines)) < 80
    assert len(lines) <= 14


def test_a_lent_worker_is_drawn_once_where_it_serves():
    home = CategoryReport(counts=counts(), paused=False, workers=2, busy=0)
    borrower = CategoryReport(counts=counts(in_progress=2), paused=False, workers=1, busy=2)
    report = NodeReport(
        at=0, uptime_s=0, ended=0, failed=0, moves=0, draining=False,
        categories={"checksum": home, "compress": borrower, "index": home}, decision=None,
    )  # fmt: skip
    console = Console(width=80, highlight=False, markup=False)
    with console.capture() as capture:
        console.print(picture(report, CATEGORIES, "demo", 2, []))
    rows = [line for line in capture.get().splitlines() if line.lstrip().startswith(CATEGORIES)]
    assert [(row.count("■"), row.count("□")) for row in rows] == [(0, 1), (2, 0), (0, 2)]
