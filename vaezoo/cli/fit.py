"""`vaezoo fit`: fits a sampler to a finished run; its options are those of the sampler."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import click

from vaezoo.cli import options
from vaezoo.cli.output import print_result
from vaezoo.errors import VaezooError
from vaezoo.options import describe
from vaezoo.plugins.registry import registry
from vaezoo.plugins.sources import is_source


class FitCommand(click.Command):
    """A command with the options of the sampler that its line names."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        parser = self.make_parser(ctx)
        parser.ignore_unknown_options = True
        name = parser.parse_args([*args])[0].get("sampler")
        # For completion no file is run, and a wrong name is no error.
        if name and not (ctx.resilient_parsing and is_source(name)):
            quiet = contextlib.suppress(VaezooError) if ctx.resilient_parsing else None
            with quiet or contextlib.nullcontext():
                ctx.meta["vaezoo.sampler"] = registry().resolve("sampler", name)
        return super().parse_args(ctx, args)

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        own, spec = super().get_params(ctx), ctx.meta.get("vaezoo.sampler")
        infos = [] if spec is None else describe(spec.load_options())
        return [*own[:-1], *(options.typed_option(info.name, info) for info in infos), own[-1]]


@click.command(cls=FitCommand)
@options.run_argument
@click.option(
    "--sampler",
    metavar="NAME",
    required=True,
    shell_complete=options.complete_names("sampler"),
    help="The sampler to fit: vaezoo list --kind samplers shows them.",
)
@options.seed_option
@options.device_option
@options.root_option
@click.option("--overwrite", is_flag=True, help="Replace the sampler of this name in the run.")
@options.json_option
def command(
    run: Path,
    sampler: str,
    seed: int,
    device: str,
    root: Path | None,
    overwrite: bool,
    as_json: bool,
    **values: Any,
) -> None:
    """Fit a sampler to the latents of a finished run.

    They are the latents that the model in the folder RUN gives the training split. The weights of
    the model do not change. The sampler is kept in the folder RUN; `vaezoo sample`, `evaluate` and
    `report` take it by --sampler NAME. `vaezoo fit RUN --sampler NAME --help` shows the options of
    that sampler too.
    """
    from vaezoo.runs.run import load_run
    from vaezoo.runtime import listen_to_progress
    from vaezoo.training.progress import Progress

    given = {name: value for name, value in values.items() if value is not None}
    with Progress() as progress, listen_to_progress(progress.update):
        fitted = load_run(run, device, root=root).fit_sampler(
            sampler, seed=seed, overwrite=overwrite, **given
        )
    name = fitted.sampler_name
    record = fitted.sampler_record
    text = f"{run}: fitted {name} to {record['examples']:,} latents in {record['seconds']:.0f} s\n"
    text += f"  vaezoo sample {run} --sampler {name}"
    print_result(as_json, {"run": str(run), "sampler": name, **record}, text)
