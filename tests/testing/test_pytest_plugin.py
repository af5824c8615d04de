"""The plugin in a pytest of its own, and the example of the manual as it is written there."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import jobsched

ROOT = Path(jobsched.__file__).parents[1]
BLOCK = re.compile(r"^```\w+\n# (\S+\.\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
PLUGIN = ("-p", "jobsched.testing.plugin")
CONFIG = "tasks = ['shop']\n[categories.mail]\n"
SHOP = """
from jobsched import task

@task(category="mail")
def send(to):
    return to
"""


class Suite:
    """A folder of tests, and pytest in it."""

    def __init__(self, folder):
        self.folder = folder

    def write(self, **files):
        for name, text in files.items():
            path = self.folder / name.replace("__", "/").replace("_toml", ".toml").replace("_ini", ".ini")
            path = path if path.suffix else path.with_suffix(".py")
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)

    def run(self, *words, plugin=PLUGIN):
        """Return the exit code of pytest, and what it has said."""
        options = ["-W", "error", "-p", "no:cacheprovider", "-p", "no:randomly", *plugin]
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *options, *words],
            cwd=self.folder,
            env={
                "PATH": os.defpath,
                "HOME": str(self.folder),
                "PYTHONPATH": f"{ROOT}:{self.folder}",
                "PYTHONDONTWRITEBYTECODE": "1",
            },
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr


@pytest.fixture
def tests(tmp_path):
    made = Suite(tmp_path)
    made.write(shop=SHOP, categories_toml=CONFIG)
    return made


def test_the_example_of_the_manual_works_as_it_is_written(tmp_path):
    files = BLOCK.findall((ROOT / "docs/testing.md").read_text())
    assert [name for name, _ in files] == ["shop.py", "categories.toml", "test_shop.py"]
    for name, text in files:
        (tmp_path / name).write_text(text)
    code, said = Suite(tmp_path).run("-q")
    assert code == 0, said
    assert "6 passed" in said


def test_each_test_has_an_app_of_its_own_from_the_file_that_is_found(tests):
    tests.write(
        test_it="""
import pytest
from jobsched import default_dispatcher
from shop import send

@pytest.mark.parametrize("n", range(2))
def test_it(jobsched_app, jobsched_clock, n):
    assert jobsched_app.dispatched() == []
    assert default_dispatcher() is jobsched_app.dispatcher
    assert jobsched_clock is jobsched_app.clock
    assert send.dispatch("a").result() == "a"
    assert jobsched_app.config.path.name == "categories.toml"

def test_without():
    from jobsched import api
    assert api._default is None
"""
    )
    code, said = tests.run("-q")
    assert code == 0, said


def test_the_ini_value_and_the_mark_say_which_configuration(tests):
    tests.write(
        pytest_ini="[pytest]\njobsched_config = conf/other.toml\n",
        conf__other_toml=CONFIG + "[categories.other]\n",
        conf__third_toml=CONFIG + "[categories.third]\n",
        sub__test_it="""
import pytest
from datetime import UTC, datetime

def test_ini(jobsched_app):
    assert list(jobsched_app.config.categories) == ["mail", "other"]

@pytest.mark.jobsched(config="conf/third.toml", start=datetime(2026, 1, 1, tzinfo=UTC))
class TestMarked:
    def test_class(self, jobsched_app, jobsched_clock):
        assert list(jobsched_app.config.categories) == ["mail", "third"]
        assert jobsched_clock.now == datetime(2026, 1, 1, tzinfo=UTC)

    @pytest.mark.jobsched(start=datetime(2026, 1, 2, tzinfo=UTC))
    def test_nearest(self, jobsched_app, jobsched_clock):
        assert list(jobsched_app.config.categories) == ["mail", "third"]
        assert jobsched_clock.now == datetime(2026, 1, 2, tzinfo=UTC)

@pytest.mark.jobsched(categories=["here"], store="lmdb")
def test_inline(jobsched_app):
    assert list(jobsched_app.config.categories) == ["here"]
""",
    )
    code, said = tests.run("-q", "--strict-markers", "--strict-config")
    assert code == 0, said


def test_a_mark_with_a_bare_argument_is_refused(tests):
    tests.write(test_it="import pytest\n@pytest.mark.jobsched('mail')\ndef test_it(jobsched_app): ...\n")
    code, said = tests.run("-q")
    assert code == 1
    assert "takes keyword arguments only, got ('mail',)" in said


FAULTY = """
from shop import send

def test_it(jobsched_app, jobsched_faults):
    faults = jobsched_faults(worker_before_run=0.5)
    for n in range(20):
        send.dispatch(n)
    jobsched_app.drain()
    print("points", [struck.point for struck in faults.log])
    assert ENDS
"""


def test_a_test_that_fails_shows_its_seed_which_repeats_it(tests):
    tests.write(test_it=FAULTY.replace("ENDS", "False"))
    code, said = tests.run()
    (seed,) = set(re.findall(r"--jobsched-seed=(\d+)", said))
    (points,) = re.findall(r"points \[.*\]", said)
    assert code == 1
    _, again = tests.run(f"--jobsched-seed={seed}")
    assert points in again
    _, other = tests.run(f"--jobsched-seed={int(seed) + 1}")
    assert points not in other


def test_a_test_that_passes_shows_nothing(tests):
    tests.write(test_it=FAULTY.replace("ENDS", "faults.seed == 5"))
    code, said = tests.run("--jobsched-seed=5")
    assert code == 0, said
    assert "jobsched-seed" not in said.replace("--jobsched-seed=5", "", 1)


def test_the_fixtures_are_listed_with_what_they_are(tests):
    code, said = tests.run("--fixtures", "-q", plugin=("-p", "jobsched.testing"))
    assert code in (0, 5)
    for fixture in ("jobsched_app", "jobsched_clock", "jobsched_faults", "jobsched_seed"):
        assert re.search(rf"^{fixture}\b.*plugin.py:\d+\n    \w+", said, re.MULTILINE), fixture
    _, markers = tests.run("--markers")
    assert "@pytest.mark.jobsched(config=" in markers


def test_loading_the_plugin_loads_no_more_than_the_package(tests):
    tests.write(
        test_it="""
import subprocess, sys

def test_it():
    code = "import jobsched, sys; print(*(name for name in sys.modules if name.startswith('jobsched')))"
    bare = set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.split())
    assert "jobsched.api" in bare
    more = {name for name in sys.modules if name.startswith("jobsched")} - bare
    assert more == {f"jobsched.testing{part}" for part in ("", ".app", ".errors", ".plugin")}
"""
    )
    code, said = tests.run("-q")
    assert code == 0, said


def test_an_installed_package_brings_the_plugin_and_naming_it_does_not_bring_it_twice(tests):
    points = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["pytest11"]
    lines = [f"{name} = {module}" for name, module in points.items()]
    installed = tests.folder / "jobsched-0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: jobsched\nVersion: 0\n")
    (installed / "entry_points.txt").write_text("\n".join(["[pytest11]", *lines]))
    tests.write(test_it="from shop import send\ndef test_it(jobsched_app):\n    send.dispatch('a')\n")
    for words in ([], PLUGIN, ("-p", "jobsched.testing")):
        code, said = tests.run("-q", plugin=words)
        assert code == 0, said
    code, said = tests.run("-q", "-p", f"no:{PLUGIN[1]}", plugin=[])
    assert code == 1
    assert "fixture 'jobsched_app' not found" in said
