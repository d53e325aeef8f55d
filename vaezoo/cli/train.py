"""`vaezoo train`: its options are those of the model, the loss and the data set it is given."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from vaezoo.checkpoint.folder import RunFolder
from vaezoo.cli import complete
from vaezoo.cli.output import is_first_process
from vaezoo.config import (
    SECTIONS,
    Components,
    build_config,
    load_config,
    parse_settings,
    resolve_components,
    split_by_section,
)
from vaezoo.data.options import DataOptions
from vaezoo.errors import OptionError, VaezooError
from vaezoo.options import OptionInfo, Options, cli_flag, describe, format_value
from vaezoo.plugins.loader import is_source
from vaezoo.plugins.registry import WORDS, registry
from vaezoo.runs.provenance import load_components
from vaezoo.training.options import TrainOptions

_RESUMABLE = (
    "epochs",
    "steps",
    "patience",
    "device",
    "compile",
    "graph",
    "log",
    "shard",
    "lr",
    "grad_clip",
    "on_nonfinite",
    "checkpoint_seconds",
    "checkpoint_every",
    "keep_checkpoints",
)
"""What may change when a run goes on: how long, where, how often it is saved, and what a run that
broke may need."""

_COMPONENTS, _RECIPE = "vaezoo.components", "vaezoo.recipe"


class TrainCommand(click.Command):
    """A command that looks at the names on its line first, and then knows its options."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        named = _find_names(args)
        if ctx.resilient_parsing:
            _guess(ctx, named)
        else:
            recipe = load_config(Path(named["config"])) if "config" in named else {}
            if "resume" in named:
                folder = RunFolder.existing(Path(named["resume"]))
                recipe = load_config(folder.config)
                ctx.meta[_COMPONENTS] = load_components(folder, recipe)
            elif named.get("model") or recipe.get("model", {}).get("name"):
                ctx.meta[_COMPONENTS] = resolve_components(
                    named.get("model"), named.get("loss"), named.get("data"), recipe
                )
            ctx.meta[_RECIPE] = recipe
        return super().parse_args(ctx, args)

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        own = super().get_params(ctx)
        return [*own[:-1], *(option for _, options in _grouped(ctx) for option in options), own[-1]]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        groups = [("Run", super().get_params(ctx)), *_grouped(ctx)]
        for title, params in groups:
            rows = [row for row in (param.get_help_record(ctx) for param in params) if row]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)


@click.command(cls=TrainCommand, short_help="Train a model and draw what it learned.")
@click.argument("model", required=False, metavar="MODEL", shell_complete=complete.models)
@click.option(
    "--data",
    metavar="NAME",
    shell_complete=complete.datasets,
    help="Data set to train on.  [default: sprites]",
)
@click.option(
    "--loss",
    metavar="NAME",
    shell_complete=complete.losses,
    help="Objective.  [default: the model's own]",
)
@click.option(
    "--config", metavar="FILE", help="Recipe to start from; the command line overrides it."
)
@click.option(
    "--set",
    "settings",
    metavar="SECTION.OPTION=VALUE",
    multiple=True,
    help=f"Any option by its place in a recipe: {', '.join(SECTIONS)}. Repeatable.",
)
@click.option("--out", metavar="DIR", help="The run folder.  [default: runs/MODEL-DATA-001, ...]")
@click.option(
    "--resume",
    metavar="RUN",
    shell_complete=complete.runs,
    help="Go on with a run; of its options only "
    f"{', '.join(map(cli_flag, _RESUMABLE))} may change.",
)
@click.pass_context
def command(
    ctx: click.Context,
    /,
    model: str | None,
    data: str | None,
    loss: str | None,
    config: str | None,
    settings: tuple[str, ...],
    out: str | None,
    resume: str | None,
    **options: Any,
) -> None:
    """Train MODEL and draw what it learned: reconstructions, samples, curves, numbers.

    `vaezoo train MODEL --help` shows the options of that model too.
    """
    recipe = ctx.meta[_RECIPE]
    components = ctx.meta.get(_COMPONENTS) or resolve_components(model, loss, data, recipe)
    flat = {name: value for name, value in options.items() if value is not None}
    given = _layered(parse_settings(settings), split_by_section(components, flat))
    if resume is None:
        parsed = build_config(components, recipe, given)
    else:
        others = {"MODEL": model, "--data": data, "--loss": loss, "--config": config, "--out": out}
        _check_resumable(others, given)
        parsed = build_config(components, recipe, given)

    from vaezoo.cli.progress import make_progress_callback
    from vaezoo.runs.train import resume_run, start_run

    callback = make_progress_callback()
    if resume is None:
        run = start_run(parsed, None if out is None else Path(out), callback)
    else:
        run = resume_run(Path(resume), parsed, callback)
    if is_first_process():
        _tell(run.summary, run.path)


def _tell(summary: Mapping[str, Any], path: Path) -> None:
    """The last lines: what came of it, and where the pictures are."""
    r2 = f"reconstruction R² {_shown(summary['reconstruction_r2'])}"
    if summary["elbo"] is not None:
        click.echo(
            f"held out: ELBO {summary['elbo']:.2f} nats "
            f"(distortion {summary['distortion']:.2f}, rate {summary['rate']:.2f}), {r2}"
        )
    else:
        click.echo(f"held out: {r2}; ELBO: {summary['notes']['elbo']}")
    click.echo(
        f"{summary['steps']:,} steps, {summary['images_per_second']:,.0f} images/s, "
        f"{summary['wall_seconds']:.0f} s"
    )
    pictures = {
        "reconstructions.png": "originals above their reconstructions",
        "samples.png": "drawn from the prior",
        "curves.png": "how it went",
    }
    for name, what in pictures.items():
        if (path / name).exists():
            click.echo(f"  {path / name}  {what}")


def _shown(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3f}"


def _guess(ctx: click.Context, named: Mapping[str, str]) -> None:
    """Find the options of a half-typed line for the shell, as far as that runs no file."""
    model, loss, data = (named.get(word) for word in ("model", "loss", "data"))
    if model and not any(word and is_source(word) for word in (model, loss, data)):
        with contextlib.suppress(VaezooError):
            ctx.meta[_COMPONENTS] = resolve_components(model, loss, data, {})


def _find_names(args: list[str]) -> dict[str, str]:
    """MODEL, --data, --loss, --config and --resume, before the options can be parsed."""
    wanted = ("--data", "--loss", "--config", "--resume", "--set", "--out")
    models = {spec.name for spec in registry().specs("model")}
    found: dict[str, str] = {}
    before = ""
    for arg in args:
        name, equals, value = arg.partition("=")
        if before in wanted:
            found[before[2:]] = arg
            before = ""
            continue
        if name in wanted and equals:
            found[name[2:]] = value
        elif not arg.startswith("-") and (
            not before.startswith("-") or arg in models or is_source(arg)
        ):
            # After an option of the model's, only a name that exists is taken for the model.
            found.setdefault("model", arg)
        before = "" if equals or arg in ("-h", "--help") else arg
    return found


def _grouped(ctx: click.Context) -> list[tuple[str, list[click.Parameter]]]:
    """The options of each section of what was chosen, under its title."""
    components: Components | None = ctx.meta.get(_COMPONENTS)
    if components is None:
        classes: dict[str, type[Options]] = {"Training": TrainOptions, "Data": DataOptions}
        return [
            (title, [_option(info.name, info) for info in describe(cls)])
            for title, cls in classes.items()
        ]
    specs = {"model": components.model, "loss": components.loss, "data": components.data}
    defaults: dict[str, Mapping[str, Any]] = {
        "model": components.model.model_options,
        "data": {},
        "train": {**components.data.train_options, **components.model.train_options},
        "loss": components.loss_defaults(),
    }
    infos = {
        (section, info.name): info
        for section, cls in components.options().items()
        for info in describe(cls)
    }
    groups: dict[str, list[click.Parameter]] = {section: [] for section in SECTIONS}
    for flat, (section, name) in components.flat_names().items():
        default = defaults[section].get(name)
        if flat == "epochs" and "steps" in defaults["train"]:
            default = "none"
        groups[section].append(_option(flat, infos[section, name], default))
    titles = {s: f"{WORDS[spec.kind].capitalize()} {spec.name}" for s, spec in specs.items()}
    titles["train"] = "Training"
    return [(titles[section], groups[section]) for section in ("model", "loss", "data", "train")]


def _option(name: str, info: OptionInfo, default: Any = None) -> click.Parameter:
    """One option as click has it: text, which the typed options read themselves."""
    notes = []
    if not info.required:
        notes.append(f"default: {format_value(info.default if default is None else default)}")
    if info.bounds:
        notes.append(info.bounds)
    tail = f"  [{'; '.join(notes)}]" if notes else ""
    text = info.help[:1].upper() + info.help[1:] + tail
    if info.is_flag:
        on = cli_flag(name)
        return click.Option([f"{on}/--no-{on[2:]}", name], default=None, help=text)
    metavar = "|".join(info.choices) if info.choices else info.type.split(",")[0].upper()
    return click.Option([cli_flag(name), name], default=None, metavar=metavar, help=text)


def _layered(
    below: dict[str, dict[str, Any]], above: dict[str, dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    return {section: {**below[section], **above[section]} for section in SECTIONS}


def _check_resumable(others: Mapping[str, str | None], given: Mapping[str, Any]) -> None:
    changed = [name for name, value in others.items() if value is not None]
    changed += [
        cli_flag(name)
        for section, values in given.items()
        for name in values
        if section != "train" or name not in _RESUMABLE
    ]
    if changed:
        raise OptionError(
            f"{changed[0]} cannot change when a run goes on: only "
            f"{', '.join(map(cli_flag, _RESUMABLE))} can"
        )
