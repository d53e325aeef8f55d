"""`vaezoo list` and `plugins`: what is registered, and from where. No torch, no pydantic."""

from __future__ import annotations

from typing import Any, cast

import click

from vaezoo.cli import options
from vaezoo.cli.output import print_json, print_table
from vaezoo.plugins.loader import PluginRecord
from vaezoo.plugins.registry import WORDS, Registry, registry
from vaezoo.plugins.specs import (
    PLURALS,
    ModelSpec,
    Spec,
)

_PLUGIN_FIELDS = ("name", "status", "distribution", "version", "module", "location")


@click.command("list")
@options.kind_option(list(PLURALS), "models", "What to list.")
@options.name_option("--compatible", "model", "Show which parts MODEL can be made of instead.")
@options.json_option
def list_command(kind: str, compatible: str | None, as_json: bool) -> None:
    """List the models, or what else is registered: their parts, losses, data sets, metrics, ..."""
    known = registry()
    if compatible is not None:
        _list_compatible(cast(ModelSpec, known.get("model", compatible)), as_json)
        return
    specs = known.specs(PLURALS.get(kind))
    if as_json:
        print_json([summary_of(known, spec) for spec in specs])
    elif not specs:
        word = "data sets" if kind == "datasets" else kind
        print(f"there are no {word} (vaezoo plugins shows what was loaded)")
    else:
        headings = ["name", "kind", "summary", "paper", "plugin"]
        columns = headings if kind == "all" else [name for name in headings if name != "kind"]
        entries = [{**summary_of(known, spec), "kind": WORDS[spec.kind]} for spec in specs]
        print_table(columns, [[entry[column] for column in columns] for entry in entries])


def _list_compatible(model: ModelSpec, as_json: bool) -> None:
    """Each part, and why the model cannot be made of it. It trains each of them for two steps."""
    from vaezoo.testing.combinations import combinations

    found: list[dict[str, Any]] = [
        {"kind": part.kind, "name": part.name, "fits": not reason, "reason": reason}
        for _, part, reason in combinations(model)
    ]
    if as_json:
        print_json(found)
    else:
        rows = [(str(row["kind"]), str(row["name"]), row["reason"] or "fits") for row in found]
        print_table(("kind", "name", f"in model {model.name}"), rows)


def summary_of(known: Registry, spec: Spec) -> dict[str, Any]:
    """What the JSON of `list` and of `info` says of a name."""
    return {
        "kind": spec.kind,
        "name": spec.name,
        "summary": spec.summary,
        "paper": spec.paper,
        "plugin": known.plugin(spec).name,
        "tags": list(spec.tags),
    }


@click.command("plugins")
@options.json_option
@click.option("--verbose", "-v", is_flag=True, help="Show tracebacks.")
def plugins_command(as_json: bool, verbose: bool) -> None:
    """Show which plugins were loaded and which failed."""
    records = registry().records
    if as_json:
        print_json([_plugin_entry(record) for record in records])
        return
    headings = ("plugin", "status", "distribution", "brings", "from")
    print_table(headings, [_plugin_row(record) for record in records])
    for record in records:
        if record.error:
            print(f"\n{record.name} ({record.source}) failed: {record.error}")
            if verbose:
                print("\n" + record.details.rstrip())


def _plugin_entry(record: PluginRecord) -> dict[str, Any]:
    return {
        **{key: getattr(record, key) for key in _PLUGIN_FIELDS},
        **_plugin_brings(record),
        "error": record.error or None,
        "details": record.details or None,
    }


def _plugin_brings(record: PluginRecord) -> dict[str, list[str]]:
    return {
        plural: sorted(spec.name for spec in record.specs if spec.kind == kind)
        for plural, kind in PLURALS.items()
    }


def _plugin_row(record: PluginRecord) -> tuple[str, ...]:
    brings = "; ".join(
        f"{plural.replace('datasets', 'data sets')}: {', '.join(names)}"
        for plural, names in _plugin_brings(record).items()
        if names
    )
    origin = record.location or record.module
    return record.name, record.status, record.source, brings or "nothing", origin
