"""`vaezoo evaluate --over-seeds`: runs that differ in their seed alone, taken together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vaezoo.cli.output import print_json, print_table
from vaezoo.errors import OptionError

if TYPE_CHECKING:
    from vaezoo.evaluation.evaluate import Evaluation, Number
    from vaezoo.runs.run import Run


def alike_among(runs: Sequence[Run]) -> list[list[int]]:
    """The positions of the runs of each configuration. OptionError if each has a single run."""
    from vaezoo.evaluation.seeds import group_by_config

    data = [run.metadata["data"]["fingerprint"] for run in runs]
    found = group_by_config([run.config.to_dict() for run in runs], data)
    if len(found) == len(runs):
        raise OptionError("--over-seeds: no two of these runs differ in their seed alone")
    return found


def show(
    paths: Sequence[Path],
    runs: Sequence[Run],
    results: Sequence[Evaluation],
    together: list[list[int]],
    split: str,
    as_json: bool,
) -> None:
    """Print a column for each configuration, or an object of JSON."""
    found = [
        {
            "runs": [str(paths[i]) for i in members],
            "seeds": [runs[i].config.train.seed for i in members],
            "split": split,
            "examples": results[members[0]].examples,
            "metrics": {
                name: _over([results[i].metrics[name] for i in members])
                for name in results[0].metrics
            },
        }
        for members in together
    ]
    if as_json:
        print_json(found)
    else:
        _print(found)


def _over(numbers: list[Number]) -> dict[str, Any]:
    """One metric of one configuration."""
    from vaezoo.evaluation.seeds import aggregate_seeds

    kinds = {number.comparable for number in numbers if number.value is not None}
    return {
        **asdict(aggregate_seeds([n.value for n in numbers], [n.uncertainty for n in numbers])),
        "uncertainty_kind": next(
            (number.uncertainty_kind for number in numbers if number.uncertainty_kind), ""
        ),
        "note": "; ".join(dict.fromkeys(number.note for number in numbers if number.note)),
        "label": " / ".join(dict.fromkeys(number.label for number in numbers)),
        "unit": numbers[0].unit,
        "direction": numbers[0].direction,
        "comparable": kinds.pop() if len(kinds) == 1 else "",
    }


def _print(found: list[dict[str, Any]]) -> None:
    from vaezoo.evaluation.seeds import group_name

    names = [group_name([Path(run).name or run for run in one["runs"]]) for one in found]
    rows = []
    for metric in found[0]["metrics"]:
        numbers = [one["metrics"][metric] for one in found]
        rows.append([" / ".join(dict.fromkeys(n["label"] for n in numbers)), *map(_shown, numbers)])
    print_table(["metric", *names], rows)
    for name, one in zip(names, found, strict=True):
        seeds = ", ".join(map(str, one["seeds"]))
        click.echo(f"{name}: seed{'s' if len(one['seeds']) > 1 else ''} {seeds}")
    for metric in found[0]["metrics"]:
        for note in dict.fromkeys(one["metrics"][metric]["note"] for one in found):
            if note:
                click.echo(f"{metric}: {note}")
    click.echo(
        "mean ± standard deviation over seeds; in brackets, how sure the number of one run is"
    )


def _shown(number: dict[str, Any]) -> str:
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
