"""`vaezoo report`: writes one HTML page about runs."""

from __future__ import annotations

from pathlib import Path

import click

from vaezoo.cli.options import (
    check_writable,
    device_option,
    importance_samples_option,
    json_option,
    metric_option,
    out_option,
    root_option,
    runs_argument,
    sampler_option,
)
from vaezoo.cli.output import print_result
from vaezoo.errors import OptionError, counted


@click.command()
@runs_argument
@out_option("report.html", "The page to write.")
@click.option(
    "--explore",
    "explored",
    metavar="RUN",
    multiple=True,
    help="Put the model of the run with this folder name into the page, which then runs it; all: "
    "the models of all runs. Repeatable. Needs the extra `export` and onnxruntime-web.",
)
@click.option(
    "--onnxruntime-web",
    "runtime",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="The folder of the npm package.  [default: VAEZOO_ONNXRUNTIME_WEB]",
)
@metric_option(
    None, "Metrics to measure again, as evaluate does.  [default: the numbers saved in the runs]"
)
@importance_samples_option
@sampler_option
@device_option
@root_option
@json_option
def command(
    runs: tuple[Path, ...],
    out: Path,
    explored: tuple[str, ...],
    runtime: Path | None,
    metrics: tuple[str, ...],
    importance_samples: int,
    sampler: str | None,
    device: str,
    root: Path | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Write one HTML file about the runs in the folders RUN. It loads no other file.

    The page shows numbers, curves, rate and distortion, the KL of each latent dimension,
    reconstructions, samples, traversals, and the options in which the runs differ. With --explore
    it contains the models too (docs/visualize.md).
    """
    check_writable(out, overwrite, (".html", ".htm"))
    if importance_samples and not metrics:
        raise OptionError("--importance-samples goes with --metric, as in --metric log_likelihood")

    from vaezoo.io import write_text
    from vaezoo.runs.run import Run
    from vaezoo.training.progress import Progress
    from vaezoo_export.export import check_extra

    from .compare import differing
    from .explorer import ExplorableRun, check_names, find_runtime, make_explorable
    from .page import render
    from .summary import RunSummary, names_of, read_runs

    names = names_of(runs)
    wanted = check_names(explored, names)
    found_runtime = find_runtime(runtime) if wanted else None
    if wanted:
        check_extra("--explore")
    explorables: list[ExplorableRun] = []

    def on_open(run: Run, summary: RunSummary) -> None:
        if summary.name in wanted:
            made = make_explorable(run, summary, names.index(summary.name))
            explorables.extend([made] if made else [])

    with Progress() as progress:
        summaries = read_runs(
            runs,
            device,
            root=root,
            metrics=metrics,
            importance_samples=importance_samples,
            sampler=sampler,
            on_progress=progress.update,
            on_open=on_open,
        )
    write_text(out, render(summaries, explorables, found_runtime))
    found = {
        "report": str(out),
        "runs": [run.to_dict() for run in summaries],
        "differing": differing(summaries),
        "explorable": [one.description["name"] for one in explorables],
    }
    num_runs = counted(len(summaries), "run")
    lines = [f"{out}: {num_runs}, {out.stat().st_size / 2**20:.1f} MiB"]
    lines += [f"  {run.name}: {remark}" for run in summaries for remark in run.remarks]
    print_result(as_json, found, "\n".join(lines))
