def test_stats_count_per_category_and_state(project):
    project.dispatch("tasks:send", "--arg", '"a"')
    project.dispatch("tasks:send", "--arg", '"a"', "--delay", "1h")
    project.dispatch("tasks:fail", "--arg", '"a"')
    found = project("stats", "--json").json
    assert (found["categories"]["mail"]["pending"], found["categories"]["mail"]["scheduled"]) == (1, 1)
    assert found["categories"]["reports"]["total"] == 1
    assert found["total"]["total"] == 3
    rows = [line.split() for line in project("stats").out.splitlines()]
    assert rows[0] == ["category", "scheduled", "pending", "in_progress", "completed", "failed", "total"]
    assert rows[1:] == [
        ["mail", "1", "1", "0", "0", "0", "2"],
        ["reports", "0", "1", "0", "0", "0", "1"],
        ["total", "1", "2", "0", "0", "0", "3"],
    ]


def test_categories_are_listed_with_their_settings(project):
    mail, reports = project("category", "list", "--json").json
    assert (mail["name"], mail["priority"], mail["max_workers"], mail["timeout_s"]) == ("mail", 5, 2, 30)
    assert (reports["name"], reports["max_workers"], reports["paused"]) == ("reports", None, False)
    assert project("category", "list").out.splitlines()[2].split() == [
        "reports",
        "1",
        "0",
        "-",
        "0",
        "-",
        "0",
    ]


def test_a_category_is_paused_and_resumed(project):
    assert project("category", "pause", "mail").out == "mail is paused\n"
    assert [row["paused"] for row in project("category", "list", "--json").json] == [True, False]
    assert "paused" in project("category", "list").out
    assert "mail (paused)" in project("stats").out
    assert project("category", "resume", "mail", "--json").json == {"category": "mail", "paused": False}
    assert not any(row["paused"] for row in project("category", "list", "--json").json)


def test_an_unknown_category_is_neither_paused_nor_resumed(project):
    for verb in ("pause", "resume"):
        assert "did you mean 'mail'?" in project("category", verb, "mial", code=2).err


def test_a_category_that_left_the_configuration_still_shows_its_jobs(project):
    project.dispatch("tasks:fail", "--arg", '"a"')
    file = project.folder / "categories.toml"
    file.write_text(file.read_text().replace("[categories.reports]", "[categories.other]"))
    rows = {row["name"]: row for row in project("category", "list", "--json").json}
    assert (rows["reports"]["configured"], rows["reports"]["counts"]["pending"]) == (False, 1)
    assert "not configured" in project("category", "list").out
    assert len(project("jobs", "--category", "reports", "--json").json) == 1


def test_a_pause_can_end_by_itself(project):
    assert project("category", "pause", "mail", "--for", "10m").out == "mail is paused for 10m\n"
    mail = project("category", "list", "--json").json[0]
    assert mail["paused"]
    assert mail["paused_until"]
    assert "mail: paused until " in project("category", "list").out
    assert "mail: paused until " in project("stats").out
    assert "--for" in project("category", "pause", "mail", "--for", "0s", code=2).err


def test_rate_and_room_are_listed_where_there_are_any(project):
    file = project.folder / "categories.toml"
    file.write_text(file.read_text().replace("priority = 5", 'rate = "90/m"\nmax_pending = 7'))
    mail = project("category", "list", "--json").json[0]
    assert (mail["rate"], mail["max_pending"]) == ("90/m", 7)
    rows = [line.split() for line in project("category", "list").out.splitlines()]
    assert rows[0] == [
        *("category", "priority", "min", "max", "retries", "timeout", "rate", "max_pending", "pending"),
        "note",
    ]
    assert rows[1][6:8] == ["90/m", "7"]
