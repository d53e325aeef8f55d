"""`vaezoo evaluate`: measures finished runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from vaezoo.cli import options
from vaezoo.cli.output import print_json, print_table
from vaezoo.errors import OptionError
from vaezoo.plugins.registry import registry
from vaezoo.plugins.specs import METRIC_GROUPS
from vaezoo.runtime import is_rank0

if TYPE_CHECKING:
    from vaezoo.evaluation.evaluate import Evaluation
    from vaezoo.evaluation.metric import MetricResult
    from vaezoo.runs.run import Run

_ARROWS = {"higher": "↑", "lower": "↓", "neither": ""}


@click.command()
@options.runs_argument
@options.metric_option(
    "default", f"Metrics by name, or groups of them: {', '.join(METRIC_GROUPS)}, default, all."
)
@options.importance_samples_option
@options.choice_option("--split", ["test", "validation", "train"], "The data to measure on.")
@click.option("--repeats", type=click.IntRange(1), default=5, help="Repeats of a random score.")
@options.choice_option(
    "--features",
    ["auto", "inception", "classifier"],
    "The network whose features of images are compared. auto: Inception if its weights are on this "
    "machine, else a small classifier of the same data, trained once.",
)
@click.option("--download", is_flag=True, help="Download missing weights of feature networks.")
@options.list_option(
    "--sampler samplers",
    click.STRING,
    None,
    "The priors to sample from: samplers that `vaezoo fit` has fitted, or none for the model's "
    "own. Several are shown side by side.  [default: that of the run]",
)
@options.set_option("An option of sampling, as sampler.guidance=2. Repeatable.")
@options.seed_option
@click.option(
    "--group-by-seed",
    is_flag=True,
    help="Group runs that differ only in --seed: mean and standard deviation of each group.",
)
@options.device_option
@options.root_option
@options.json_option
def command(
    runs: tuple[Path, ...],
    root: Path | None,
    metrics: tuple[str, ...],
    importance_samples: int,
    split: Literal["test", "validation", "train"],
    repeats: int,
    features: Literal["auto", "inception", "classifier"],
    download: bool,
    samplers: tuple[str, ...],
    settings: tuple[str, ...],
    seed: int,
    group_by_seed: bool,
    device: str,
    as_json: bool,
) -> None:
    """Measure the models in the folders RUN on the test split of their data.

    Several runs are shown side by side. A star marks the best value of a row if its values can be
    compared. `vaezoo list --kind metrics` and docs/metrics.md explain each metric. Under torchrun,
    the processes share the work.
    """
    from vaezoo.distributed.launch import process_group
    from vaezoo.runs.run import load_run
    from vaezoo.training.progress import Progress

    changed = options.sampler_settings(settings)
    if changed and not samplers:
        raise OptionError("--set sampler...: name the sampler too, by --sampler")
    if group_by_seed and len(samplers) > 1:
        raise OptionError("--group-by-seed: give one --sampler")
    paths = [path for path in runs for _ in samplers or (None,)]
    results = []
    with process_group(device), Progress() as progress:
        opened = [
            load_run(path, device, root=root, sampler=name, sampler_options=changed)
            for path in runs
            for name in samplers or (None,)
        ]
        groups = _group_by_seed(opened) if group_by_seed else []
        names = [_name(run, len(runs) > 1, len(samplers) > 1) for run in opened]
        for name, run in zip(names, opened, strict=True):
            progress.prefix = f"{name}: " if len(opened) > 1 else ""
            result = run.evaluate(
                metrics=metrics,
                importance_samples=importance_samples,
                seed=seed,
                split=split,
                repeats=repeats,
                download=download,
                features=features,
                on_progress=progress.update,
            )
            results.append(result)
    if not is_rank0():
        return
    if groups:
        seeds = [run.config.train.seed for run in opened]
        objects = [
            {
                "runs": [str(paths[i]) for i in group],
                "seeds": [seeds[i] for i in group],
                "split": split,
                **_mean_over_runs([results[i] for i in group]),
            }
            for group in groups
        ]
        if as_json:
            print_json(objects)
        else:
            _print_groups([[names[i] for i in group] for group in groups], objects)
    elif as_json:
        objects = [
            {"run": str(path), "split": split, "sampler": run.sampler_name, **result.to_dict()}
            for path, run, result in zip(paths, opened, results, strict=True)
        ]
        print_json(objects[0] if len(objects) == 1 else objects)
    elif len(results) == 1:
        found = results[0].metrics.items()
        rows = [(number.label, _format(number), _meaning(name, number)) for name, number in found]
        print_table(("metric", "value", "meaning"), rows)
        click.echo(f"{results[0].examples:,} examples")
    else:
        _print_many(names, results)


def _name(run: Run, several_runs: bool, several_samplers: bool) -> str:
    """A name that sets a column apart from others: the run, its sampler, or both."""
    name = run.path.name or str(run.path)
    sampler = (run.sampler_name or "") if several_samplers else ""
    return f"{name}: {sampler}" if sampler and several_runs else sampler or name


def _group_by_seed(runs: Sequence[Run]) -> list[list[int]]:
    """The positions of the runs of each configuration. OptionError if each has a single run."""
    from vaezoo.evaluation.seeds import group_by_config

    data = [run.metadata["data"]["fingerprint"] for run in runs]
    groups = group_by_config([run.config.to_dict() for run in runs], data)
    if len(groups) == len(runs):
        raise OptionError("--group-by-seed: no two of these runs differ only in their seed")
    return groups


def _mean_over_runs(results: Sequence[Evaluation]) -> dict[str, Any]:
    """The metrics of runs that differ only in their seed, as one object."""
    from vaezoo.evaluation.seeds import aggregate_seeds

    metrics = {}
    for name, first in results[0].metrics.items():
        numbers = [result.metrics[name] for result in results]
        comparable = {number.comparable for number in numbers if number.value is not None}
        kinds = [number.uncertainty_kind for number in numbers if number.uncertainty_kind]
        metrics[name] = {
            **asdict(aggregate_seeds([n.value for n in numbers], [n.uncertainty for n in numbers])),
            "uncertainty_kind": kinds[0] if kinds else "",
            "note": "; ".join(dict.fromkeys(number.note for number in numbers if number.note)),
            "label": " / ".join(dict.fromkeys(number.label for number in numbers)),
            "unit": first.unit,
            "direction": first.direction,
            "comparable": comparable.pop() if len(comparable) == 1 else "",
        }
    return {"examples": results[0].examples, "metrics": metrics}


def _print_groups(members: list[list[str]], objects: list[dict[str, Any]]) -> None:
    """Print a column for each configuration. members: the names of its runs."""
    from vaezoo.evaluation.seeds import group_name

    names = [group_name(group) for group in members]
    rows, notes = [], []
    for metric in objects[0]["metrics"]:
        numbers = [one["metrics"][metric] for one in objects]
        label = " / ".join(dict.fromkeys(number["label"] for number in numbers))
        rows.append([label, *map(_format_mean, numbers)])
        notes += [f"{metric}: {note}" for note in dict.fromkeys(n["note"] for n in numbers) if note]
    print_table(["metric", *names], rows)
    for name, one in zip(names, objects, strict=True):
        seeds = one["seeds"]
        click.echo(f"{name}: seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}")
    caption = "mean ± standard deviation over seeds; in brackets, the uncertainty of one run"
    click.echo("\n".join([*notes, caption]))


def _format_mean(number: dict[str, Any]) -> str:
    if number["value"] is None:
        return "-"
    text = f"{number['value']:.4g}"
    if number["std"] is not None:
        text += f" ± {number['std']:.2g}"
    missing = number["values"].count(None)
    some = f", of {len(number['values']) - missing} runs" if missing else ""
    return text + (
        f" ({number['uncertainty']:.2g}{some})" if number["uncertainty"] is not None else some
    )


def _print_many(names: list[str], results: list[Evaluation]) -> None:
    """Print a row for each metric, with a star at the best value where all of them compare."""
    rows, remarks = [], []
    for name in results[0].metrics:
        numbers = [result.metrics[name] for result in results]
        best = best_of(numbers)
        cells = [_format(n) + ("*" if i in best else "") for i, n in enumerate(numbers)]
        labels = list(dict.fromkeys(n.label for n in numbers if n.value is not None)) or [name]
        rows.append([f"{' / '.join(labels)} {_ARROWS[numbers[0].direction]}".rstrip(), *cells])
        remarks += _remarks(names, name, numbers)
    print_table(["metric", *names], rows)
    counts = sorted({result.examples for result in results})
    click.echo("\n".join([*remarks, f"{', '.join(f'{n:,}' for n in counts)} examples"]))


def best_of(numbers: list[MetricResult]) -> set[int]:
    """The positions of the best numbers; none if they do not compare, or are all equal."""
    values = {number.value for number in numbers if number.value is not None}
    comparable = {number.comparable for number in numbers if number.value is not None}
    direction = numbers[0].direction
    if len(comparable) != 1 or direction == "neither" or len(values) < 2:
        return set()
    best = max(values) if direction == "higher" else min(values)
    return {i for i, number in enumerate(numbers) if number.value == best}


def _remarks(names: list[str], metric: str, numbers: list[MetricResult]) -> list[str]:
    """Why numbers are missing, and why a row has no star."""
    by_note: dict[str, list[str]] = {}
    for run, number in zip(names, numbers, strict=True):
        if number.note:
            by_note.setdefault(number.note, []).append(run)
    lines = [
        f"{metric}: {note}" + ("" if len(of) == len(names) else f" ({', '.join(of)})")
        for note, of in by_note.items()
    ]
    kinds = {number.comparable for number in numbers if number.value is not None}
    if len(kinds) > 1 and numbers[0].direction != "neither":
        lines.append(f"{metric}: not ranked, the numbers are of {'; '.join(sorted(kinds))}")
    return lines


def _format(number: MetricResult) -> str:
    if number.value is None:
        return "-"
    text = f"{number.value:.5g}"
    return text if number.uncertainty is None else f"{text} ± {number.uncertainty:.2g}"


def _meaning(name: str, number: MetricResult) -> str:
    """What a number is, with its note; or why there is none."""
    if number.value is None:
        return number.note
    direction = "" if number.direction == "neither" else f"{number.direction} is better"
    summary = registry().get("metric", name).summary
    return "; ".join(filter(None, (number.unit, direction, summary, number.note)))
