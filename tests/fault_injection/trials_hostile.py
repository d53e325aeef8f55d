"""Randomly damaged files: each is read, or refused with one line.

The kinds of files are those of tests/fuzz; what is damaged of a run folder meets every command.
"""

from __future__ import annotations

import sys
import tempfile
import traceback
from pathlib import Path

FUZZ = Path(__file__).parents[1] / "fuzz"
sys.path.insert(0, str(FUZZ))

import fuzz  # noqa: E402
import mutate  # noqa: E402
import targets  # noqa: E402
from trial import Kind, Lost, Trial  # noqa: E402

FILES = 200


def hostile_files(trial: Trial) -> str:
    """Two hundred damaged files of one kind, each read in bounded memory and time."""
    name = trial.random.choice(list(targets.TARGETS))
    target = targets.TARGETS[name]
    seeds = target.seeds()
    with targets.limited_memory(fuzz.MEMORY):
        for _ in range(FILES):
            content = trial.random.choice(seeds)
            if target.packing and trial.random.random() < 0.5:
                inside = mutate.mutated(target.packing.unpack(content), trial.random)
                content = target.packing.pack(inside)
            else:
                content = mutate.mutated(content, trial.random)
            try:
                with fuzz.limited(fuzz.SLOWEST):
                    targets.read(target, trial.folder, content)
            except (Exception, fuzz.HangError):
                kept = Path(tempfile.mkdtemp(prefix="hostile-")) / target.name
                kept.write_bytes(content)
                raise Lost(f"{name}: {kept}\n{traceback.format_exc()}") from None
    return f"{FILES} damaged files of {name} read or refused"


def hostile_run(trial: Trial) -> str:
    """A finished run with a file changed at random, read by each command that reads runs."""
    trial.pick_job()
    trial.check(trial.server.run(trial.args("--checkpoint-every", "5")))
    files = [
        *("config.yaml", "run.json", "metrics.jsonl", "model.safetensors", "summary.json"),
        *(str(p.relative_to(trial.out)) for p in sorted(trial.out.glob("checkpoint/step-*/*"))),
    ]
    victim = trial.out / trial.random.choice(files)
    victim.write_bytes(mutate.mutated(victim.read_bytes(), trial.random))
    trial.log.append(f"changed {victim.relative_to(trial.out)}")
    refused = 0
    for command in (
        ["sample", str(trial.out), "-n", "2", "-o", str(trial.folder / "s.png"), "--overwrite"],
        ["evaluate", str(trial.out)],
        ["train", "--resume", str(trial.out)],
    ):
        ended = trial.server.run(command)
        trial.expect(ended.code in (0, 2), f"{command[0]} ended with {ended.code}", ended)
        if ended.code == 2:
            trial.one_line(ended)
            refused += 1
    return f"{refused} of 3 commands refused it"


KINDS = [Kind("hostile files", hostile_files), Kind("hostile run", hostile_run)]
