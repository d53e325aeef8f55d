"""`vaezoo evaluate`: measure finished runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from vaezoo.cli import over_seeds
from vaezoo.cli.output import is_first_process, make_console, print_json, print_line, print_table
from vaezoo.cli.shared import device_option, json_option, runs_argument
from vaezoo.errors import OptionError, nearest
from vaezoo.plugins.registry import registry
from vaezoo.plugins.specs import METRIC_GROUPS

if TYPE_CHECKING:
    from vaezoo.evaluation.evaluate import Evaluation, Number

_ARROWS = {"higher": "↑", "lower": "↓", "neither": ""}


@click.command(short_help="Measure finished runs on held-out data.")
@runs_argument
@click.option(
    "--metric",
    "metrics",
    metavar="NAME,...",
    default="default",
    show_default=True,
    help=f"Metrics by name, or groups of them: {', '.join(METRIC_GROUPS)}, default, all.",
)
@click.option(
    "--importance-samples",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    metavar="K",
    help="Samples an image for the log-likelihood; 0: none. Thousands are customary.",
)
@click.option(
    "--split",
    type=click.Choice(["test", "validation", "train"]),
    default="test",
    show_default=True,
    help="The part of the data to measure on.",
)
@click.option(
    "--repeats",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    help="How often a score with chance in it is taken; it is shown with its spread.",
)
@click.option(
    "--features",
    type=click.Choice(["auto", "inception", "classifier"]),
    default="auto",
    show_default=True,
    help="The network by which images are compared: auto is Inception if its weights are at hand, "
    "else a small classifier of the same data, trained once.",
)
@click.option("--download", is_flag=True, help="Fetch the weights of feature networks if needed.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of noise.")
@click.option(
    "--over-seeds",
    "over_seeds_",
    is_flag=True,
    help="Runs that differ in their --seed alone count as one: the mean and the standard deviation "
    "over them.",
)
@device_option
@json_option
def command(
    runs: tuple[Path, ...],
    metrics: str,
    importance_samples: int,
    split: str,
    repeats: int,
    features: str,
    download: bool,
    seed: int,
    over_seeds_: bool,
    device: str,
    as_json: bool,
) -> None:
    """Measure the models in the folders RUN on the test split of their data.

    Several runs stand side by side; a star marks the best of a row, where its numbers compare.
    `vaezoo list --kind metrics` and docs/metrics.md say what each number is. Under torchrun the
    processes share the work.
    """
    words = _checked([word.strip() for word in metrics.split(",") if word.strip()])

    from vaezoo.cli.work import Work
    from vaezoo.distributed.launch import process_group
    from vaezoo.runs.run import load_run

    results = []
    with process_group(device), Work() as work:
        opened = [load_run(path, device) for path in runs]
        together = over_seeds.alike_among(opened) if over_seeds_ else []
        for path, run in zip(runs, opened, strict=True):
            work.prefix = f"{path.name}: " if len(runs) > 1 else ""
            result = run.evaluate(
                metrics=words,
                importance_samples=importance_samples,
                seed=seed,
                split=split,  # type: ignore[arg-type]
                repeats=repeats,
                download=download,
                features=features,  # type: ignore[arg-type]
                on_progress=work.tell,
            )
            results.append(result)
    if not is_first_process():
        return
    if together:
        over_seeds.show(runs, opened, results, together, split, as_json)
    elif as_json:
        objects = [
            {"run": str(path), "split": split, **result.to_dict()}
            for path, result in zip(runs, results, strict=True)
        ]
        print_json(objects[0] if len(objects) == 1 else objects)
    elif len(results) == 1:
        _print_one(results[0])
    else:
        _print_many([path.name or str(path) for path in runs], results)


def _checked(words: list[str]) -> list[str]:
    """The words of --metric, if each is a metric or a group: told before anything is loaded."""
    names = [spec.name for spec in registry().specs("metric")]
    known = [*names, *METRIC_GROUPS, "default", "all"]
    for word in words:
        if word not in known:
            raise OptionError(
                f"--metric: there is no metric or group {word!r}{nearest(word, known)} "
                "(vaezoo list --kind metrics shows them)"
            )
    if not words:
        raise OptionError("--metric names no metric (vaezoo list --kind metrics shows them)")
    return words


def _print_one(result: Evaluation) -> None:
    rows = [
        (number.label, _shown(number), _meaning(name, number))
        for name, number in result.metrics.items()
    ]
    print_table(("metric", "value", "meaning"), rows)
    click.echo(f"{result.examples:,} examples")


def _print_many(names: list[str], results: list[Evaluation]) -> None:
    """A row for each metric; the best of a row has a star, where all of its numbers compare."""
    rows, remarks = [], []
    for name in results[0].metrics:
        numbers = [result.metrics[name] for result in results]
        best = best_of(numbers)
        cells = [_shown(n) + ("*" if i in best else "") for i, n in enumerate(numbers)]
        labels = list(dict.fromkeys(n.label for n in numbers if n.value is not None)) or [name]
        rows.append([f"{' / '.join(labels)} {_ARROWS[numbers[0].direction]}".rstrip(), *cells])
        remarks += _remarks(names, name, numbers)
    print_table(["metric", *names], rows)
    console = make_console()
    for remark in remarks:
        print_line(remark, console)
    counts = {result.examples for result in results}
    print_line(f"{', '.join(f'{n:,}' for n in sorted(counts))} examples", console)


def best_of(numbers: list[Number]) -> set[int]:
    """Which numbers of a row are the best, if they may be ranked; none if not, or if all tie."""
    there = [number for number in numbers if number.value is not None]
    values = {number.value for number in there}
    if (
        len({n.comparable for n in there}) != 1
        or there[0].direction == "neither"
        or len(values) < 2
    ):
        return set()
    pick = max if there[0].direction == "higher" else min
    best = pick(number.value for number in there if number.value is not None)
    return {i for i, number in enumerate(numbers) if number.value == best}


def _remarks(names: list[str], metric: str, numbers: list[Number]) -> list[str]:
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


def _shown(number: Number) -> str:
    if number.value is None:
        return "-"
    text = f"{number.value:.5g}"
    return text if number.uncertainty is None else f"{text} ± {number.uncertainty:.2g}"


def _meaning(name: str, number: Number) -> str:
    """Why there is no number; else what it is, and what to mind about it."""
    if number.value is None:
        return number.note
    direction = "" if number.direction == "neither" else f"{number.direction} is better"
    summary = registry().metric(name).summary
    return "; ".join(filter(None, (number.unit, direction, summary, number.note)))
