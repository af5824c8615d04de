"""`bench peers`: who takes part, and what is reported of all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jobsched.bench.peers.rivals import OURS, Peer, absence, chosen, version
from jobsched.bench.peers.run import PeerFailed, run_peer
from jobsched.bench.peers.servers import NoServer
from jobsched.bench.report import Tell, measure, silent

__all__ = ["compare"]


def compare(
    names: Sequence[str], settings: Mapping[str, Any], *, runs: int, tell: Tell = silent
) -> dict[str, Any]:
    """Measure ours and the others in turn, so that all of them see the same machine; return the report.

    `names` chooses among the others, `settings` are those of `run_peer`. Beside what every report has,
    `peers` says version and settings of each, `skipped` why one is not among them.
    Raises InvalidOption for an unknown name, and what goes wrong with ours.
    """
    skipped: dict[str, str] = {}
    present: list[Peer] = []
    for peer in chosen(names):
        why = absence(peer)
        if why is None:
            present.append(peer)
        else:
            skipped[peer.name] = why

    def once(told: Tell) -> dict[str, Any]:
        found = {OURS.name: run_peer(OURS, **settings, tell=told)}
        for peer in present:
            if peer.name in skipped:
                continue
            try:
                found[peer.name] = run_peer(peer, **settings, tell=told)
            except (PeerFailed, NoServer) as error:
                skipped[peer.name] = str(error)
        return found

    report = measure("peers", once, settings, runs=runs, tell=tell)
    parts = [OURS, *(peer for peer in present if peer.name in report["median"])]
    return report | {"peers": {peer.name: _about(peer) for peer in parts}, "skipped": skipped}


def _about(peer: Peer) -> dict[str, Any]:
    return {"version": version(peer.packages[0]), "settings": peer.settings}
