"""Benchmark reports: as JSON, Markdown and plots, and compared with an earlier one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vaezoo.errors import OptionError, quoted
from vaezoo.io import read_json, write_json, write_text

HEADINGS = (
    "model",
    "mode",
    "batch",
    "precision",
    "compile",
    "images/s",
    "spread",
    "p50 ms",
    "p99 ms",
    "of roof",
    "of GEMM",
    "of peak",
    "bound by",
    "ops",
    "memory",
)

_SHARES = ("roof_share", "gemm_share", "peak_share")  # earlier reports have no roof

Row = Mapping[str, Any]


def save_json(path: Path, environment: Mapping[str, Any], rows: Sequence[Row]) -> None:
    write_json(path, {"environment": dict(environment), "rows": [dict(row) for row in rows]})


def load_json(path: Path) -> dict[str, Any]:
    """An earlier report. OptionError if the file is not a report."""
    report = read_json(path)
    if not isinstance(report.get("rows"), list) or "environment" not in report:
        raise OptionError(f"{path} is no report of vaezoo bench: it has no rows and environment")
    try:
        describe_environment(report["environment"])
        for row in report["rows"]:
            hash((table_cells(row), row_key(row))[1])
            if row["images_per_second"] is not None:
                float(row["images_per_second"])
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise OptionError(
            f"{path} is no report of vaezoo bench: a part is missing or has another form "
            f"({type(error).__name__}: {quoted(str(error))})"
        ) from None
    return report


def table_cells(row: Row) -> list[str]:
    """A row as texts, in the order of HEADINGS."""
    start = [row["model"], row["mode"], str(row["batch_size"]), row["precision"], row["compile"]]
    if row["images_per_second"] is None:
        return [*start, row["status"], *[""] * (len(HEADINGS) - 7), row["reason"]]
    windows = row["images_per_second_windows"]
    spread = (max(windows) - min(windows)) / row["images_per_second"]
    mark = "" if row["status"] == "ok" else f" ({row['status']})"
    return [
        *start,
        f"{row['images_per_second']:,.0f}{mark}",
        f"{spread:.0%}",
        f"{row['latency_ms']['p50']:.2f}",
        f"{row['latency_ms']['p99']:.2f}",
        *("-" if row.get(key) is None else f"{row[key]:.0%}" for key in _SHARES),
        row["bound_by"] or "-",
        str(row.get("operations") or "-"),  # earlier reports have none
        f"{row['peak_memory_bytes'] / 2**20:,.0f} MiB",
    ]


def save_markdown(path: Path, environment: Mapping[str, Any], rows: Sequence[Row]) -> None:
    table = [HEADINGS, ["---"] * len(HEADINGS)]
    table += [[text.replace("|", "\\|") for text in table_cells(row)] for row in rows]
    lines = ["# Throughput", "", *describe_environment(environment), ""]
    lines += ["| " + " | ".join(cells) + " |" for cells in table]
    write_text(path, "\n".join([*lines, ""]))


def save_plot(path: Path, rows: Sequence[Row]) -> bool:
    """Write a PNG with a plot for each mode; False, and no file, if no row has a rate.

    Rates are lines over the batch size if there are several sizes, and a colour for each model and
    setting; else there is one bar for each row.
    """
    from vaezoo.evaluation.plots import COLORS, Series, save_bars, save_lines

    rows = [row for row in rows if row["images_per_second"] is not None]
    settings = {(row["precision"], row["compile"]) for row in rows}
    sizes = {row["batch_size"] for row in rows}
    modes: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for row in rows:
        name = row["model"]
        if len(settings) > 1:
            name += f" {row['precision']}" + (" compiled" if row["compile"] == "on" else "")
        point = (row["batch_size"], row["images_per_second"])
        modes.setdefault(row["mode"], {}).setdefault(name, []).append(point)
    names = {name for lines in modes.values() for name in lines}
    if len(sizes) > 1 and len(names) <= len(COLORS):
        plots = {
            f"{mode}, images a second by batch size": [
                Series(name, sorted(points), markers=True) for name, points in lines.items()
            ]
            for mode, lines in modes.items()
        }
        return save_lines(path, plots)
    bars = {
        f"{mode}, images a second": [
            (f"{name} {size}" if len(sizes) > 1 else name, rate)
            for name, points in lines.items()
            for size, rate in points
        ]
        for mode, lines in modes.items()
    }
    return save_bars(path, bars)


def describe_environment(environment: Mapping[str, Any]) -> list[str]:
    """The machine in two lines."""
    gemm = ", ".join(
        f"{precision} {rate / 1e9:,.0f} GFLOP/s"
        for precision, rate in environment["gemm_flops_per_second"].items()
    )
    copy = environment["copy_bytes_per_second"] / 1e9
    return [
        f"{environment['device']}, torch {environment['versions']['torch']}",
        f"measured here: {gemm}; copy {copy:,.1f} GB/s",
    ]


def compare(rows: Sequence[Row], earlier: Sequence[Row]) -> list[tuple[Row, float | None]]:
    """Each row with the ratio of its rate to that in the earlier report; None if it has none."""
    before = {row_key(row): row["images_per_second"] for row in earlier}
    pairs = [(row, row["images_per_second"], before.get(row_key(row))) for row in rows]
    return [(row, new / old if old and new else None) for row, new, old in pairs]


def row_key(row: Row) -> tuple[Any, ...]:
    """Two rows of two reports are comparable if their keys are equal."""
    names = ("model", "mode", "batch_size", "precision", "compile", "end_to_end")
    return (*(row[name] for name in names), tuple(row["shape"] or ()))
