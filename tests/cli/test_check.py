from jobsched.cli.check import inspect_tasks
from jobsched.config import load_config


def test_a_module_that_does_not_come_back_is_named_and_its_children_are_ended(project, tmp_path):
    project.write("slow.py", "import subprocess, time\nsubprocess.Popen(['sleep', '60'])\ntime.sleep(60)\n")
    file = project.folder / "categories.toml"
    file.write_text(file.read_text().replace('["tasks"]', '["tasks", "slow"]'))
    tasks, problems = inspect_tasks(load_config(file), patience_s=3)
    assert len(tasks) == 3
    (problem,) = problems
    assert "task module 'slow' was not imported within 3 s" in problem


def test_threads_that_a_module_leaves_behind_do_not_keep_the_check(project):
    project.write(
        "tasks.py",
        "import threading, time\nthreading.Thread(target=time.sleep, args=(60,)).start()\n"
        + (project.folder / "tasks.py").read_text(),
    )
    tasks, problems = inspect_tasks(load_config(project.folder / "categories.toml"), patience_s=20)
    assert len(tasks) == 3
    assert problems == []
