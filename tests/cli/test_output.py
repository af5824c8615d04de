import io
import json
from datetime import UTC, datetime

import msgspec
import pytest
from rich.console import Console

from jobsched.cli.balance import decision_object
from jobsched.cli.live import picture
from jobsched.cli.output import age, clean, plain, print_json
from jobsched.cli.table import print_table
from jobsched.cli.views import json_lines, plain_lines, report_object
from jobsched.report import CategoryReport, Decision, NodeReport


def report(**counts):
    row = [0, 12_345, 2, 100_000, 3, 0, 0, 0]
    categories = {
        "mail": CategoryReport(counts=row, paused=False, workers=3, busy=2),
        "a-name-that-is-longer-than-the-others-are": CategoryReport(
            counts=row, paused=True, workers=1, busy=0
        ),
    }
    decision = Decision(
        at=1, budget=4, backlog={"mail": 5}, before={"mail": 1}, after={"mail": 3}, ideal={"mail": 2.5},
        reasons={"mail": "priority 5 x backlog 12347 = 61735 of 74080: ideal 3.3; at its maximum, it seems"},
    )  # fmt: skip
    fields = {"at": 1, "uptime_s": 4000.0, "ended": 7, "failed": 3, "moves": 2, "draining": False}
    return NodeReport(**{**fields, **counts}, categories=categories, decision=decision)


def test_control_characters_are_stripped():
    assert clean("a\x1b[0m\r\nb\tc\x9b\u202e") == "a[0m b c"
    assert clean("a\nb\x07", lines=True) == "a\nb"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({1: (b"\x00\xff", None)}, {"1": ["AP8=", None]}),
        (float("nan"), None),
        (datetime(2030, 1, 1, tzinfo=UTC), "2030-01-01T00:00:00+00:00"),
        ({None: msgspec.msgpack.Ext(5, b"x")}, None),
    ],
)
def test_every_result_has_a_form_in_json(value, expected):
    found = plain(value)
    json.dumps(found, allow_nan=False)
    assert expected is None or found == expected


def test_json_is_one_line_without_control_characters(capsys):
    print_json({"text": "a\x9b\n\u202eé"})
    out = capsys.readouterr().out
    assert out == '{"text": "a\\u009b\\n\\u202eé"}\n'
    assert json.loads(out) == {"text": "a\x9b\n\u202eé"}


def test_elsewhere_than_at_a_terminal_tables_are_aligned_and_whole(capsys):
    print_table(["name", "n"], [["x" * 90, "1"], ["日本", "20"]], right=["n"], elastic=["name"])
    assert capsys.readouterr().out.splitlines() == [
        f"name{' ' * 86}   n",
        f"{'x' * 90}   1",
        f"日本{' ' * 86}  20",
    ]


@pytest.mark.parametrize(
    ("seconds", "text"), [(-5, "0s"), (59.9, "59s"), (60, "1m"), (7300, "2h"), (864_000, "10d")]
)
def test_ages_are_in_their_largest_unit(seconds, text):
    assert age(seconds) == text


def test_the_live_view_fits_80_columns():
    console = Console(file=io.StringIO(), width=80, color_system=None)
    console.print(picture(report(draining=True)))
    lines = console.file.getvalue().splitlines()
    assert all(len(line.rstrip()) <= 80 for line in lines)
    assert "draining" in lines[0]
    numbers = ["12,345", "0", "2", "100,000", "3", "2", "3"]
    assert lines[2].split() == ["mail", *numbers]
    assert "priority 5 x backlog" in console.file.getvalue()


def test_a_report_as_json_names_every_state():
    found = report_object(report())
    assert found["categories"]["mail"]["in_progress"] == 2
    assert found["decision"] == decision_object(report().decision)
    assert found["decision"]["moves"] == 2
    json.dumps(plain(found))


def test_the_plain_view_prints_what_changes_and_always_the_last(capsys):
    with plain_lines() as view:
        for failed in (1, 1, 1):
            view.show(report(failed=failed))
        view.show(report(draining=True))
    lines = capsys.readouterr().out.splitlines()
    assert 1 <= len(lines) <= 2
    assert lines[-1].endswith("draining")
    assert "mail=2/3" in lines[-1]


def test_the_json_view_prints_the_last_report(capsys):
    with json_lines() as view:
        view.show(report(ended=1))
        view.show(report(ended=2))
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["ended"] == 2
