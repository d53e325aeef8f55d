"""Files of a checkpoint that are damaged: named in one line, and the checkpoint before is used."""

from __future__ import annotations

from pathlib import Path

from trial import Kind, Trial


def damage(trial: Trial) -> str:
    """Kill a run that has checkpoints, damage the newest, go on."""
    job = trial.pick_job()
    reference = trial.references.get(job)
    keep = trial.random.randint(1, 3)
    saving = [
        "--checkpoint-every",
        str(trial.random.randint(1, 4)),
        "--keep-checkpoints",
        str(keep),
    ]
    steps = trial.random.randint(2, reference.counts["step"])
    fault = {"place": "step", "number": steps, "manner": "before", "fraction": 0.0}
    ended = trial.server.run(trial.args(*saving), faults=[("kill_at", fault)])
    trial.expect(ended.killed, f"ended with {ended.code}", ended)
    found = sorted((trial.out / "checkpoint").glob("step-*"))
    if not found:
        trial.check(trial.server.run(trial.args()))
        return "there was no checkpoint yet"
    victim = trial.random.choice(sorted(found[-1].iterdir()))
    hurt(trial, victim)
    ended = trial.server.run(trial.args())
    if len(found) == 1:
        trial.expect(ended.code == 2, f"ended with {ended.code}", ended)
        trial.one_line(ended, holds=str(found[-1]))
        return "refused: it was the only one"
    # A checksum that was changed says that the file is damaged which it belongs to.
    words = str(found[-1] if victim.name == "SHA256SUMS" else victim)
    named = [line for line in ended.stdout.splitlines() if words in line]
    trial.expect(
        len(named) == 1 and "before it" in named[0], f"{words} is not named on one line", ended
    )
    trial.check(ended)
    return "went on from the one before"


def hurt(trial: Trial, path: Path) -> None:
    """Flip a bit, cut it off, or take it away."""
    size = path.stat().st_size
    ways = ["delete", *(["flip", "cut"] if size else [])]
    way = trial.random.choice(ways)
    trial.log.append(f"{way} {path.name}")
    if way == "delete":
        path.unlink()
    elif way == "cut":
        with path.open("r+b") as file:
            file.truncate(trial.random.randrange(size))
    else:
        data = bytearray(path.read_bytes())
        data[trial.random.randrange(size)] ^= 1 << trial.random.randrange(8)
        path.write_bytes(data)


KINDS = [Kind("damaged checkpoint", damage, weight=2)]
