"""`vaezoo check`: checks that a model, a part, a loss or a data set keeps the contract."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import click

from vaezoo.cli import options
from vaezoo.cli.output import print_result
from vaezoo.config import parse_settings
from vaezoo.errors import OptionError, UnknownNameError
from vaezoo.plugins.registry import WORDS
from vaezoo.plugins.specs import PARTS, PLURALS, Spec

if TYPE_CHECKING:
    from vaezoo.testing import Result

_CHECKED = [plural for plural, kind in PLURALS.items() if kind not in ("metric", "logger")]


@click.command()
@click.argument("name", shell_complete=options.complete_names("model", *PARTS, "loss", "dataset"))
@options.kind_option(_CHECKED, "all", "Where to look for the name.")
@options.name_option("--model", "model", "The model to check a loss or a part with.")
@options.part_options(*PARTS, "loss")
@options.name_option("--data", "dataset", "Data to check on.  [default: examples made for it]")
@click.option("--slow", is_flag=True, help="Run the slow checks too: compilation, two processes.")
@options.list_option("--only", click.STRING, None, "Run only these checks.")
@options.set_option("An option by its section, as data.root=DIR. Repeatable.")
@options.json_option
def command(
    name: str,
    kind: str,
    slow: bool,
    only: tuple[str, ...],
    settings: tuple[str, ...],
    as_json: bool,
    **named: str | None,
) -> None:
    """Check that a model, a part, a loss or a data set keeps the contract.

    NAME is a registered name, or a file and a class as in ./my_vae.py:MyVAE. The exit code is 1 if
    a check fails. For each check, the output says what must be true, why it failed and what to do.
    """
    spec = options.resolve_name(name, kind)
    if spec.kind in ("metric", "logger"):
        raise UnknownNameError(f"{name} is a {spec.kind}, which has no contract")
    others = {kind: other for kind, other in named.items() if other is not None}
    if spec.kind in others:
        raise OptionError(f"--{spec.kind}: the {spec.kind} to check is {name}")

    from vaezoo.testing.contract import make_contract

    given = _options(spec, settings, "data" in others)
    contract = make_contract(spec, given, slow=slow, only=only, others=others)
    results: list[Result] = []
    for result in contract.results():
        if not as_json:
            _print(result.after(results))
        results.append(result)
    failed = any(result.status == "failed" for result in results)
    checks = [result.to_dict() for result in results]
    value = {"kind": spec.kind, "name": spec.name, "keeps": not failed, "checks": checks}
    counts = Counter(result.status for result in results)
    summary = ", ".join(f"{count} {status}" for status, count in counts.items())
    verdict = "breaks" if failed else "keeps"
    print_result(as_json, value, f"{spec.name} {verdict} the contract: {summary}")
    if failed:
        raise click.exceptions.Exit(1)


def _options(spec: Spec, settings: tuple[str, ...], with_data: bool) -> dict[str, Any]:
    sections = parse_settings(settings)
    own = ("data",) if spec.kind == "dataset" else ("model", *PARTS, "loss", *["data"] * with_data)
    foreign = [section for section, values in sections.items() if values and section not in own]
    if foreign:
        raise OptionError(
            f"--set {foreign[0]}.: a {WORDS[spec.kind]} is checked with options of "
            f"{', '.join(own[:-1])}{' and ' if own[1:] else ''}{own[-1]} only"
        )
    return {name: value for section in own for name, value in sections[section].items()}


def _print(result: Result) -> None:
    click.echo(f"{result.check:16}{result.status:18}{result.what}")
    for label, words in (("why", result.reason), ("hint", result.hint)):
        if words:
            click.echo(f"{'':34}{label}: {words}")
    if result.details:
        click.echo("\n" + result.details)
