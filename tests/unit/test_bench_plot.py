import pytest

from jobsched.bench.plot import _OURS, _draw_bars, plot_load, plot_peers, require_matplotlib
from jobsched.errors import InvalidOption

REPORT = {
    "at": "2026-01-02T03:04:05+00:00",
    "machine": {
        "cores": 2, "cpu": "a processor", "python": "3.13", "file_system": "ext4", "load_average": 0.5,
    },
}  # fmt: skip
LOAD = REPORT | {
    "runs": [
        {
            "categories": {"mail": {}, "reports": {}},
            "samples": [
                {"t_s": 0.0, "mail": [3, 1, 1]},
                {"t_s": 1.0, "mail": [0, 1, 0], "reports": [5, 1, 1]},
            ],
        }
    ],
    "median": {"accepted": 8, "rate_reached": 4.0, "p50_ms": 2.5, "p99_ms": 30.0},
}
FAST = {"jobs_per_s": 9000, "enqueue_jobs_per_s": 900, "p50_ms": 1.0, "p99_ms": 3.0}
SLOW = {"jobs_per_s": 90, "enqueue_jobs_per_s": 800, "cpu_us": 50.0, "p50_ms": 9.0, "p99_ms": 20.0}
PEERS = REPORT | {
    "runs": [{}, {}],
    "settings": {"rate": 20, "appendfsync": "everysec"},
    "median": {"slow (x)": SLOW, "jobsched": FAST},
    "skipped": {"absent (y)": "not installed"},
}


def test_a_plot_needs_matplotlib(monkeypatch):
    monkeypatch.setattr("jobsched.bench.plot.find_spec", lambda _: None)
    with pytest.raises(InvalidOption, match=r"--plot needs matplotlib: pip install 'jobsched\[plot\]'"):
        require_matplotlib()


def test_a_plot_needs_a_place(monkeypatch, tmp_path):
    monkeypatch.setattr("jobsched.bench.plot.find_spec", lambda _: object())
    with pytest.raises(InvalidOption, match=r"expected a file like figure\.png, got 'bars\.txt'"):
        require_matplotlib(tmp_path.relative_to(tmp_path) / "bars.txt")
    with pytest.raises(InvalidOption, match="there is no folder"):
        require_matplotlib(tmp_path / "none" / "bars.png")
    require_matplotlib(tmp_path / "bars.png")


@pytest.mark.parametrize(("draw", "report"), [(plot_load, LOAD), (plot_peers, PEERS)])
def test_a_plot_is_a_picture(tmp_path, draw, report):
    pytest.importorskip("matplotlib")
    draw(report, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(InvalidOption, match="--plot: cannot write"):
        draw(report, tmp_path / "none" / "figure.png")


def test_the_best_is_on_top_and_ours_stands_out():
    colours = pytest.importorskip("matplotlib.colors")
    axes = pytest.importorskip("matplotlib.figure").Figure().subplots()
    _draw_bars(axes, PEERS, "p99_ms", is_less_better=True)
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == ["slow (x)", "jobsched"]
    assert [colours.to_hex(bar.get_facecolor()) == _OURS for bar in axes.patches[:2]] == [False, True]
