import pytest


def test_init_writes_a_project_that_passes_the_check(empty):
    ran = empty("init", "shop")
    assert "wrote shop/categories.toml" in ran.out
    assert "jobsched dispatch" in ran.out
    assert "no problems" in empty("check", "-c", "shop/categories.toml").out


def test_the_example_that_init_shows_works(empty):
    empty("init")
    assert empty("dispatch", "tasks:greet", "--payload", '{"name": "Ada"}').out.strip()
    assert [job["category"] for job in empty("jobs", "--json").json] == ["mail"]


def test_init_names_its_files_as_json(empty):
    assert empty("init", "--json").json == {"written": ["categories.toml", "tasks.py"]}


@pytest.mark.parametrize("name", ["categories.toml", "tasks.py"])
def test_init_overwrites_nothing(empty, name):
    path = empty.write(name, "mine")
    ran = empty("init", code=2)
    assert f"{name} exists" in ran.err
    assert path.read_text() == "mine"
    assert [entry.name for entry in empty.folder.iterdir() if entry.is_file()] == [name]


def test_init_says_where_it_cannot_write(empty):
    empty.write("file", "")
    assert "cannot write to file/shop" in empty("init", "file/shop", code=2).err


def test_a_good_configuration_lists_its_tasks(project):
    ran = project("check", "--json")
    assert ran.json["ok"]
    assert ran.json["problems"] == []
    tasks = {task["name"]: task for task in ran.json["tasks"]}
    assert tasks["tasks:send"]["category"] == "mail"
    assert tasks["tasks:send"]["max_retries"] == 2
    assert tasks["tasks:homeless"]["category"] is None


def test_the_tasks_are_looked_for_beside_the_configuration(project):
    (project.folder / "elsewhere").mkdir()
    ran = project("-c", str(project.folder / "categories.toml"), "check")
    assert "3 tasks, 2 categories" in ran.out
    assert "tasks imported" not in ran.out


def problems_of(project):
    """What `check` finds; it says the same with and without --json."""
    said = project("check", code=2)
    found = project("check", "--json", code=2).json
    assert not found["ok"]
    assert said.err.splitlines() == [f"jobsched: {problem}" for problem in found["problems"]]
    return found["problems"]


def test_all_problems_of_the_file_come_at_once(project):
    project.write("categories.toml", 'workrs = 2\ntasks = ["tasks"]\n[categories.mail]\npriority = -1\n')
    first, second = problems_of(project)
    assert first.startswith("categories.toml:1: ")
    assert "did you mean 'workers'?" in first
    assert second.startswith("categories.toml:4: ")


def test_a_module_that_is_missing_gets_the_nearest_name(project):
    file = project.folder / "categories.toml"
    file.write_text(file.read_text().replace('["tasks"]', '["taks"]'))
    assert problems_of(project) == ["categories.toml: tasks: no module 'taks', did you mean 'tasks'?"]


def test_a_module_that_lacks_another_says_which(project):
    path = project.write("tasks.py", "x = 1\nimport nowhere_to_be_found\n")
    (problem,) = problems_of(project)
    assert f"{path}:2: ModuleNotFoundError" in problem
    assert "nowhere_to_be_found" in problem


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\nx / 0\n", "tasks.py:2: ZeroDivisionError: division by zero"),
        ("\n\ndef broken(:\n", "tasks.py:3: SyntaxError: "),
        ("import sys\nsys.exit('enough')\n", "tasks.py:2: SystemExit: enough"),
        (
            "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n",
            "'tasks' ended the process that imported it (SIGKILL)",
        ),
        (
            "import os, sys\nprint('last words', file=sys.stderr, flush=True)\nos._exit(3)\n",
            "(exit code 3): last words",
        ),
        ("x = 1\n", "no function with @task in tasks"),
    ],
)
def test_a_module_that_cannot_be_imported_says_where_and_why(project, text, message):
    project.write("tasks.py", text)
    (problem,) = problems_of(project)
    assert message in problem


def test_the_problems_of_all_modules_are_found(project):
    file = project.folder / "categories.toml"
    file.write_text(file.read_text().replace('["tasks"]', '["broken", "tasks"]'))
    project.write("broken.py", "1 / 0\n")
    project.write(
        "tasks.py", 'from jobsched import task\n\n@task(category="mial")\ndef send() -> None: ...\n'
    )
    first, second = problems_of(project)
    assert "module 'broken' cannot be imported" in first
    assert "tasks.py:3: task 'tasks:send' has the unknown category 'mial', did you mean 'mail'?" in second


def test_the_check_lists_a_built_in_task_only_where_its_module_is_listed(project):
    project.write(
        "tasks.py",
        "from jobsched import task\nfrom jobsched.tasks.shell import shell\n@task\ndef own(): ...\n",
    )
    assert [task["name"] for task in project("check", "--json").json["tasks"]] == ["tasks:own"]
    config = project.folder / "categories.toml"
    config.write_text(config.read_text().replace('["tasks"]', '["jobsched.tasks.shell", "tasks"]'))
    names = {task["name"] for task in project("check", "--json").json["tasks"]}
    assert names == {"tasks:own", "jobsched.tasks.shell:shell"}


def test_what_to_add_for_a_built_in_task_is_said(project):
    words = ("dispatch", "jobsched.tasks.shell:shell", "--payload", '{"argv": ["true"]}')
    for category in ((), ("--category", "mail")):
        ran = project.process(*words, *category, code=2)
        assert "lists its module: tasks = [..., 'jobsched.tasks.shell']" in ran.err
