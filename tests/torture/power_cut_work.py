"""A run under the recorder: random turns on a store, and after each what is on disk now.

`python power_cut_work.py STORE LOG KIND SEED TURNS [BROKEN]`, preloaded with record_writes.c. BROKEN
names a flag of LMDB that is switched off, to see that the loss is found: sync or metasync.
"""

import functools
import random
import sys
from pathlib import Path

import lmdb as engine
from invariants import read_environment
from random_turns import RandomTurns, added_by
from write_log import Noted, note

from jobsched.store.lmdb import open_store


def main(store_path: Path, log: Path, kind: str, seed: int, turns: int) -> None:
    load = RandomTurns(random.Random(seed), kind)
    store = open_store(store_path)
    note(log, Noted(digest=read_environment(store._env).digest))
    for _ in range(turns):
        turn = load.next()
        result = store.apply(turn)
        accepted = sorted(added_by(turn, result))
        note(log, Noted(digest=read_environment(store._env).digest, accepted=accepted))
        load.learn(turn, result)


if __name__ == "__main__":
    place, log_path, load_kind, seed_text, turns_text, *broken = sys.argv[1:]
    for flag in broken:
        engine.open = functools.partial(engine.open, **{flag: False})
    main(Path(place), Path(log_path), load_kind, int(seed_text), int(turns_text))
