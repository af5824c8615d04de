"""The torture suite: `python tests/torture NAME [--seed N] [--full] [--scale X] [--keep]`.

Runs one scenario, or `all`; prints one JSON line for each to stdout, progress to stderr. A run is
repeated by its seed, as far as the machine's timing allows. Exit code 1 if any is not ok.
"""

import argparse
import json
import random
import signal
import sys

from scenario import discover, run_scenario


def parsed_arguments(names: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python tests/torture", description="Break things on purpose.")
    parser.add_argument("name", nargs="?", choices=[*names, "all"], metavar="NAME", help="a scenario, or all")
    parser.add_argument("--seed", type=int, help="repeat a run (default: a new one)")
    parser.add_argument("--full", action="store_true", help="the full counts: minutes each")
    parser.add_argument("--scale", type=float, default=1.0, help="multiply the counts")
    parser.add_argument("--keep", action="store_true", help="keep the folders, not only of what failed")
    parser.add_argument("--list", action="store_true", help="list the scenarios")
    arguments = parser.parse_args()
    if arguments.name is None and not arguments.list:
        parser.error("NAME is missing: a scenario, or all; --list lists them")
    return arguments


def main() -> int:
    scenarios = discover()
    arguments = parsed_arguments(list(scenarios))
    if arguments.list:
        for chosen in scenarios.values():
            print(f"{chosen.name:24}{chosen.summary}")
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what runs is ended
    seed = random.SystemRandom().randrange(1 << 31) if arguments.seed is None else arguments.seed
    code = 0
    for name in scenarios if arguments.name == "all" else [arguments.name]:
        print(f"{name} --seed {seed}", file=sys.stderr, flush=True)
        line = run_scenario(
            scenarios[name], seed=seed, full=arguments.full, scale=arguments.scale, keep=arguments.keep
        )
        print(json.dumps(line), flush=True)
        code |= not line["ok"]
    return code


if __name__ == "__main__":
    sys.exit(main())
