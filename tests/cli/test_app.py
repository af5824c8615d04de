import subprocess
import sys

import pytest
import typer

from jobsched.cli.verbs import VERBS, Verbs


def test_the_bare_command_prints_its_help_and_is_bad_input(empty):
    ran = empty(code=2)
    assert all(f"\n  {verb} " in ran.out for verb in VERBS)
    assert "...\n" not in ran.out.partition("Commands:")[2]


def test_every_verb_has_an_example_that_is_not_rewrapped(empty):
    for words in (["dispatch"], ["category", "pause"]):
        assert f"\n    jobsched {' '.join(words)} " in empty(*words, "--help").out


@pytest.mark.parametrize("name", VERBS)
def test_the_list_of_the_verbs_says_of_each_what_its_own_help_begins_with(name):
    group = Verbs(name="jobsched")
    with typer.Context(group) as ctx:
        help_text = group.get_command(ctx, name).help
    assert help_text.startswith(VERBS[name].help)


def test_the_help_imports_no_verb():
    code = (
        "import sys, jobsched.cli; sys.argv[1:] = ['--help']\n"
        "try: jobsched.cli.main()\n"
        "except SystemExit: sys.exit(any(map(sys.modules.get, ('psutil', 'lmdb', 'jobsched.cli.jobs'))))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_version_is_printed(empty):
    assert empty.process("--version").out.startswith("jobsched ")


def test_the_import_of_the_package_leaves_typer_and_rich_alone():
    code = (
        "import sys, jobsched.cli; sys.exit(any(name in sys.modules for name in ('typer', 'rich', 'click')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["dispach"], "no such command 'dispach'. Did you mean 'dispatch'?"),
        (["stats", "--jsn"], "no such option: --jsn"),
        (["jobs", "--limit", "0"], "--limit"),
        (["show"], "missing argument"),
        (["category"], "missing command"),
        (["category", "puse", "mail"], "no such command 'puse'. Did you mean 'pause', 'purge'?"),
    ],
)
def test_a_wrong_command_line_is_bad_input_and_says_where_to_read_more(project, words, message):
    ran = project(*words, code=2)
    assert ran.err.startswith("jobsched: ")
    assert message in ran.err
    assert "\ntry: jobsched" in ran.err
    assert ran.out == ""


def test_without_a_configuration_the_place_and_init_are_named(empty):
    ran = empty("stats", code=2)
    assert "categories.toml" in ran.err
    assert "jobsched init" in ran.err


@pytest.mark.parametrize(
    "words",
    [["-c", "{}", "category", "list"], ["category", "-c", "{}", "list"], ["category", "list", "-c", "{}"]],
)
def test_the_configuration_goes_before_or_after_the_verb(project, words):
    other = project.folder / "other"
    other.mkdir()
    file = other / "own.toml"
    file.write_text('store = "lmdb:.jobsched"\ntasks = ["tasks"]\n[categories.there]\n')
    ran = project(*(word.format(file) for word in words), "--json")
    assert [row["name"] for row in ran.json] == ["there"]


def test_the_configuration_after_the_verb_wins_over_the_environment(project):
    ran = project(
        "-c", "nowhere.toml", "stats", "-c", "categories.toml", "--json", JOBSCHED_CONFIG="neither.toml"
    )
    assert set(ran.json["categories"]) == {"mail", "reports"}


def test_the_configuration_may_come_from_the_environment(project):
    file = project.folder / "categories.toml"
    file.rename(project.folder / "moved.toml")
    assert project("stats", "--json", JOBSCHED_CONFIG="moved.toml").json["total"]["total"] == 0


def test_every_problem_of_the_configuration_is_a_line(project):
    project.write("categories.toml", 'stor = "x"\nworkers = 0\ntasks = ["tasks"]\n[categories.mail]\n')
    ran = project("stats", code=2)
    assert ran.err.count("jobsched: categories.toml:") == 2


def test_a_store_that_cannot_be_read_is_a_fault_of_its_own(project):
    store = project.folder / ".jobsched"
    store.mkdir(mode=0o700)
    (store / "data.mdb").write_bytes(b"no store at all" * 1000)
    assert ".jobsched" in project("jobs", code=74).err
    assert ".jobsched" in project("dispatch", "tasks:homeless", "--category", "mail", code=74).err


def test_a_reader_that_has_had_enough_is_no_traceback(project):
    lines = "".join('{"task": "tasks:homeless", "category": "mail"}\n' for _ in range(3000))
    project("dispatch", "--from", "-", stdin=lines)
    with subprocess.Popen(
        project.command("jobs", "-n", "3000"),
        cwd=project.folder,
        env=project.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as ran:
        ran.stdout.read(10)
        ran.stdout.close()
        assert ran.stderr.read() == b""
        assert ran.wait(60) == 1
