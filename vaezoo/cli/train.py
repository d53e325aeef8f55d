"""`vaezoo train`: its options are those of the model, its parts, the loss and the data set."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from vaezoo.checkpoint.folder import RunFolder
from vaezoo.cli import options
from vaezoo.config import (
    RESUMABLE,
    SECTIONS,
    Components,
    Sections,
    build_config,
    check_resumable,
    default_datasets,
    load_config,
    merge_layers,
    parse_settings,
    resolve_components,
    split_by_section,
    title,
)
from vaezoo.data.options import DataOptions
from vaezoo.data.spec import DataSpec
from vaezoo.errors import OptionError, VaezooError
from vaezoo.options import Options, cli_flag, describe
from vaezoo.plugins.registry import WORDS, registry
from vaezoo.plugins.sources import is_source
from vaezoo.plugins.specs import PARTS
from vaezoo.runs.provenance import load_components
from vaezoo.runtime import is_rank0
from vaezoo.training.options import TrainOptions

_COMPONENTS, _CONFIG, _RUN = "vaezoo.components", "vaezoo.config", "vaezoo.run"
"""Keys of the click context: what the line names, the content of the config file, and the
configuration of the run to resume."""


class TrainCommand(click.Command):
    """A command with the options of the model, parts, loss and data set that its line names."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        model, own = self._find_names(ctx, args)
        names = {"model": model, **{s: own.get(s) for s in (*PARTS, "loss", "data")}}
        config: Sections = {}
        if ctx.resilient_parsing:  # completion: a file is not run for it
            if model and not any(name and is_source(name) for name in names.values()):
                with contextlib.suppress(VaezooError):
                    ctx.meta[_COMPONENTS] = resolve_components(names, config)
        else:
            config = load_config(Path(own["config"])) if "config" in own else {}
            if "resume" in own:
                for name in names.values():
                    if name and is_source(name):  # the run may need a file that the line names
                        registry().add(name)
                folder = RunFolder.existing(Path(own["resume"]))
                components, saved = load_components(folder, with_data=True)
                ctx.meta[_RUN] = build_config(components, saved, {})
                config = {s: _merge_sections(saved.get(s, {}), config.get(s, {})) for s in SECTIONS}
            if model or config.get("model", {}).get("name"):
                ctx.meta[_COMPONENTS] = resolve_components(names, config)
        ctx.meta[_CONFIG] = config
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            owners = _owners_of(error.option_name) if _COMPONENTS in ctx.meta else ""
            if owners:
                line = " and ".join(map(title, ctx.meta[_COMPONENTS].specs().values()))
                raise OptionError(
                    f"{error.option_name} is an option of {owners}, and this is for {line}"
                ) from None
            raise
        except click.UsageError as error:
            for spec in registry().specs():
                if spec.kind in ("model", "metric", "logger"):
                    continue
                if f"extra argument ({spec.name})" in error.format_message():
                    flag = f"--{spec.kind.removesuffix('set')} {spec.name}"
                    raise OptionError(f"{title(spec)} is given as {flag}") from None
            raise

    def _find_names(self, ctx: click.Context, args: list[str]) -> tuple[str | None, dict[str, Any]]:
        """MODEL and the options that are known already, before those of the model are."""
        parser = self.make_parser(ctx)
        parser.ignore_unknown_options = True
        own, rest, _ = parser.parse_args([*args])
        words = [word for word in (own.pop("model", None), *rest) if isinstance(word, str)]
        models = {spec.name for spec in registry().specs("model")}
        for before, word in itertools.pairwise(["", *words]):
            # After an unknown option, a word is its value, unless it names a model.
            value = before.startswith("-") and "=" not in before
            if not word.startswith("-") and (not value or word in models or is_source(word)):
                return word, own
        return None, own

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        own = super().get_params(ctx)
        return [*own[:-1], *(option for _, options in _grouped(ctx) for option in options), own[-1]]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for heading, params in [("Run", super().get_params(ctx)), *_grouped(ctx)]:
            rows = [row for row in (param.get_help_record(ctx) for param in params) if row]
            if rows:
                with formatter.section(heading):
                    formatter.write_dl(rows)


@click.command(cls=TrainCommand)
@click.argument(
    "model", required=False, metavar="MODEL", shell_complete=options.complete_names("model")
)
@options.name_option(
    "--data",
    "dataset",
    f"Data set to train on.  [default: {' or '.join(default_datasets()) or 'none'}]",
)
@options.part_options(*PARTS, "loss")
@click.option(
    "--config", metavar="FILE", help="Config file to start from; the command line overrides it."
)
@options.set_option(
    f"An option by its section in a config file: {', '.join(SECTIONS)}. Repeatable."
)
@click.option("--out", metavar="DIR", help="The run folder.  [default: runs/MODEL-DATA-001, ...]")
@click.option(
    "--resume",
    metavar="RUN",
    shell_complete=options.complete_runs,
    help=f"Resume a run. Only these options may change: {', '.join(map(cli_flag, RESUMABLE))}.",
)
@click.option(
    "--auto-resume",
    is_flag=True,
    help="Resume the run at --out if it has begun, and do nothing if it has finished, so that the "
    "same line can be run again.",
)
@click.pass_context
def command(
    ctx: click.Context,
    /,
    model: str | None,
    data: str | None,
    config: str | None,
    settings: tuple[str, ...],
    out: str | None,
    resume: str | None,
    auto_resume: bool,
    **values: Any,
) -> None:
    """Train MODEL and draw what it learned: reconstructions, samples, curves, numbers.

    `vaezoo train MODEL --help` shows the options of that model too.
    """
    below: Sections = ctx.meta[_CONFIG]
    names = {"model": model, "data": data, **{s: values.pop(s) for s in (*PARTS, "loss")}}
    components = ctx.meta.get(_COMPONENTS) or resolve_components(names, below)
    named = {name: value for name, value in values.items() if value is not None}
    layers = parse_settings(settings), split_by_section(components, named)
    given = {section: {**layers[0][section], **layers[1][section]} for section in SECTIONS}
    parsed = build_config(components, below, given)
    if resume is not None:
        if auto_resume:
            raise OptionError("give --resume RUN or --auto-resume, not both")
        if out is not None and Path(out).resolve() != Path(resume).resolve():
            raise OptionError(f"--out {out}: a resumed run stays where it is, in {resume}")
        check_resumable(ctx.meta[_RUN], parsed)

    from vaezoo.runs.train import resume_run, start_run
    from vaezoo.training.progress import make_progress_callback

    with contextlib.closing(make_progress_callback()) as progress:
        if resume is None:
            folder = None if out is None else Path(out)
            run = start_run(parsed, folder, progress, auto_resume=auto_resume)
        else:
            run = resume_run(Path(resume), parsed, progress)
    if is_rank0():
        _print_summary(run.summary, run.path, run.data_spec)


def _merge_sections(saved: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """A section of a run's configuration with that of a config file over it."""
    same = given.get("name", saved.get("name")) == saved.get("name")
    return merge_layers([saved if same else {}, given])


def _owners_of(flag: str) -> str:
    """The models, parts, losses and data sets that have an option, at most three."""
    name, owners = flag.strip("-").replace("-", "_"), []
    for spec in registry().specs():
        with contextlib.suppress(VaezooError):  # its module cannot be imported
            if spec.kind not in ("metric", "logger") and spec.options:
                owners += [title(spec)] if name in spec.load_options().model_fields else []
    more = " and others" if len(owners) > 3 else ""
    return ", ".join(owners[:3]) + more


def _print_summary(summary: Mapping[str, Any], path: Path, data: DataSpec) -> None:
    """Print the results of a run, and where its pictures are."""
    from vaezoo.evaluation.pictures import describe_picture

    found = summary["reconstruction_r2"]
    r2 = f"reconstruction R² {'unknown' if found is None else f'{found:.3f}'}"
    if summary["elbo"] is not None:
        elbo = "ELBO {elbo:.2f} nats (distortion {distortion:.2f}, rate {rate:.2f})"
        click.echo(f"held out: {elbo.format(**summary)}, {r2}")
    else:
        click.echo(f"held out: {r2}; ELBO: {summary['notes']['elbo']}")
    for finding in summary.get("findings", ()):
        click.echo(f"note: {finding['message']}")
    speed = "{steps:,} steps, {images_per_second:,.0f} images/s, {wall_seconds:.0f} s"
    click.echo(speed.format(**summary))
    pictures = {
        "reconstructions.png": "originals and their reconstructions",
        "samples.png": "samples from the prior",
        "curves.png": "the terms of the loss by step",
    }
    for name, what in pictures.items():
        if (path / name).exists():
            click.echo(f"  {path / name}  {what}")
    if text := describe_picture(data):
        click.echo(f"  in pictures, {text}")


def _grouped(ctx: click.Context) -> list[tuple[str, list[click.Parameter]]]:
    """The options of each section under its title; training and data only if no model is known."""
    components: Components | None = ctx.meta.get(_COMPONENTS)
    if components is None:
        classes: list[tuple[str, type[Options]]] = [
            ("Training", TrainOptions),
            ("Data", DataOptions),
        ]
        return [
            (title, [options.typed_option(o.name, o) for o in describe(cls)])
            for title, cls in classes
        ]
    infos = {
        (section, info.name): info
        for section, cls in components.options().items()
        for info in describe(cls)
    }
    defaults = components.defaults()
    groups: dict[str, list[click.Parameter]] = {section: [] for section in SECTIONS}
    for flat, (section, name) in components.flat_names().items():
        groups[section].append(
            options.typed_option(flat, infos[section, name], defaults[section].get(name))
        )
    specs = components.specs().items()
    titled = [(f"{WORDS[spec.kind].capitalize()} {spec.name}", s) for s, spec in specs]
    return [(title, groups[section]) for title, section in [*titled, ("Training", "train")]]
