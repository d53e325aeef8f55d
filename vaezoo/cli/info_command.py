"""`vaezoo info NAME`: everything about one registered name, of whatever kind. Imports no torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import click

from vaezoo.cli.complete import any_name
from vaezoo.cli.output import print_json, print_table
from vaezoo.cli.shared import json_option
from vaezoo.errors import UnknownNameError
from vaezoo.options import OptionInfo, cli_flag, describe, format_value, plain
from vaezoo.plugins.registry import PLURALS, WORDS, Registry, registry
from vaezoo.plugins.specs import (
    CAPABILITIES,
    METRIC_COMPARABLE_KEYS,
    METRIC_GROUPS,
    METRIC_REQUIRES,
    DatasetSpec,
    LossSpec,
    MetricSpec,
    ModelSpec,
    Spec,
)


@click.command("info")
@click.argument("name", shell_complete=any_name)
@click.option(
    "--kind",
    type=click.Choice([*PLURALS, "all"]),
    default="all",
    show_default=True,
    help="Where to look for the name.",
)
@json_option
def command(name: str, kind: str, as_json: bool) -> None:
    """Show everything about one of them."""
    known = registry()
    specs = known.find(name) if kind == "all" else [known.get(PLURALS[kind], name)]
    if as_json:
        if len(specs) > 1:
            kinds = " and ".join(f"a {WORDS[spec.kind]}" for spec in specs)
            raise UnknownNameError(f"{name!r} is {kinds}: choose with --kind")
        print_json(_entry(known, specs[0]))
        return
    entries = [(spec, _entry(known, spec)) for spec in specs]
    for number, (spec, entry) in enumerate(entries):
        if number:
            print()
        _print(spec, entry)


def _entry(known: Registry, spec: Spec) -> dict[str, Any]:
    """One schema for all kinds: what a kind does not have is null."""
    record = known.plugin(spec)
    return {
        "kind": spec.kind,
        "name": spec.name,
        "summary": spec.summary,
        "paper": spec.paper,
        "tags": list(spec.tags),
        "capabilities": {tag: CAPABILITIES[tag] for tag in spec.tags if tag in CAPABILITIES},
        "base": spec.base if isinstance(spec, ModelSpec) else None,
        "options": [info.to_dict() for info in _options(spec)],
        "input_spec": _takes(spec) if isinstance(spec, ModelSpec) else None,
        "loss": _loss(known, spec) if isinstance(spec, ModelSpec) else None,
        "requires": list(spec.requires) if isinstance(spec, (LossSpec, MetricSpec)) else None,
        "metric": _metric(spec) if isinstance(spec, MetricSpec) else None,
        "train_options": plain(spec.train_options)
        if isinstance(spec, (ModelSpec, DatasetSpec))
        else None,
        "plugin": record.name,
        "distribution": record.distribution,
        "version": record.version,
        "target": spec.target,
        "api_version": spec.api_version,
    }


def _options(spec: Spec) -> list[OptionInfo]:
    """The options with the defaults that this entry gives them."""
    own = spec.model_options if isinstance(spec, ModelSpec) else {}
    return _with_defaults(describe(spec.load_options()), own)


def _with_defaults(infos: list[OptionInfo], own: Mapping[str, Any]) -> list[OptionInfo]:
    return [dataclasses.replace(info, default=own.get(info.name, info.default)) for info in infos]


def _takes(spec: ModelSpec) -> dict[str, Any]:
    takes = {key: plain(value) for key, value in dataclasses.asdict(spec.input_spec).items()}
    return {"description": spec.input_spec.describe(), **takes}


def _metric(spec: MetricSpec) -> dict[str, Any]:
    return {
        "formula": spec.formula,
        "unit": spec.unit,
        "direction": spec.direction,
        "group": spec.group,
        "comparable_keys": list(spec.comparable_keys),
        "cost": spec.cost,
        "default": spec.default,
        "extra": spec.extra,
    }


def _loss(known: Registry, spec: ModelSpec) -> dict[str, Any]:
    """The default loss, its options' defaults as this model sets them; null if not installed."""
    try:
        options = _options(known.loss(spec.loss_name))
    except UnknownNameError:
        return {"name": spec.loss_name, "options": None}
    changed = _with_defaults(options, spec.loss_options)
    return {"name": spec.loss_name, "options": [info.to_dict() for info in changed]}


def _print(spec: Spec, entry: dict[str, Any]) -> None:
    facts = [("paper", entry["paper"] or "none named")]
    if entry["input_spec"]:
        facts.append(("input_spec", entry["input_spec"]["description"]))
    if entry["base"]:
        facts.append(("variant of", entry["base"]))
    if entry["loss"]:
        gone = "" if entry["loss"]["options"] is not None else " (not installed)"
        facts.append(("loss", entry["loss"]["name"] + gone))
    if isinstance(spec, MetricSpec):
        facts += _facts_of_metric(spec)
    elif entry["requires"]:
        facts.append(("requires", "a model with the tag " + " and ".join(entry["requires"])))
    if entry["train_options"]:
        settings = [
            f"{cli_flag(key)} {format_value(v)}" for key, v in entry["train_options"].items()
        ]
        facts.append(("trains with", " ".join(settings)))
    facts.append(("plugin", f"{entry['plugin']}, of {entry['distribution']} {entry['version']}"))
    facts.append(("class", entry["target"]))
    capable = entry["capabilities"]
    facts += [("tag", f"{tag}: {capable[tag]}" if tag in capable else tag) for tag in spec.tags]

    print_table((f"{WORDS[spec.kind]} {spec.name}", spec.summary), facts)
    _print_options("options", entry["options"])
    if entry["loss"] and entry["loss"]["options"]:
        _print_options(f"options of its loss, {entry['loss']['name']}", entry["loss"]["options"])


def _facts_of_metric(spec: MetricSpec) -> list[tuple[str, str]]:
    better = (
        "neither way is better" if spec.direction == "neither" else f"{spec.direction} is better"
    )
    return [
        ("formula", spec.formula),
        ("unit", spec.unit or "a bare number"),
        ("direction", better),
        ("group", f"{spec.group}: {METRIC_GROUPS[spec.group]}"),
        *(("not where", METRIC_REQUIRES[need]) for need in spec.requires),
        *(("ranked by same", METRIC_COMPARABLE_KEYS[word]) for word in spec.comparable_keys),
        ("cost", spec.cost),
        ("measured", "always" if spec.default else f"with --metric {spec.name}"),
        *((("installed by", f"vaezoo[{spec.extra}]"),) if spec.extra else ()),
    ]


def _print_options(title: str, options: list[dict[str, Any]]) -> None:
    print(f"\n{title}" + ("" if options else ": none"))
    if options:
        print_table(("option", "type", "default", "meaning"), [_row(o) for o in options], indent=2)


def _row(option: dict[str, Any]) -> tuple[str, ...]:
    space = ", " if option["bounds"].startswith("each") else " "
    kind = ", ".join(option["choices"]) or space.join(
        filter(None, (option["type"], option["bounds"]))
    )
    default = "required" if option["required"] else format_value(option["default"])
    return cli_flag(option["name"]), kind, default, option["help"]
