"""Two at once: in one run folder, on one store; and a store that goes away."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from jobs import DRAWN, result, start
from trial import Kind, Trial


def one_folder(trial: Trial) -> str:
    """Two processes go on with one run: one is refused in a line that names the other."""
    job = trial.pick_job()
    reference = trial.references.get(job)
    steps = trial.random.randint(2, reference.counts["step"])
    fault = {"place": "step", "number": steps, "manner": "before", "fraction": 0.0}
    trial.server.run(trial.args("--checkpoint-every", "2"), faults=[("kill_at", fault)])
    processes = [trial.server.start(trial.args()) for _ in range(2)]
    ended = [process.wait() for process in processes]
    refused = [number for number, end in enumerate(ended) if end.code == 2]
    trial.expect(len(refused) == 1, f"ended with {[end.code for end in ended]}", ended[0])
    (loser,) = refused
    if "has finished" not in ended[loser].stderr:  # it came when the other was through
        holder = processes[1 - loser].pid
        trial.one_line(ended[loser], holds=f"is being trained by process {holder}")
    trial.check(ended[1 - loser])
    return "one refused"


def one_store(trial: Trial) -> str:
    """Two runs begin at once with no store: it is built once, and both are right."""
    job = trial.pick_job()
    if job in DRAWN:
        return "this one has no store"
    cache = trial.folder / "cache"
    outs = [trial.folder / "a", trial.folder / "b"]
    processes = [
        trial.server.start(start(job, out, trial.references.images), cache=cache) for out in outs
    ]
    for out, process in zip(outs, processes, strict=True):
        ended = process.wait()
        trial.expect(ended.code == 0, f"ended with {ended.code}", ended)
        difference = result(out).differs_from(trial.references.get(job).result)
        trial.expect(not difference, difference, ended)
    _one_whole(trial, cache)
    return "both right"


def store_goes(trial: Trial) -> str:
    """The cache is deleted under a running job: it ends as if nothing had been."""
    job = trial.pick_job()
    if job in DRAWN:
        return "this one has no store"
    cache = trial.folder / "cache"
    process = trial.server.start(trial.args("--checkpoint-every", "3"), cache=cache)
    patience = time.monotonic() + 120
    while not (trial.out / "config.yaml").exists() and time.monotonic() < patience:
        time.sleep(0.002)
    shutil.rmtree(cache)
    trial.check(process.wait())
    again = trial.folder / "again"
    ended = trial.server.run(start(job, again, trial.references.images), cache=cache)
    trial.expect(ended.code == 0, f"ended with {ended.code}", ended)
    _one_whole(trial, cache)
    return "deleted, and built again"


def _one_whole(trial: Trial, cache: Path) -> None:
    names = [path.name for path in cache.rglob("*.npy")]
    halves = [path.name for path in cache.rglob("*.tmp")]
    trial.expect(len(names) == 1 and not halves, f"the cache holds {names + halves}")


KINDS = [
    Kind("two in one folder", one_folder, weight=0.5),
    Kind("two build one store", one_store, weight=0.4),
    Kind("store deleted", store_goes, weight=0.4),
]
