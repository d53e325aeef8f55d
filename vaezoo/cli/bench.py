"""`vaezoo bench`: how fast models are on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from vaezoo.bench.job import MODES, Case, Job
from vaezoo.cli import complete
from vaezoo.cli.output import make_console, print_table
from vaezoo.cli.pictures import check_place
from vaezoo.cli.shared import device_option
from vaezoo.config import parse_settings
from vaezoo.data.options import FolderOptions
from vaezoo.errors import OptionError, RunError
from vaezoo.options import parse
from vaezoo.plugins.registry import registry


@click.command(short_help="Measure how fast models are on this machine.")
@click.argument("models", metavar="[MODEL]...", nargs=-1, shell_complete=complete.models)
@click.option("--mode", default=",".join(MODES), show_default=True, help="Which, with commas.")
@click.option("--batch-size", default="64", show_default=True, help="One or more, with commas.")
@click.option(
    "--precision",
    default="auto",
    show_default=True,
    help="fp32, tf32, bf16, with commas; auto: what training would take.",
)
@click.option("--compile", "compiled", default="off", show_default=True, help="off, on, commas.")
@click.option("--image-size", default="64", show_default=True, help="Height and width.")
@click.option("--channels", type=click.IntRange(1, 64), default=3, show_default=True)
@click.option(
    "--loss",
    metavar="NAME",
    shell_complete=complete.losses,
    help="Objective.  [default: each model's own]",
)
@click.option(
    "--set",
    "settings",
    metavar="SECTION.OPTION=VALUE",
    multiple=True,
    help="An option of every model or loss, as model.latent_dim=16. Repeatable.",
)
@device_option
@click.option("--end-to-end", is_flag=True, help="Training rows include gathering their batches.")
@click.option("--largest", is_flag=True, help="Look for the largest batch that fits, from this on.")
@click.option("--windows", type=click.IntRange(min=5), default=5, show_default=True)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=0.5,
    show_default=True,
    help="What a window lasts at least.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=1),
    default=300.0,
    show_default=True,
    help="Seconds that a row may take before its model is given up.",
)
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Where the report goes.")
@click.option("--markdown", type=click.Path(path_type=Path), help="The table as Markdown.")
@click.option("--plot", type=click.Path(path_type=Path), help="The rates as a PNG.")
@click.option("--compare", type=click.Path(path_type=Path), help="An earlier report to hold to.")
@click.option(
    "--fail-below",
    type=click.FloatRange(min=0),
    default=0.9,
    show_default=True,
    help="With --compare: exit code 1 if a row has less than this share of its earlier rate.",
)
def command(
    models: tuple[str, ...],
    mode: str,
    batch_size: str,
    precision: str,
    compiled: str,
    image_size: str,
    channels: int,
    loss: str | None,
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
) -> None:
    """Measure each MODEL, or all of them: images a second, latency, memory, share of the machine.

    Ends with a table, and with a report that --compare can read later. docs/benchmark.md says
    what each number means.
    """
    from vaezoo.bench import report

    specs = [registry().resolve("model", name) for name in models] or registry().specs("model")
    earlier = report.load_json(compare) if compare else None
    outputs = [path for path in (json_path, markdown, plot) if path]
    for path in outputs:
        check_place(path)
    options = _flat(settings)
    shape = (channels, *parse(FolderOptions, {"image_size": image_size}, "bench").image_size)
    modes = _listed(mode, MODES, "--mode")
    compiles = _listed(compiled, ("off", "on"), "--compile")
    sizes = [_positive(text) for text in batch_size.split(",")]
    known = ("auto", "fp32", "tf32", "bf16")
    asked = _listed(precision, known, "--precision")

    from vaezoo.bench.machine import describe_machine
    from vaezoo.bench.run import run_jobs
    from vaezoo.runtime.device import resolve_device, resolve_precision

    place = resolve_device(device)
    precisions = [resolve_precision(name, place) for name in asked]
    environment = describe_machine(place, precisions)
    cases = tuple(
        Case(mode=m, batch_size=b, precision=p, compile=c)
        for m in modes
        for b in sizes
        for p in precisions
        for c in compiles
    )
    jobs = [
        Job(
            model=spec.name,
            loss=loss,
            options=options,
            shape=shape,
            device=str(place),
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
    for line in report.describe_environment(environment):
        click.echo(line)
    rows = _with_bar(
        len(jobs) * len(cases), lambda on_row: run_jobs(jobs, timeout=timeout, on_row=on_row)
    )
    print_table(report.HEADINGS, [report.table_cells(row) for row in rows])
    path = json_path or _free_name()
    report.save_json(path, environment, rows)
    click.echo(f"report: {path}")
    if markdown:
        report.save_markdown(markdown, environment, rows)
        click.echo(f"table: {markdown}")
    if plot:
        from vaezoo.bench.plot import save_plot

        if save_plot(plot, rows):
            click.echo(f"plot: {plot}")
    if earlier:
        _tell_changes(report.compare(rows, earlier["rows"]), fail_below)


def _listed(text: str, known: tuple[str, ...], what: str) -> list[Any]:
    words = [word.strip() for word in text.split(",") if word.strip()]
    for word in words:
        if word not in known:
            raise OptionError(f"{what} {word!r} is not one of {', '.join(known)}")
    if not words:
        raise OptionError(f"{what} needs one of {', '.join(known)}")
    return list(dict.fromkeys(words))


def _positive(text: str) -> int:
    if not text.strip().isdecimal() or int(text) < 1:
        raise OptionError(f"--batch-size {text!r} is not a number from 1 up")
    return int(text)


def _flat(settings: tuple[str, ...]) -> dict[str, Any]:
    """--set model.a=1 and loss.b=2 as the plain names that both go by."""
    sections = parse_settings(settings)
    for section in ("train", "data"):
        if sections[section]:
            raise OptionError(f"--set {section}.: bench sets options of models and losses only")
    return {**sections["model"], **sections["loss"]}


def _with_bar(total: int, work: Any) -> list[dict[str, Any]]:
    """Do the work under a progress bar where there is a terminal, else a line a row."""
    console = make_console()
    if not console.is_terminal:
        return list(work(lambda row: click.echo(_line(row))))
    from rich.progress import Progress

    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("measuring", total=total)

        def told(row: dict[str, Any]) -> None:
            bar.update(task, advance=1, description=f"{row['model']} {row['mode']}")

        return list(work(told))


def _line(row: dict[str, Any]) -> str:
    rate = row["images_per_second"]
    said = row["status"] if rate is None else f"{rate:,.0f} images/s"
    return f"  {row['model']} {row['mode']} {row['batch_size']}: {said}"


def _free_name() -> Path:
    for number in range(1, 1_000_000):
        path = Path(f"bench-{number:03d}.json")
        if not path.exists():
            return path
    raise RunError("this folder is full of reports: give --json FILE")


def _tell_changes(changes: list[tuple[Any, float | None]], fail_below: float) -> None:
    slower = 0
    for row, share in changes:
        what = f"{row['model']} {row['mode']} {row['batch_size']} {row['precision']}"
        if share is None:
            click.echo(f"{what}: nothing to compare")
            continue
        click.echo(f"{what}: {share:.2f} of the earlier rate")
        slower += share < fail_below
    if slower:
        raise click.exceptions.Exit(1)
