import itertools
import random
import re
import statistics
import tomllib
from collections import Counter

import pytest

from jobsched.bench import load_wanted
from jobsched.bench.arrivals import parse_arrivals
from jobsched.bench.draws import LONGEST_S, parse_run_time, parse_share
from jobsched.bench.load_ground import _document, write_toml
from jobsched.bench.load_plan import Planned, generated, mix, parse_mix
from jobsched.bench.load_wanted import Wanted, plan_of, settings_of, span_of
from jobsched.bench.trace import read_trace
from jobsched.config import load_config, parse_config
from jobsched.errors import InvalidOption, UnknownCategory


def drawn(text, count=20_000):
    rng = random.Random(5)
    draw = parse_run_time(text)
    return [draw(rng) for _ in range(count)]


@pytest.mark.parametrize("text", ["5ms", "constant:5ms"])
def test_a_constant_run_time_is_always_the_same(text):
    assert set(drawn(text, 100)) == {0.005}


def test_uniform_run_times_fill_their_range_evenly():
    values = drawn("uniform:10ms,30ms")
    assert 0.01 <= min(values) < 0.0101
    assert 0.0299 < max(values) <= 0.03
    assert statistics.mean(values) == pytest.approx(0.02, rel=0.01)


def test_exponential_run_times_have_their_mean_and_their_spread():
    values = drawn("exponential:20ms")
    assert statistics.mean(values) == pytest.approx(0.02, rel=0.03)
    assert statistics.stdev(values) == pytest.approx(0.02, rel=0.03)
    assert set(drawn("exponential:0s", 10)) == {0.0}


def test_lognormal_run_times_have_their_median_and_no_end_but_an_hour():
    values = drawn("lognormal:20ms,1.2")
    assert statistics.median(values) == pytest.approx(0.02, rel=0.03)
    assert statistics.mean(values) == pytest.approx(0.02 * 2.718**0.72, rel=0.1)
    assert max(drawn("lognormal:1h,5")) == LONGEST_S


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("5", "'5' has no unit"),
        ("2h", "a run time is at most 1h, got '2h'"),
        ("normal:5ms", "'normal:5ms' is no run time, expected one like 5ms"),
        ("uniform:5ms", "is no run time"),
        ("exponential:5ms,2", "is no run time"),
        ("lognormal:5ms,wide", "the width of a lognormal run time is from 0 to 5, got 'wide'"),
        ("lognormal:5ms,-1", "got '-1'"),
    ],
)
def test_what_is_no_run_time_is_said(text, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        parse_run_time(text)


@pytest.mark.parametrize(("text", "share"), [("2%", 0.02), ("0.02", 0.02), ("0%", 0), ("100%", 1), ("1", 1)])
def test_a_share_is_read(text, share):
    assert parse_share(text) == pytest.approx(share)


@pytest.mark.parametrize("text", ["", "%", "101%", "-1%", "2", "nan", "some"])
def test_what_is_no_share_is_said(text):
    with pytest.raises(ValueError, match="expected a share from 0% to 100%"):
        parse_share(text)


def test_a_mix_is_read():
    assert parse_mix("mail=3, reports") == {"mail": 3, "reports": 1}


@pytest.mark.parametrize("text", ["", "mail=0", "mail=-1", "mail=x", "mail=nan", "mail=1,mail=2", "=3"])
def test_what_is_no_mix_is_said(text):
    with pytest.raises(ValueError, match="expected each category once with its weight"):
        parse_mix(text)


def test_an_option_for_a_category_goes_before_the_one_for_all():
    kinds = mix({"mail": 1, "reports": 1}, ["mail=3ms", "5ms", "7ms"], ["reports=50%"])
    assert [kind.run_time(random.Random()) for kind in kinds.values()] == [0.003, 0.007]
    assert [kind.failing for kind in kinds.values()] == [0, 0.5]


def test_an_option_for_a_category_without_jobs_is_refused():
    with pytest.raises(ValueError, match="'maul=3ms' is for a category that gets no jobs, unlike mail"):
        mix({"mail": 1}, ["maul=3ms"], [])


def test_categories_and_failures_come_in_their_shares():
    kinds = mix({"mail": 3, "reports": 1}, [], ["10%"])
    plan = list(itertools.islice(generated(parse_arrivals("constant", 100), kinds, 1), 20_000))
    counts = Counter(job.category for job in plan)
    assert counts["mail"] / len(plan) == pytest.approx(0.75, abs=0.01)
    assert sum(job.fails for job in plan) / len(plan) == pytest.approx(0.1, abs=0.01)


def test_another_mix_leaves_the_arrivals_of_a_seed_alone():
    def times(mixed):
        kinds = mix(parse_mix(mixed), ["exponential:1ms"], [])
        return [job.at_s for job in itertools.islice(generated(parse_arrivals("poisson", 9), kinds, 3), 50)]

    assert times("mail") == times("mail=2,reports=5")


# What a user wants.


def test_a_load_lasts_ten_seconds_unless_told():
    plan = plan_of(Wanted(arrival="constant", rate=5), None)
    assert len(plan) == 50
    assert span_of(Wanted(), plan) == 10
    assert {job.category for job in plan} <= {"light", "heavy"}


def test_a_load_ends_with_its_jobs_or_its_time():
    wanted = Wanted(arrival="constant", rate=10, jobs=21)
    assert len(plan_of(wanted, None)) == 21
    assert span_of(wanted, plan_of(wanted, None)) == 2
    both = Wanted(arrival="constant", rate=10, jobs=21, for_s=1)
    assert len(plan_of(both, None)) == 10
    assert span_of(both, plan_of(both, None)) == 1


CONFIG = (
    'tasks = ["tasks"]\nworkers = 3\n[categories.mail]\npriority = 2.5\n[categories."a.b"]\nmax_workers = 1\n'
)


def test_a_load_goes_to_the_categories_of_its_configuration(tmp_path):
    config = parse_config(CONFIG, tmp_path)
    assert {job.category for job in plan_of(Wanted(), config)} == {"mail", "a.b"}
    with pytest.raises(UnknownCategory, match="unknown category 'post'"):
        plan_of(Wanted(mix="post"), config)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (Wanted(rate=0.001, for_s=0.001), "no job is due in this time"),
        (Wanted(arrival="never"), "'never' is no arrival process"),
        (Wanted(mix="mail=0"), "'mail=0': expected each category once"),
    ],
)
def test_a_load_that_cannot_be_is_refused(wanted, message):
    with pytest.raises(InvalidOption, match=re.escape(message)):
        plan_of(wanted, None)


def test_a_load_is_bounded(monkeypatch):
    monkeypatch.setattr(load_wanted, "MOST_JOBS", 100)
    assert len(plan_of(Wanted(rate=10, arrival="constant"), None)) == 100
    with pytest.raises(InvalidOption, match="a load has at most 100 jobs: lower --rate or --for"):
        plan_of(Wanted(rate=10.1, arrival="constant"), None)


def test_a_report_keeps_what_was_asked_for(tmp_path):
    assert settings_of(Wanted(time=("5ms",))) == {
        "arrival": "poisson", "rate": 100.0, "for_s": 10.0, "time": ("5ms",), "seed": 1,
    }  # fmt: skip
    assert settings_of(Wanted(trace=tmp_path / "t")) == {"trace": str(tmp_path / "t"), "seed": 1}


def test_a_configuration_is_the_same_when_it_is_written_again():
    assert tomllib.loads(write_toml(tomllib.loads(CONFIG))) == tomllib.loads(CONFIG)


def test_a_node_of_its_own_has_the_settings_of_a_configuration_but_not_its_store_and_tasks(tmp_path):
    file = tmp_path / "categories.toml"
    file.write_text(CONFIG)
    own = parse_config(write_toml(_document(load_config(file), ["mail"], None)), tmp_path)
    assert own.categories == load_config(file).categories
    assert (own.workers, own.tasks, own.store.path) == (3, ("jobsched.bench.tasks",), tmp_path / "store")
    assert parse_config(write_toml(_document(load_config(file), ["mail"], 5)), tmp_path).workers == 5
    assert list(parse_config(write_toml(_document(None, ["x", "y"], None)), tmp_path).categories) == [
        "x",
        "y",
    ]


# Traces.


@pytest.fixture
def trace(tmp_path):
    def write(text):
        file = tmp_path / "trace"
        file.write_text(text)
        return file

    return write


@pytest.mark.parametrize(
    "text",
    [
        '{"seconds": 0.5, "category": "mail", "duration": 0.02}\n\n{"seconds": 0, "category": "reports"}\n',
        '[0.5, "mail", 0.02]\n[0, "reports"]\n',
        '{"seconds": "500ms", "category": "mail", "duration": "20ms"}\n{"seconds": 0, "category": "reports"}',
        "0.5,mail,0.02\n0,reports\n",
        "0.5, mail, 20ms\r\n0, reports,\r\n",
        "category,duration,seconds,note\nmail,0.02,0.5,x\nreports,,0,y\n",
    ],
)
def test_a_trace_is_read_in_the_order_of_its_times(trace, text):
    assert read_trace(trace(text)) == [(0.0, "reports", None), (0.5, "mail", 0.02)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no jobs"),
        ("0.5,mail\nsoon,mail\n", ":2: 'soon' is not a duration"),
        ("0.5,mail\n-1,mail\n", ":2: expected seconds, 0 or more, got -1.0"),
        ("0.5\n", ":1: expected seconds, category and perhaps duration"),
        ("inf,mail", ":1: expected seconds, 0 or more, got inf"),
        ('{"seconds": true, "category": "mail"}', ":1: expected seconds, 0 or more, got True"),
        ('{"seconds": 1, "category": 3}', ":1: expected seconds, category"),
        ('{"seconds": 1', ":1: not JSON"),
    ],
)
def test_what_is_no_trace_is_said_with_its_line(trace, text, message):
    with pytest.raises(InvalidOption, match=re.escape(message)):
        read_trace(trace(text))


def test_a_trace_that_is_not_there_is_said(tmp_path):
    with pytest.raises(InvalidOption, match="cannot be read"):
        read_trace(tmp_path / "none")


def test_what_a_trace_leaves_open_comes_from_the_options(trace):
    wanted = Wanted(trace=trace("0,mail,0.02\n1,mail\n"), time=("3ms",), fail=("100%",))
    assert plan_of(wanted, None) == [Planned(0, "mail", 0.02, True), Planned(1, "mail", 0.003, True)]
    assert span_of(wanted, plan_of(wanted, None)) == 1


def test_a_trace_can_be_cut(trace):
    file = trace("0,mail\n1,mail\n2,mail\n")
    assert len(plan_of(Wanted(trace=file, for_s=1.5), None)) == 2
    assert len(plan_of(Wanted(trace=file, jobs=1), None)) == 1
