"""`vaezoo bench`: measures the speed of models on this machine."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from vaezoo.bench.job import MODES, Case, Job, Mode, Row, run_job
from vaezoo.cli import options
from vaezoo.cli.output import make_console, print_table
from vaezoo.config import parse_settings
from vaezoo.data.options import ImageSize
from vaezoo.errors import OptionError
from vaezoo.options import Options, parse
from vaezoo.plugins.registry import registry

_POSITIVE = click.FloatRange(min=0, min_open=True)
_PRECISIONS = ("auto", "fp32", "tf32", "bf16")


class _Size(Options):
    image_size: ImageSize


@click.command()
@click.argument(
    "models", metavar="[MODEL]...", nargs=-1, shell_complete=options.complete_names("model")
)
@options.list_option("--mode modes", click.Choice(MODES), ",".join(MODES), "What to measure.")
@options.list_option("--batch-size batch_sizes", click.IntRange(1), "64", "Images per batch.")
@options.list_option(
    "--precision precisions", click.Choice(_PRECISIONS), "auto", "auto: as in training."
)
@options.list_option(
    "--compile compiled", click.Choice(["off", "on"]), "off", "Whether torch.compile is used."
)
@click.option("--image-size", default="64", help="Height and width in pixels.")
@click.option("--channels", type=click.IntRange(1, 64), default=3, help="Channels of an image.")
@options.part_options("network", "bottleneck", "likelihood", "loss")
@options.set_option("An option of every model, part or loss, as bottleneck.latent_dim=16.")
@options.device_option
@click.option("--end-to-end", is_flag=True, help="Training rows include loading the batches.")
@click.option("--largest", is_flag=True, help="Search the largest batch that fits in memory.")
@click.option("--windows", type=click.IntRange(5), default=5, help="Measurements of a row.")
@click.option("--seconds", type=_POSITIVE, default=0.5, help="Shortest duration of a measurement.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=1),
    default=300.0,
    help="Seconds after which a row is given up, with the rest of its model.",
)
@click.option("--json", "json_path", type=options.FILE, help="File for the report.")
@click.option("--markdown", type=options.FILE, help="File for the table as Markdown.")
@click.option("--plot", type=options.FILE, help="File for the rates as a PNG.")
@click.option("--compare", type=options.FILE, help="An earlier report to compare with.")
@click.option(
    "--fail-below",
    type=click.FloatRange(min=0),
    default=0.9,
    help="With --compare: exit code 1 if a rate is less than this fraction of the earlier one.",
)
def command(
    models: tuple[str, ...],
    modes: tuple[Mode, ...],
    batch_sizes: tuple[int, ...],
    precisions: tuple[str, ...],
    compiled: tuple[str, ...],
    image_size: str,
    channels: int,
    settings: tuple[str, ...],
    device: str,
    end_to_end: bool,
    largest: bool,
    windows: int,
    seconds: float,
    timeout: float,
    json_path: Path | None,
    markdown: Path | None,
    plot: Path | None,
    compare: Path | None,
    fail_below: float,
    **names: str | None,
) -> None:
    """Measure each MODEL, or all models: images per second, latency, memory, and efficiency.

    The command prints a table and writes a report, which --compare can read later.
    docs/benchmark.md explains each number.
    """
    from vaezoo.bench import report

    specs = [registry().resolve("model", name) for name in models] or registry().specs("model")
    earlier = report.load_json(compare) if compare else None
    for path in filter(None, (json_path, markdown, plot)):
        options.check_writable(path, overwrite=True)
    sections = parse_settings(settings)
    if sections["train"] or sections["data"]:
        raise OptionError("--set: bench takes options of models and losses only")
    shape = (channels, *parse(_Size, {"image_size": image_size}, "bench").image_size)

    from vaezoo.bench.machine import describe_machine
    from vaezoo.runtime.device import resolve_device, resolve_precision

    where = resolve_device(device)
    resolved = list(dict.fromkeys(resolve_precision(name, where) for name in precisions))
    environment = describe_machine(where, resolved)
    cases = tuple(
        Case(mode=mode, batch_size=size, precision=name, compile=on)
        for mode, size, name, on in itertools.product(modes, batch_sizes, resolved, compiled)
    )
    jobs = [
        Job(
            model=spec.name,
            names=names,
            options=sections,
            shape=shape,
            device=str(where),
            cases=cases,
            windows=windows,
            seconds=seconds,
            end_to_end=end_to_end,
            largest=largest,
            gemm=environment["gemm_flops_per_second"],
            copy=environment["copy_bytes_per_second"],
        )
        for spec in specs
    ]
    click.echo("\n".join(report.describe_environment(environment)))
    rows: list[Row] = []
    total = len(jobs) * len(cases)
    try:
        with _shown_rows(total) as show:
            for job in jobs:
                for row in run_job(job, timeout):
                    rows.append(row)
                    show(row)
    finally:  # rows that took minutes are kept if somebody stops the rest
        if rows:
            print_table(report.HEADINGS, [report.table_cells(row) for row in rows])
            path = json_path or _free_name()
            report.save_json(path, environment, rows)
            click.echo(f"report: {path}")
            if len(rows) < total:
                click.echo(f"it was stopped after {len(rows)} of {total} rows")
            if markdown:
                report.save_markdown(markdown, environment, rows)
                click.echo(f"table: {markdown}")
            if plot:
                written = report.save_plot(plot, rows)
                click.echo(f"plot: {plot if written else 'not written, no row has a rate'}")
    ratios = report.compare(rows, earlier["rows"]) if earlier else []
    for compared, ratio in ratios:
        what = " ".join(str(compared[k]) for k in ("model", "mode", "batch_size", "precision"))
        change = "nothing to compare" if ratio is None else f"{ratio:.2f} of the earlier rate"
        click.echo(f"{what}: {change}")
    if any(ratio is not None and ratio < fail_below for _, ratio in ratios):
        raise click.exceptions.Exit(1)


@contextmanager
def _shown_rows(total: int) -> Iterator[Callable[[Row], None]]:
    """What shows each row: a progress bar on a terminal, else a line for each."""

    def print_row(row: Row) -> None:
        rate = row["images_per_second"]
        result = row["status"] if rate is None else f"{rate:,.0f} images/s"
        click.echo(f"  {row['model']} {row['mode']} {row['batch_size']}: {result}")

    console = make_console()
    if not console.is_terminal:
        yield print_row
        return
    from rich.progress import Progress

    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("measuring", total=total)
        yield lambda row: bar.update(task, advance=1, description=f"{row['model']} {row['mode']}")


def _free_name() -> Path:
    paths = (Path(f"bench-{number:03d}.json") for number in itertools.count(1))
    return next(path for path in paths if not path.exists())
