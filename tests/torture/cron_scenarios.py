"""Cron expressions against a count of every minute, in all zones of the world."""

from collections import Counter
from datetime import datetime, timedelta
from zoneinfo import available_timezones

from cron_oracle import (
    Meaning,
    Tick,
    changes,
    drawn_expression,
    firings,
    first_firings,
    ticks,
    windows,
)
from scenario import Figure, Torture, scenario

from jobsched.errors import InvalidOption
from jobsched.trigger import Cron

_A_WINDOW = 10  # expressions
_MOST_FIRINGS = 60  # of an expression in a window
_PROBES = 6
_LENGTH = timedelta(hours=40)
_LENGTH_BY_SECONDS = timedelta(minutes=100)
_MINUTE = timedelta(minutes=1)
_SECOND = timedelta(seconds=1)
_FAR = timedelta(days=500)


@scenario(
    "cron-times",
    quick={"expressions": 250, "by_seconds": 10, "far": 10, "zones": 120},
    full={"expressions": 20_000, "by_seconds": 1_000, "far": 1_000, "zones": 1_000},
)
def cron_times(
    torture: Torture, expressions: int, by_seconds: int, far: int, zones: int
) -> dict[str, Figure]:
    """Random cron expressions fire when a count of every minute says so, in all zones of the world."""
    every = sorted(available_timezones() - {"localtime"})  # which is no zone, but of the machine
    chosen = torture.rng.sample(every, min(zones, len(every)))
    changing = [zone for zone in chosen if changes(zone)]
    done: Counter[str] = Counter()
    done += around_changes(torture, chosen, changing, expressions, seconds=False)
    done += around_changes(torture, chosen, changing, by_seconds, seconds=True)
    done += far_away(torture, chosen, changing, far)
    return {
        **done,
        "zones": len(chosen),
        "zones_with_changes": len(changing),
        "mismatches": len(torture.failures),
    }


def around_changes(
    torture: Torture, zones: list[str], changing: list[str], count: int, *, seconds: bool
) -> Counter[str]:
    """Compare expressions in stretches of some hours, most of which hold a change of the clock."""
    kind = "by_seconds" if seconds else "expressions"
    done = Counter({kind: 0})
    drawn = windows(torture.rng, zones, changing)
    while done[kind] < count:
        zone, start = next(drawn)
        if seconds:  # close to the change
            near = [one for one in changes(zone) if one >= start]
            start = (near or [start])[0] - timedelta(minutes=torture.rng.randrange(90))
        length, step = (_LENGTH_BY_SECONDS, _SECOND) if seconds else (_LENGTH, _MINUTE)
        shown = ticks(zone, start, start + length, step)
        done["windows"] += 1
        done["windows_with_a_change"] += any(start < one <= start + length for one in changes(zone))
        for _ in range(min(_A_WINDOW, count - done[kind])):
            text, trigger = drawn_trigger(torture, zone, seconds=seconds, done=done)
            done[kind] += 1
            done["firings"] += compare(torture, text, trigger, start, shown)
        torture.progress(f"{done[kind]} {kind}")
    return done


def drawn_trigger(torture: Torture, zone: str, *, seconds: bool, done: Counter[str]) -> tuple[str, Cron]:
    while True:
        text = drawn_expression(torture.rng, seconds=seconds)
        try:
            return text, Cron(text, timezone=zone, seconds=seconds)
        except InvalidOption as error:
            if not torture.check("never fires" in str(error), f"{text}: {error}"):
                done["refused_wrongly"] += 1
            done["never_fire"] += 1


def compare(torture: Torture, text: str, trigger: Cron, start: datetime, shown: list[Tick]) -> int:
    """Compare the firings of a stretch in a row, and from instants by chance; return their number."""
    end = shown[-1].at
    expected = firings(Meaning(text), shown)
    found: list[datetime] = []
    at = trigger.next_after(start)
    while at is not None and at <= end and len(found) < _MOST_FIRINGS:
        found.append(at)
        at = trigger.next_after(at)
    torture.check(
        found == expected[:_MOST_FIRINGS],
        f"{trigger!r} from {start}: {first_difference(found, expected)}",
    )
    for _ in range(_PROBES):
        probe = start + torture.rng.random() * (end - start)
        after = next((one for one in expected if one > probe), None)
        at = trigger.next_after(probe)
        torture.check(
            (at if at is not None and at <= end else None) == after,
            f"{trigger!r} at {probe}: {at} for {after}",
        )
    return len(found)


def first_difference(found: list[datetime], expected: list[datetime]) -> str:
    different = [(a, b) for a, b in zip(found, expected, strict=False) if a != b]
    a, b = different[0] if different else (len(found), len(expected))
    return f"{a} where the count of the minutes has {b}"


def far_away(torture: Torture, zones: list[str], changing: list[str], count: int) -> Counter[str]:
    """Compare the first firings of expressions that may be months away."""
    done = Counter({"far": 0})
    for zone, start in windows(torture.rng, zones, changing):
        if done["far"] >= count:
            break
        text, trigger = drawn_trigger(torture, zone, seconds=False, done=done)
        expected = first_firings(Meaning(text), zone, start, _FAR, 3)
        found: list[datetime] = []
        at: datetime | None = start
        while at is not None and len(found) < len(expected):
            at = trigger.next_after(at)
            found += [at] if at is not None else []
        torture.check(found == expected, f"{trigger!r} from {start}: {first_difference(found, expected)}")
        if not expected:
            at = trigger.next_after(start)
            torture.check(
                at is None or at > start + _FAR - timedelta(days=1), f"{trigger!r} from {start}: {at}"
            )
        done["far"] += 1
        done["firings"] += len(found)
        torture.progress(f"{done['far']} far away")
    return done
