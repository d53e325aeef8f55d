"""`vaezoo check NAME`: checks that a model, loss or data set keeps the contract."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import click

from vaezoo.cli import options
from vaezoo.cli.output import print_json
from vaezoo.config import parse_settings
from vaezoo.errors import OptionError, UnknownNameError
from vaezoo.plugins.registry import PLURALS, WORDS, registry
from vaezoo.plugins.specs import Spec

if TYPE_CHECKING:
    from vaezoo.testing import Result


@click.command(short_help="Check that a model, loss or data set keeps the contract.")
@click.argument("name", shell_complete=options.complete_names("model", "loss", "dataset"))
@options.kind_option(["models", "losses", "datasets"], "all", "Where to look for the name.")
@click.option("--slow", is_flag=True, help="Run the slow checks too: compilation, two processes.")
@options.list_option("--only", click.STRING, None, "Run only these checks.")
@options.set_option("Option of the model, its loss or the data set, as data.root=DIR. Repeatable.")
@options.json_option
def command(
    name: str,
    kind: str,
    slow: bool,
    only: tuple[str, ...],
    settings: tuple[str, ...],
    as_json: bool,
) -> None:
    """Check that a model, loss or data set keeps the contract.

    NAME is a registered name, or a file and a class as in ./my_vae.py:MyVAE. The exit code is 1 if
    a check fails. For each check, the output says what must be true, why it failed and what to do.
    """
    spec = _spec(name, kind)
    options = _options(spec, settings)

    from vaezoo.testing.contract import make_contract

    contract = make_contract(spec, options, slow=slow, only=only)
    results = []
    for result in contract.results():
        results.append(result)
        if not as_json:
            _print(result)
    failed = any(result.status == "failed" for result in results)
    if as_json:
        checks = [result.to_dict() for result in results]
        print_json({"kind": spec.kind, "name": spec.name, "keeps": not failed, "checks": checks})
    else:
        counts = Counter(result.status for result in results)
        summary = ", ".join(f"{count} {status}" for status, count in counts.items())
        click.echo(f"{spec.name} {'breaks' if failed else 'keeps'} the contract: {summary}")
    if failed:
        raise click.exceptions.Exit(1)


def _spec(name: str, kind: str) -> Spec:
    if kind != "all":
        return registry().resolve(PLURALS[kind], name)
    specs = registry().find(name)
    if len(specs) > 1:
        kinds = " and ".join(f"a {WORDS[spec.kind]}" for spec in specs)
        raise UnknownNameError(f"{name!r} is {kinds}: choose with --kind, or name one class")
    if specs[0].kind in ("metric", "logger"):
        raise UnknownNameError(f"{name} is a {specs[0].kind}, which has no contract")
    return specs[0]


def _options(spec: Spec, settings: tuple[str, ...]) -> dict[str, Any]:
    sections = parse_settings(settings)
    own = ("data",) if spec.kind == "dataset" else ("model", "loss")
    foreign = [section for section, values in sections.items() if values and section not in own]
    if foreign:
        raise OptionError(
            f"--set {foreign[0]}.: a {WORDS[spec.kind]} is checked with options of "
            f"{' and '.join(own)} only"
        )
    return {name: value for section in own for name, value in sections[section].items()}


def _print(result: Result) -> None:
    click.echo(f"{result.check:16}{result.status:18}{result.what}")
    for label, words in (("why", result.reason), ("hint", result.hint)):
        if words:
            click.echo(f"{'':34}{label}: {words}")
    if result.details:
        click.echo("\n" + result.details)
