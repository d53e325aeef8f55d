"""Write docs/fault_injection.md from the JSON of runs.

    python tests/fault_injection/figures.py

reads benchmarks/results/torture.json (of run.py) and benchmarks/results/blocked.json (of
blocked.py). What stands above the mark in the page is written by hand, and stays.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "fault_injection.md"
RESULTS = ROOT / "benchmarks" / "results"
MARK = "<!-- from here on written by tests/fault_injection/figures.py -->\n"


def page() -> str:
    """The whole page, as the results have it."""
    faults, blocked = (
        json.loads((RESULTS / name).read_text()) for name in ("torture.json", "blocked.json")
    )
    kept = PAGE.read_text(encoding="utf-8").partition(MARK)[0]
    return kept + MARK + "\n" + _figures(faults) + "\n" + _waiting(blocked)


def _figures(found: dict[str, Any]) -> str:
    versions = found["versions"]
    lines = [
        (
            f"{found['trials']:,} trials in {found['minutes']:g} minutes, seed {found['seed']}, "
            f"{found['date']}, torch {versions['torch']}, Python {versions['python']}: "
            f"**{len(found['lost'])} lost**."
        ),
        "",
        f"Trained: {', '.join(found['jobs'])}.",
        "",
        "| kind of trial | how it went | times |",
        "| --- | --- | --- |",
    ]
    for kind, outcomes in found["outcomes"].items():
        for number, (how, times) in enumerate(outcomes.items()):
            lines.append(f"| {kind if number == 0 else ''} | {how} | {times:,} |")
    kills = sum(
        int(how.split()[1]) * times
        for how, times in found["outcomes"].get("kill", {}).items()
        if how.startswith("killed")
    )
    lines += ["", f"Processes killed by the kind `kill`: {kills:,}."]
    lines += [f"Not tried: {kind}, because {why}." for kind, why in found["not_tried"].items()]
    return "\n".join(lines) + "\n"


def _waiting(found: dict[str, Any]) -> str:
    return (
        f"A checkpoint of {found['parameters'] / 1e6:.0f} million parameters and their optimizer's "
        f"state ({found['bytes'] / 1e6:,.0f} MB, {found['device']}): training waits "
        f"{found['blocked_seconds']:g} s for the copy ({found['blocked_first_seconds']:g} s the "
        f"first time, when its memory is new), and {found['written_seconds']:g} s pass until it is "
        "written.\n"
    )


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
