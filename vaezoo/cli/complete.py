"""What the shell offers when a name is half typed. Imports no torch, whatever is asked."""

from __future__ import annotations

from pathlib import Path

import click
from click.shell_completion import CompletionItem

from vaezoo.plugins.registry import registry
from vaezoo.plugins.specs import Kind

_RUNS = Path("runs")


def any_name(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Models, losses and data sets."""
    return _names(None, incomplete)


def models(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    return _names("model", incomplete)


def losses(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    return _names("loss", incomplete)


def datasets(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    return _names("dataset", incomplete)


def runs(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Run folders where `train` puts them; any folder where none of them begins so."""
    found = [str(path.parent) for path in sorted(_RUNS.glob("*/config.yaml"))]
    fitting = [CompletionItem(name) for name in found if name.startswith(incomplete)]
    return fitting or [CompletionItem(incomplete, type="dir")]


def _names(kind: Kind | None, incomplete: str) -> list[CompletionItem]:
    """Registered names that begin so; files where a path has been begun."""
    if "/" in incomplete or incomplete.startswith("."):
        return [CompletionItem(incomplete, type="file")]
    found = {spec.name: spec.summary for spec in registry().specs(kind)}
    return [CompletionItem(n, help=s) for n, s in found.items() if n.startswith(incomplete)]
