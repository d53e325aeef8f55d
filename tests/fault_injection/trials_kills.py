"""Killed at any moment, and gone on with: by the clock, and at places of the code."""

from __future__ import annotations

import signal
import time
from typing import Any

from faults import MANNERS
from trial import Kind, Trial

_MOST = 3


def kill(trial: Trial) -> str:
    """Kill it up to three times in a row, then let it end."""
    job = trial.pick_job()
    reference = trial.references.get(job)
    saving = trial.checkpoints()
    # A store to build and a store that is there already are two beginnings.
    cache = trial.folder / "cache" if trial.random.random() < 0.3 else None
    kills = 0
    for _ in range(trial.random.randint(1, _MOST)):
        faults, after = _fault(trial, reference.counts, reference.seconds)
        ended = trial.server.run(trial.args(*saving), faults=faults, kill_after=after, cache=cache)
        if not ended.killed:
            break
        kills += 1
    else:
        ended = trial.server.run(trial.args(*saving), cache=cache)
    trial.check_finished(ended)
    return f"killed {kills} times"


def stop(trial: Trial) -> str:
    """Asked to stop, politely: it saves, says how to go on, and ends as shells expect."""
    job = trial.pick_job()
    reference = trial.references.get(job)
    number = trial.random.choice([signal.SIGINT, signal.SIGTERM])
    process = trial.server.start(trial.args(*trial.checkpoints()))
    place = trial.random.uniform(0, 1)
    trial.log.append(f"{number} at {place:.3f}")
    time.sleep(place * reference.seconds)
    process.signal(number)
    ended = process.wait()
    if ended.code == 0:
        trial.check(ended)
        return "ended before it heard"
    if trial.out.exists():
        trial.expect(ended.code == 128 + number, f"ended with {ended.code}", ended)
        line = trial.one_line(ended, holds="to go on: vaezoo train --resume")
        trial.expect(str(trial.out) in line, "names another folder", ended)
    else:
        trial.expect(ended.code in (128 + number, -number), f"ended with {ended.code}", ended)
    trial.check_finished(trial.server.run(trial.args()))
    return "stopped"


def plugin_raises(trial: Trial) -> str:
    """A plugin raises in the middle: one line, a traceback in a file, and a run that goes on."""
    job = trial.pick_job()
    reference = trial.references.get(job)
    place = trial.random.choice(["step", "validation", "finish", "evaluation"])
    number = trial.random.randint(1, reference.counts[place])
    trial.log.append(f"raises at {place} {number}")
    ended = trial.server.run(
        trial.args(*trial.checkpoints()),
        faults=[("raise_at", {"place": place, "number": number})],
    )
    if ended.has_traceback and not trial.out.exists():
        return "raised before anything was computed"
    trial.expect(ended.code == 2, f"ended with {ended.code}", ended)
    trial.one_line(ended, holds="ValueError: a fault of a plugin")
    written = trial.out / "traceback.txt"
    trial.expect(
        written.exists() and "a fault of a plugin" in written.read_text(), "no traceback", ended
    )
    trial.check(trial.server.run(trial.args()))
    return "raised"


def _fault(
    trial: Trial, counts: dict[str, int], seconds: float
) -> tuple[list[tuple[str, dict[str, Any]]], float | None]:
    """A moment: half of them by the clock, half by a place of the code."""
    if trial.random.random() < 0.5:
        after = trial.random.uniform(0, 1.05) * seconds
        trial.log.append(f"kill after {after:.3f} s")
        return [], after
    fault = {
        "place": trial.random.choice(sorted(counts)),
        "manner": trial.random.choice(MANNERS),
        "fraction": trial.random.random(),
    }
    fault["number"] = trial.random.randint(1, counts[fault["place"]])
    trial.log.append(f"kill at {fault}")
    return [("kill_at", fault)], None


KINDS = [
    Kind("kill", kill, weight=5),
    Kind("stop", stop, weight=1),
    Kind("plugin raises", plugin_raises, weight=1),
]
