"""`vaezoo score`: writes scores of each example, and finds the most unusual."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vaezoo.cli.options import (
    device_option,
    importance_samples_option,
    json_option,
    list_option,
    run_argument,
    seed_option,
)
from vaezoo.cli.output import print_result
from vaezoo.errors import DataError, OptionError, counted, nearest
from vaezoo.runtime import is_rank0

from .sources import Source, check_file, open_source, source_options

if TYPE_CHECKING:
    from vaezoo.runs.examples import ExampleBatch
    from vaezoo.runs.run import Run

ENDINGS = (".csv", ".npz", ".parquet", ".png")
_SIGNS = {"elbo": -1, "log_likelihood": -1, "rate": 1, "distortion": 1, "mse": 1}
"""Whether a large value of the score is unusual, or a small one."""


@click.command()
@run_argument
@source_options
@click.option(
    "-o",
    "--out",
    "outs",
    type=click.Path(path_type=Path),
    metavar="FILE",
    multiple=True,
    default=("scores.csv",),
    help="A file to write: .csv, .npz or .parquet with the scores, .png with the most unusual "
    "examples. Repeatable.",
)
@click.option("--overwrite", is_flag=True, help="Replace FILE if it exists.")
@importance_samples_option
@click.option("--top", type=click.IntRange(1, 1000), default=16, help="Examples of the picture.")
@click.option(
    "--by",
    type=click.Choice([*_SIGNS]),
    help="The score that says how unusual an example is.  [default: log_likelihood with "
    "--importance-samples, else elbo; mse if the model has none]",
)
@list_option("--normal", click.STRING, None, "Classes that are normal, by name or number.")
@list_option(
    "--anomalous", click.STRING, None, "Classes that are anomalous.  [default: all others]"
)
@seed_option
@device_option
@json_option
def command(
    run: Path,
    images: tuple[str, ...],
    split: str,
    data: str | None,
    settings: tuple[str, ...],
    root: Path | None,
    label: str | None,
    outs: tuple[Path, ...],
    overwrite: bool,
    importance_samples: int,
    top: int,
    by: str | None,
    normal: tuple[str, ...],
    anomalous: tuple[str, ...],
    seed: int,
    device: str,
    as_json: bool,
) -> None:
    """Write scores of every example: ELBO, log-likelihood, rate, distortion, squared error.

    The examples are those of the test split; of another split or data set; or the image files
    IMAGES. The most unusual have the lowest ELBO or log-likelihood, or the largest rate, distortion
    or error. With --normal or --anomalous it is measured how well the score tells these classes
    apart. Under torchrun, the processes share the work.
    """
    for out in outs:
        check_file(out, overwrite, ENDINGS)
    tables = [out for out in outs if out.suffix.lower() != ".png"]
    pictures = [out for out in outs if out.suffix.lower() == ".png"]
    if len(tables) > 1 or len(pictures) > 1:
        raise OptionError("-o: give one file for the scores, and one picture")

    from vaezoo import load_run
    from vaezoo.distributed.launch import process_group
    from vaezoo.evaluation.pictures import check_drawable
    from vaezoo.runtime import listen_to_progress
    from vaezoo.training.progress import Progress

    from .tables import write_table

    with process_group(device), Progress() as progress, listen_to_progress(progress.update):
        opened = load_run(run, device, root=None if data else root)
        if pictures:
            check_drawable(opened.data_spec)
        source = open_source(opened, images, split, data, settings, root, label)
        missing = source.examples.missing_scores(importance_samples)
        by = _choose(by, importance_samples, missing)
        kinds = _classes(source, normal, anomalous)
        batches = source.examples.score(importance_samples=importance_samples, seed=seed)
        kept = _Kept(by, top, bool(normal or anomalous))
        if is_rank0():
            found = kept.watch(source, batches)
            if tables:
                write_table(tables[0], found, len(source.examples))
        else:
            found = ({} for _ in batches)
        for _ in found:
            pass
    if not is_rank0():
        return
    if pictures:
        _draw(opened, source, pictures[0], kept)
    result = kept.measure(*kinds) if normal or anomalous else None
    values = {
        "files": [str(out) for out in outs],
        "run": str(run),
        "examples": len(source.examples),
        "by": by,
        "means": kept.means(),
        "missing": missing,
        "top": [{"example": name, by: value} for name, value in kept.top()],
        "anomalies": result,
        "seed": seed,
    }
    print_result(as_json, values, _text(values, outs))


def _text(values: dict[str, Any], outs: Sequence[Path]) -> str:
    means = ", ".join(f"{name} {value:.5g}" for name, value in values["means"].items())
    lines = [f"{', '.join(map(str, outs))}: {counted(values['examples'], 'example')}"]
    lines.append(f"means: {means}")
    if missing := values["missing"]:
        reasons = "; ".join(dict.fromkeys(missing.values()))
        lines.append(f"left out: {', '.join(missing)}: {reasons}")
    first = values["top"][0]
    lines.append(f"most unusual by {values['by']}: {first['example']}, {first[values['by']]:.5g}")
    if found := values["anomalies"]:
        lines.append(
            f"{found['anomalous']:,} anomalous and {found['normal']:,} normal: "
            f"AUROC {found['auroc']:.4f}, average precision {found['average_precision']:.4f}"
            + (f"; {found['neither']:,} are neither" if found["neither"] else "")
        )
    return "\n".join(lines)


def _choose(by: str | None, importance_samples: int, missing: dict[str, str]) -> str:
    if by == "log_likelihood" and not importance_samples:
        raise OptionError("--by log_likelihood: give --importance-samples too")
    if by in missing:
        raise OptionError(f"--by {by}: {missing[by]}")
    if by is not None:
        return by
    if importance_samples and "log_likelihood" not in missing:
        return "log_likelihood"
    return "mse" if "elbo" in missing else "elbo"


def _classes(
    source: Source, normal: Sequence[str], anomalous: Sequence[str]
) -> tuple[set[int], set[int]]:
    """The numbers of the normal and the anomalous classes; if one is not given, all others."""
    if not normal and not anomalous:
        return set(), set()
    names = source.class_names
    if not names:
        raise OptionError("--normal and --anomalous: these examples have no classes")

    def number(word: str) -> int:
        if word in names:
            return names.index(word)
        if word.isdecimal() and int(word) < len(names):
            return int(word)
        raise OptionError(f"there is no class {word!r}{nearest(word, names)}")

    sets = [set(map(number, words)) for words in (normal, anomalous)]
    for i in (0, 1):
        sets[i] = sets[i] or set(range(len(names))) - sets[1 - i]
    if sets[0] & sets[1]:
        raise OptionError("a class is normal or anomalous, not both")
    return sets[0], sets[1]


class _Kept:
    """What is kept of the scores while they pass: means, the most unusual, and those by class."""

    def __init__(self, by: str, top: int, by_class: bool) -> None:
        self.by, self.count, self.by_class = by, top, by_class
        self.best: list[tuple[float, int, Any]] = []
        self.sums: dict[str, float] = {}
        self.total = 0
        self.scores: list[Any] = []
        self.labels: list[Any] = []

    def watch(self, source: Source, batches: Iterator[ExampleBatch]) -> Iterator[dict[str, Any]]:
        """Pass the columns of the batches on."""
        import numpy as np

        for batch in batches:
            columns = source.columns(batch)
            for name, values in batch.values.items():
                self.sums[name] = self.sums.get(name, 0.0) + float(values.double().sum())
            self.total += len(batch.index)
            unusual = self._unusual(columns[self.by])
            order = np.argsort(-unusual, kind="stable")[: self.count]
            found = [(unusual[i], int(batch.index[i]), columns["example"][i]) for i in order]
            ranked = sorted(self.best + found, key=lambda item: (-item[0], item[1]))
            self.best = ranked[: self.count]
            if self.by_class:
                self.scores.append(unusual)
                self.labels.append(columns["label"] if "label" in columns else unusual * 0 - 1)
            yield columns

    def _unusual(self, values: Any) -> Any:
        """How unusual each example is. What is not a number is most unusual."""
        import numpy as np

        return np.nan_to_num(_SIGNS[self.by] * values.astype(np.float64), nan=np.inf)

    def means(self) -> dict[str, float]:
        return {name: value / self.total for name, value in self.sums.items()}

    def top(self) -> list[tuple[str | int, float]]:
        """The most unusual examples, with their scores."""
        return [
            (str(name) if isinstance(name, str) else int(name), _SIGNS[self.by] * float(value))
            for value, _, name in self.best
        ]

    def measure(self, normal: set[int], anomalous: set[int]) -> dict[str, Any]:
        import numpy as np

        from .anomalies import auroc, average_precision

        scores, labels = np.concatenate(self.scores), np.concatenate(self.labels)
        is_normal, is_anomalous = (np.isin(labels, [*each]) for each in (normal, anomalous))
        known = is_normal | is_anomalous
        if not is_normal.any() or not is_anomalous.any():
            which = "anomalous" if is_normal.any() else "normal"
            raise DataError(f"none of these examples is {which}")
        kept = scores[known], is_anomalous[known]
        return {
            "normal": int(is_normal.sum()),
            "anomalous": int(is_anomalous.sum()),
            "neither": int((~known).sum()),
            "auroc": auroc(*kept),
            "average_precision": average_precision(*kept),
        }


def _draw(run: Run, source: Source, out: Path, kept: _Kept) -> None:
    """Each of the most unusual examples beside its reconstruction, with its score."""
    import torch

    from vaezoo.evaluation.pictures import save_sequences

    batch = source.examples.get(torch.tensor([index for _, index, _ in kept.best]))
    again = run.reconstruct(batch.x, batch.y if run.model.conditional else None)
    rows = [torch.stack(pair) for pair in zip(batch.x, again, strict=True)]
    names = [f"{name}  {kept.by} {value:.5g}" for name, value in kept.top()]
    save_sequences(out, run.data_spec, rows, names)
