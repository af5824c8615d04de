"""The load-generation benchmark: real nodes, real files, full durability."""

from jobsched.bench.drain import run_drain
from jobsched.bench.latency import run_latency

__all__ = ["run_drain", "run_latency"]
