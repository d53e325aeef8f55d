"""`vaezoo plugins`: which plugins were loaded or failed, and why. Imports no torch."""

from __future__ import annotations

from typing import Any

import click

from vaezoo.cli import options
from vaezoo.cli.output import print_json, print_table
from vaezoo.plugins.loader import PluginRecord
from vaezoo.plugins.registry import PLURALS, registry


@click.command("plugins")
@options.json_option
@click.option("--verbose", "-v", is_flag=True, help="Show tracebacks.")
def command(as_json: bool, verbose: bool) -> None:
    """Show which plugins were loaded and which failed."""
    records = registry().records
    if as_json:
        print_json([_entry(record) for record in records])
        return
    headings = ("plugin", "status", "distribution", "brings", "from")
    print_table(headings, [_row(record) for record in records])
    for record in records:
        if record.error:
            print(f"\n{record.name} ({record.source}) failed: {record.error}")
            if verbose:
                print("\n" + record.details.rstrip())


def _entry(record: PluginRecord) -> dict[str, Any]:
    return {
        "name": record.name,
        "status": record.status,
        "distribution": record.distribution,
        "version": record.version,
        "module": record.module,
        "location": record.location,
        **_brings(record),
        "error": record.error or None,
        "details": record.details or None,
    }


def _brings(record: PluginRecord) -> dict[str, list[str]]:
    return {
        plural: sorted(spec.name for spec in record.specs if spec.kind == kind)
        for plural, kind in PLURALS.items()
    }


def _row(record: PluginRecord) -> tuple[str, ...]:
    brings = "; ".join(
        f"{plural.replace('datasets', 'data sets')}: {', '.join(names)}"
        for plural, names in _brings(record).items()
        if names
    )
    origin = record.location or record.module
    return record.name, record.status, record.source, brings or "nothing", origin
