"""`vaezoo info`: everything about one name. Imports no torch."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping
from typing import Any

import click

from vaezoo.cli import options
from vaezoo.cli.output import print_json, print_table
from vaezoo.cli.registered import summary_of
from vaezoo.config import default_part
from vaezoo.errors import UnknownNameError, VaezooError
from vaezoo.options import cli_flag, describe, format_value, plain
from vaezoo.plugins.registry import WORDS, Registry, registry
from vaezoo.plugins.specs import (
    CAPABILITIES,
    METRIC_COMPARABLE_KEYS,
    METRIC_GROUPS,
    METRIC_REQUIRES,
    PLURALS,
    DatasetSpec,
    LikelihoodSpec,
    MetricSpec,
    ModelSpec,
    NetworkSpec,
    Spec,
)

_METRIC_FIELDS = (
    *("formula", "unit", "direction", "group"),
    *("comparable_keys", "cost", "default", "extra"),
)


_REQUIRES = {
    "loss": "a model with the tag ",
    "bottleneck": "a network with the tag ",
    "sampler": "latents that are ",
}


@click.command("info")
@click.argument("name", shell_complete=options.complete_names())
@options.kind_option(list(PLURALS), "all", "Where to look for the name.")
@options.json_option
def command(name: str, kind: str, as_json: bool) -> None:
    """Show everything about one of them."""
    known = registry()
    if as_json:
        print_json(_entry(known, options.resolve_name(name, kind)))
        return
    specs = known.find(name) if kind == "all" else [known.get(PLURALS[kind], name)]
    for number, spec in enumerate(specs):
        if number:
            print()
        _print(spec, _entry(known, spec))


def _entry(known: Registry, spec: Spec) -> dict[str, Any]:
    """The same keys for every kind; null for what a kind does not have."""
    record = known.plugin(spec)
    model = spec if isinstance(spec, ModelSpec) else None
    metric = spec if isinstance(spec, MetricSpec) else None
    takes = spec.input_spec if isinstance(spec, (ModelSpec, NetworkSpec)) else None
    return {
        **summary_of(known, spec),
        "capabilities": {tag: CAPABILITIES[tag] for tag in spec.tags if tag in CAPABILITIES},
        "base": model.base if model else None,
        "options": _options(spec, model.model_options if model else {}),
        "parts": _parts(known, model) if model else None,
        "input_spec": {"description": takes.describe(), **plain(dataclasses.asdict(takes))}
        if takes
        else None,
        "loss": _loss(known, model) if model else None,
        "requires": list(spec.requires) if hasattr(spec, "requires") else None,
        "domains": list(spec.domains) if isinstance(spec, LikelihoodSpec) else None,
        "metric": {key: plain(getattr(metric, key)) for key in _METRIC_FIELDS} if metric else None,
        "train_options": plain(spec.train_options)
        if isinstance(spec, (ModelSpec, DatasetSpec))
        else None,
        "shape": list(spec.shape or ()) or None if isinstance(spec, DatasetSpec) else None,
        "files": (spec.files or None) if isinstance(spec, DatasetSpec) else None,
        "distribution": record.distribution,
        "version": record.version,
        "target": spec.target,
        "api_version": spec.api_version,
    }


def _options(spec: Spec, defaults: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The options of a spec. defaults: those that differ from the option class."""
    return [
        dataclasses.replace(info, default=defaults.get(info.name, info.default)).to_dict()
        for info in describe(spec.load_options())
    ]


def _parts(known: Registry, model: ModelSpec) -> dict[str, Any]:
    """The default part of each kind with its options; no options if it is not installed."""
    found: dict[str, Any] = {}
    for kind in model.parts:
        options, name = None, model.parts[kind]
        with contextlib.suppress(VaezooError):
            if part := default_part(model, kind):
                options, name = _options(part, model.part_options.get(kind, {})), part.name
        found[kind] = {"name": name, "options": options}
    return found


def _loss(known: Registry, model: ModelSpec) -> dict[str, Any]:
    """The default loss with the defaults that the model gives it; no options if not installed."""
    options = None
    with contextlib.suppress(UnknownNameError):
        options = _options(known.get("loss", model.loss_name), model.loss_options)
    return {"name": model.loss_name, "options": options}


def _print(spec: Spec, entry: dict[str, Any]) -> None:
    rows = [("paper", entry["paper"] or "none named")]
    if entry["shape"]:
        rows.append(("shape", "×".join(map(str, entry["shape"]))))
    if entry["files"]:
        rows.append(("files", entry["files"]))
    if entry["input_spec"]:
        rows.append(("input", entry["input_spec"]["description"]))
    if entry["base"]:
        rows.append(("base", entry["base"]))
    for kind, part in (entry["parts"] or {}).items():
        rows.append((kind, part["name"] + (" (not installed)" if part["options"] is None else "")))
    loss = entry["loss"]
    if loss:
        missing = " (not installed)" if loss["options"] is None else ""
        rows.append(("loss", loss["name"] + missing))
    if isinstance(spec, MetricSpec):
        rows += _metric_rows(spec)
    elif entry["requires"]:
        rows.append(("requires", _REQUIRES[spec.kind] + " and ".join(entry["requires"])))
    if entry["domains"]:
        rows.append(("data", " or ".join(entry["domains"]) + " values"))
    if entry["train_options"]:
        changed = entry["train_options"].items()
        rows.append(("training", " ".join(f"{cli_flag(k)} {format_value(v)}" for k, v in changed)))
    rows.append(("plugin", f"{entry['plugin']}, of {entry['distribution']} {entry['version']}"))
    rows.append(("class", entry["target"]))
    known = entry["capabilities"]
    rows += [("tag", f"{tag}: {known[tag]}" if tag in known else tag) for tag in spec.tags]

    print_table((f"{WORDS[spec.kind]} {spec.name}", spec.summary), rows)
    _print_options("options", entry["options"])
    for kind, part in (entry["parts"] or {}).items():
        if part["options"]:
            _print_options(f"options of its {kind}, {part['name']}", part["options"])
    if loss and loss["options"]:
        _print_options(f"options of its loss, {loss['name']}", loss["options"])


def _metric_rows(spec: MetricSpec) -> list[tuple[str, str]]:
    neither = spec.direction == "neither"
    return [
        ("formula", spec.formula),
        ("unit", spec.unit or "none"),
        ("direction", "no direction is better" if neither else f"{spec.direction} is better"),
        ("group", f"{spec.group}: {METRIC_GROUPS[spec.group]}"),
        *(("unavailable if", METRIC_REQUIRES[word]) for word in spec.requires),
        *(("ranked by same", METRIC_COMPARABLE_KEYS[word]) for word in spec.comparable_keys),
        ("cost", spec.cost),
        ("measured", "by default" if spec.default else f"with --metric {spec.name}"),
        *((("needs", f"pip install 'vaezoo[{spec.extra}]'"),) if spec.extra else ()),
    ]


def _print_options(title: str, options: list[dict[str, Any]]) -> None:
    print(f"\n{title}" + ("" if options else ": none"))
    if options:
        print_table(("option", "type", "default", "meaning"), map(_option_row, options), indent=2)


def _option_row(option: dict[str, Any]) -> tuple[str, ...]:
    separator = ", " if option["bounds"].startswith("each") else " "
    values = ", ".join(option["choices"]) or separator.join(
        filter(None, (option["type"], option["bounds"]))
    )
    default = "required" if option["required"] else format_value(option["default"])
    return cli_flag(option["name"]), values, default, option["help"]
