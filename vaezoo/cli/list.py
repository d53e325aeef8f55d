"""`vaezoo list`: the registered names of one kind, or of all. Imports no torch."""

from __future__ import annotations

from typing import Any

import click

from vaezoo.cli import options
from vaezoo.cli.output import print_json, print_table
from vaezoo.plugins.registry import PLURALS, WORDS, Registry, registry
from vaezoo.plugins.specs import Spec


@click.command("list")
@options.kind_option(list(PLURALS), "models", "What to list.")
@options.json_option
def command(kind: str, as_json: bool) -> None:
    """List the models, losses, data sets, metrics and loggers."""
    known = registry()
    specs = known.specs(PLURALS.get(kind))
    if as_json:
        print_json([_entry(known, spec) for spec in specs])
    elif not specs:
        word = "data sets" if kind == "datasets" else kind
        print(f"there are no {word} (vaezoo plugins shows what was loaded)")
    else:
        headings = ["name", "kind", "summary", "paper", "plugin"]
        columns = headings if kind == "all" else [name for name in headings if name != "kind"]
        entries = [{**_entry(known, spec), "kind": WORDS[spec.kind]} for spec in specs]
        print_table(columns, [[entry[column] for column in columns] for entry in entries])


def _entry(known: Registry, spec: Spec) -> dict[str, Any]:
    return {
        "kind": spec.kind,
        "name": spec.name,
        "summary": spec.summary,
        "paper": spec.paper,
        "plugin": known.plugin(spec).name,
        "tags": list(spec.tags),
    }
