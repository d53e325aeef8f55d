"""`vaezoo list`: what there is, by name. Imports no torch."""

from __future__ import annotations

from typing import Any

import click

from vaezoo.cli.output import print_json, print_table
from vaezoo.cli.shared import json_option
from vaezoo.plugins.registry import PLURALS, WORDS, Registry, registry
from vaezoo.plugins.specs import Spec


@click.command("list")
@click.option(
    "--kind",
    type=click.Choice([*PLURALS, "all"]),
    default="models",
    show_default=True,
    help="What to list.",
)
@json_option
def command(kind: str, as_json: bool) -> None:
    """List the models, losses, data sets, metrics and writers."""
    known = registry()
    specs = known.specs(PLURALS.get(kind))
    if as_json:
        print_json([_entry(known, spec) for spec in specs])
    elif specs:
        _print(known, specs, kind)
    else:
        word = "data sets" if kind == "datasets" else kind
        print(f"there are no {word} (vaezoo plugins shows what was loaded)")


def _entry(known: Registry, spec: Spec) -> dict[str, Any]:
    return {
        "kind": spec.kind,
        "name": spec.name,
        "summary": spec.summary,
        "paper": spec.paper,
        "plugin": known.plugin(spec).name,
        "tags": list(spec.tags),
    }


def _print(known: Registry, specs: list[Spec], kind: str) -> None:
    headings = ["name", "summary", "paper", "plugin"]
    rows = [[s.name, s.summary, s.paper, known.plugin(s).name] for s in specs]
    if kind == "all":
        headings.insert(1, "kind")
        for row, spec in zip(rows, specs, strict=True):
            row.insert(1, WORDS[spec.kind])
    print_table(headings, rows)
