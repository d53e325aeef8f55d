"""Torture: random trials of every kind for as long as asked, each from a seed, each to the bit.

    python tests/fault_injection/run.py --minutes 60 --seed 1 --json FILE

Every file `trials_*.py` beside this one brings kinds of trials: a list KINDS. The exit code is 1 if
anything was lost; `--only SEED` does one trial again.
"""

from __future__ import annotations

import argparse
import importlib
import json
import platform
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter, defaultdict
from pathlib import Path
from random import Random
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parents[1]), str(HERE.parents[1] / "plugins")]

from processes import Server  # noqa: E402
from trial import Kind, Lost, References, Trial  # noqa: E402


def kinds() -> list[Kind]:
    """Of every file here that brings some."""
    names = sorted(path.stem for path in HERE.glob("trials_*.py"))
    return [kind for name in names for kind in importlib.import_module(name).KINDS]


def inject_faults(
    *,
    minutes: float,
    seed: int,
    json_file: Path | None = None,
    only: int | None = None,
    trials: int | None = None,
    names: list[str] | None = None,
    jobs: list[str] | None = None,
) -> dict[str, Any]:
    """Try until the time is over, or so many trials are done; what came of it."""
    wanted = [kind for kind in kinds() if names is None or kind.name in names]
    skipped = {kind.name: why for kind in wanted if (why := kind.possible())}
    able = [kind for kind in wanted if kind.name not in skipped]
    begun = time.monotonic()
    outcomes: dict[str, Counter[str]] = defaultdict(Counter)
    lost: list[dict[str, Any]] = []
    number = 0
    with tempfile.TemporaryDirectory(prefix="vaezoo-faults-") as name:
        folder = Path(name)
        with Server(folder / "cache") as server:
            references = References(server, folder / "references", jobs)
            while _goes_on(number, time.monotonic() - begun, minutes, trials, only):
                own_seed = only if only is not None else seed * 1_000_000 + number
                random = Random(own_seed)
                (kind,) = random.choices(able, [kind.weight for kind in able])
                trial = Trial(server, random, folder / "trial", references)
                trial.folder.mkdir()
                try:
                    outcomes[kind.name][kind.run(trial)] += 1
                except Exception as error:
                    outcomes[kind.name]["LOST"] += 1
                    message = str(error) if isinstance(error, Lost) else traceback.format_exc()
                    lost.append({"seed": own_seed, "kind": kind.name, "what": message})
                    print(f"LOST, --only {own_seed}: {kind.name}: {message}", flush=True)
                shutil.rmtree(folder / "trial", ignore_errors=True)
                number += 1
                found = _report(seed, begun, number, outcomes, lost, skipped, references.jobs)
                if json_file is not None:
                    json_file.write_text(json.dumps(found, indent=2) + "\n")
                if number % 20 == 0:
                    took = (time.monotonic() - begun) / 60
                    print(f"{number} trials, {took:.1f} min, {len(lost)} lost", flush=True)
    return _report(seed, begun, number, outcomes, lost, skipped, references.jobs)


def _goes_on(
    number: int, seconds: float, minutes: float, trials: int | None, only: int | None
) -> bool:
    if only is not None:
        return number == 0
    return number < trials if trials is not None else seconds < minutes * 60


def _report(
    seed: int,
    begun: float,
    number: int,
    outcomes: dict[str, Counter[str]],
    lost: list[dict[str, Any]],
    skipped: dict[str, str],
    jobs: list[str],
) -> dict[str, Any]:
    import torch

    import vaezoo

    return {
        "seed": seed,
        "minutes": round((time.monotonic() - begun) / 60, 1),
        "trials": number,
        "lost": lost,
        "outcomes": {kind: dict(sorted(found.items())) for kind, found in sorted(outcomes.items())},
        "not_tried": skipped,
        "jobs": jobs,
        "versions": {
            "vaezoo": vaezoo.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, metavar="FILE", help="where the figures are written")
    parser.add_argument("--only", type=int, metavar="SEED", help="do one trial again")
    parser.add_argument("--trials", type=int, help="so many, instead of a time")
    parser.add_argument("--kinds", help="of these kinds alone, with commas")
    parser.add_argument("--jobs", help="these jobs alone, with commas")
    args = parser.parse_args()
    found = inject_faults(
        minutes=args.minutes,
        seed=args.seed,
        json_file=args.json,
        only=args.only,
        trials=args.trials,
        names=args.kinds.split(",") if args.kinds else None,
        jobs=args.jobs.split(",") if args.jobs else None,
    )
    print(json.dumps({key: found[key] for key in ("trials", "minutes", "outcomes")}, indent=2))
    print(f"{len(found['lost'])} lost")
    return 1 if found["lost"] else 0


if __name__ == "__main__":
    sys.exit(main())
