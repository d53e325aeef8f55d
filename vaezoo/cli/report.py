"""`vaezoo report`: runs on one page."""

from __future__ import annotations

from pathlib import Path

import click

from vaezoo.cli.output import print_json
from vaezoo.cli.pictures import check_output
from vaezoo.cli.shared import device_option, json_option, out_option, runs_argument
from vaezoo.errors import OptionError


@click.command(short_help="Put runs on one page that a browser opens from disk.")
@runs_argument
@out_option("report.html", "The page to write.")
@click.option(
    "--explore",
    "explored",
    metavar="RUN",
    multiple=True,
    help="Put the model of this run, by its folder's name, into the page, to run there; all: of "
    "every run. Repeatable. Needs the extra `export` and onnxruntime-web.",
)
@click.option(
    "--onnxruntime-web",
    "runtime",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Where npm put it.  [default: what VAEZOO_ONNXRUNTIME_WEB names]",
)
@click.option(
    "--metric",
    "metrics",
    metavar="NAME,...",
    default="",
    help="Measure these anew, as evaluate does.  [default: the numbers that the runs hold]",
)
@click.option(
    "--importance-samples",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    metavar="K",
    help="With --metric: samples an image for the log-likelihood.",
)
@device_option
@click.option("--overwrite", is_flag=True, help="Replace FILE if it exists.")
@json_option
def command(
    runs: tuple[Path, ...],
    out: Path,
    explored: tuple[str, ...],
    runtime: Path | None,
    metrics: str,
    importance_samples: int,
    device: str,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Write one HTML file about RUN..., which loads nothing and can be sent to anyone.

    Numbers, curves, rate against distortion, the KL of each latent, reconstructions, samples,
    traversals, and the options in which the runs differ; with --explore, the models themselves
    (docs/visualize.md).
    """
    if out.suffix not in (".html", ".htm"):
        raise OptionError(f"--out {out}: a report is a page: give a name that ends in .html")
    check_output(out, overwrite)
    words = [word.strip() for word in metrics.split(",") if word.strip()]
    if importance_samples and not words:
        raise OptionError("--importance-samples goes with --metric, as --metric log_likelihood")

    from vaezoo.cli.work import Work
    from vaezoo.evaluation.evaluate import select_metrics
    from vaezoo.export.files import check_extra
    from vaezoo.io import write_text
    from vaezoo.report.compare import differing
    from vaezoo.report.explorer import ExplorableRun, check_names, find_runtime, make_explorable
    from vaezoo.report.page import render
    from vaezoo.report.summary import RunSummary, names_of, read_runs
    from vaezoo.runs.run import Run

    if words:
        select_metrics(words)
    names = names_of(runs)
    wanted = check_names(explored, names)
    found_runtime = find_runtime(runtime) if wanted else None
    if wanted:
        check_extra("onnx", "--explore")
    explorables: list[ExplorableRun] = []

    def on_open(run: Run, summary: RunSummary) -> None:
        if summary.name in wanted:
            made = make_explorable(run, summary, names.index(summary.name))
            explorables.extend([made] if made else [])

    with Work() as work:
        summaries = read_runs(
            runs,
            device,
            metrics=words,
            importance_samples=importance_samples,
            on_progress=work.tell,
            on_open=on_open,
        )
    write_text(out, render(summaries, explorables, found_runtime))
    if as_json:
        print_json(
            {
                "report": str(out),
                "runs": [run.to_dict() for run in summaries],
                "differing": differing(summaries),
                "explorable": [one.description["name"] for one in explorables],
            }
        )
        return
    size = out.stat().st_size
    num_runs = "1 run" if len(summaries) == 1 else f"{len(summaries)} runs"
    click.echo(f"{out}: {num_runs}, {size / 2**20:.1f} MiB")
    for run in summaries:
        for remark in run.remarks:
            click.echo(f"  {run.name}: {remark}")
