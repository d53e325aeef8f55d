"""What numbers a row may hold, what they mean, and what a report does with them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch._subclasses.fake_tensor import FakeTensorMode

from vaezoo.bench import machine, report
from vaezoo.bench.job import Case, bound_by, empty_row, sanity_check
from vaezoo.bench.machine import PEAKS, Timing, specified_peak, time_step
from vaezoo.errors import OptionError, RunError

CPU = torch.device("cpu")
CASE = Case(mode="train", batch_size=64, precision="fp32", compile="off")
ENVIRONMENT = {
    "device": "a machine",
    "versions": {"torch": "2"},
    "gemm_flops_per_second": {"fp32": 1e9},
    "copy_bytes_per_second": 1e9,
}


def row(**changes: Any) -> dict[str, Any]:
    filled = {
        "images_per_second": 100.0,
        "images_per_second_windows": [90.0, 95.0, 100.0, 105.0, 110.0],
        "latency_ms": {"p50": 1.0, "p90": 2.0, "p99": 3.0},
        "gemm_share": 0.5,
        "peak_memory_bytes": 2**20,
    }
    return {**empty_row("m", CASE, "ok"), **filled, **changes}


def test_timing_of_a_step_of_known_length() -> None:
    timing = time_step(lambda: time.sleep(0.005), CPU, windows=5, seconds=0.05)
    assert len(timing.windows) == 5
    assert 0.005 <= timing.step < 0.02
    assert timing.percentile(0) <= timing.percentile(50) <= timing.percentile(99)
    assert timing.percentile(0) >= 0.005


@pytest.mark.parametrize(
    ("steps", "expected"), [(5, [0.0, 2.0, 4.0, 4.0]), (20, [0.0, 10.0, 17.0, 19.0])]
)
def test_a_percentile_is_the_latency_at_that_rank(steps: int, expected: list[float]) -> None:
    latencies = tuple(float(number) for number in range(steps))
    timing = Timing(0.0, 0.0, (1.0,), latencies, 0.0)
    assert [timing.percentile(percent) for percent in (0, 50, 90, 99)] == expected


def test_the_peak_rates_are_of_the_fastest_product_and_of_bytes_read_and_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """If everything takes a second: 2·n³ FLOP/s of the largest product, and twice the tensor."""
    shapes = []

    def second(step: Callable[[], object], device: torch.device) -> float:
        if isinstance(step, partial):
            shapes.append(tuple(tuple(factor.shape) for factor in step.args))
        return 1.0

    monkeypatch.setattr(machine, "_shortest_time", second)
    assert machine.gemm_rate(CPU, "fp32") == 2 * 2048**3
    assert shapes == [((size, size), (size, size)) for size in (512, 1024, 2048)]
    assert machine.copy_rate(CPU) == 2 * 4 * 2**25


def test_on_a_gpu_the_products_are_larger(monkeypatch: pytest.MonkeyPatch) -> None:
    """On tensors without values: no GPU is needed."""
    sides = []

    def second(step: partial[object], device: torch.device) -> float:
        sides.extend(side for factor in step.args for side in factor.shape)
        return 1.0

    monkeypatch.setattr(machine, "_shortest_time", second)
    with FakeTensorMode():
        assert machine.gemm_rate(torch.device("cuda"), "bf16") == 2 * 8192**3
    assert sides == [size for size in (2048, 4096, 8192) for _ in range(4)]


def test_first_step_is_told_apart() -> None:
    waits = iter([0.2])
    timing = time_step(lambda: time.sleep(next(waits, 0.001)), CPU, windows=5, seconds=0.01)
    assert timing.first >= 0.2
    assert timing.step < 0.1


def test_more_than_the_whole_machine_is_an_error() -> None:
    assert sanity_check(row(gemm_share=1.0)) is None
    assert "GEMM" in str(sanity_check(row(gemm_share=1.01)))
    assert "peak" in str(sanity_check(row(peak_share=5.63)))


def test_unknown_peak_is_no_guess() -> None:
    assert specified_peak(CPU, "fp32") is None
    for rates, memory, source in PEAKS.values():
        assert source
        assert memory > 1e12
        assert rates["fp32"] < rates["tf32"] < rates["bf16"]


@pytest.mark.parametrize(
    ("gemm", "copy", "enqueue", "verdict"),
    [
        (0.6, 0.3, None, "compute"),
        (0.1, 0.8, None, "memory"),
        (0.6, 0.3, 0.95, "launch"),
        (0.6, 0.3, 0.2, "compute"),
        (None, 0.8, None, None),
    ],
)
def test_verdict(
    gemm: float | None, copy: float, enqueue: float | None, verdict: str | None
) -> None:
    assert bound_by(gemm, copy, enqueue) == verdict


def test_report_round_trip_and_comparison(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    other = row(model="other")
    report.save_json(path, ENVIRONMENT, [row(), other])
    earlier = report.load_json(path)
    slower = row(images_per_second=80.0)
    changes = report.compare([slower, row(model="new")], earlier["rows"])
    assert [share for _, share in changes] == [0.8, None]
    # Another shape is another measurement.
    assert report.compare([row(shape=[1, 8, 8])], earlier["rows"])[0][1] is None


def test_cells_of_a_row() -> None:
    start = ["m", "train", "64", "fp32", "off"]
    rest = ["20%", "1.00", "3.00", "-", "50%", "-", "-", "-", "1 MiB"]
    assert report.table_cells(row()) == [*start, "100", *rest]
    marked = row(status="error", images_per_second=2000.0, peak_share=0.25, bound_by="memory")
    marked["operations"] = 70
    marked["roof_share"] = 0.75
    changed = ["1%", "1.00", "3.00", "75%", "50%", "25%", "memory", "70", "1 MiB"]
    assert report.table_cells(marked) == [*start, "2,000 (error)", *changed]
    failed = empty_row("m", CASE, "crashed", "exit code 7")
    assert report.table_cells(failed) == [*start, "crashed", *[""] * 8, "exit code 7"]


def test_markdown_has_a_cell_a_heading_for_every_row(tmp_path: Path) -> None:
    failed = empty_row("broken", CASE, "crashed", "exit code -11 | at once")
    report.save_markdown(tmp_path / "r.md", ENVIRONMENT, [row(), failed])
    table = [x for x in (tmp_path / "r.md").read_text().splitlines() if x.startswith("|")]
    assert len(table) == 4
    for line in table:
        assert line.replace("\\|", "").count("|") == len(report.HEADINGS) + 1


def test_what_is_no_report_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    with pytest.raises(RunError, match="missing"):
        report.load_json(path)
    path.write_text(json.dumps({"a": 1}))
    with pytest.raises(OptionError, match="no report"):
        report.load_json(path)


def test_a_report_has_rows_without_numbers_too_and_no_words_for_rates(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    failed = empty_row("broken", CASE, "crashed", "exit code 7")
    report.save_json(path, ENVIRONMENT, [row(), failed])
    assert report.load_json(path)["rows"] == [row(), failed]
    report.save_json(path, ENVIRONMENT, [row(images_per_second="fast")])
    with pytest.raises(OptionError, match="no report"):
        report.load_json(path)


def test_plot_has_lines_over_sizes_and_bars_where_lines_could_not_be_told_apart(
    tmp_path: Path,
) -> None:
    def height(models: int, sizes: tuple[int, ...]) -> int:
        rows = [row(model=f"model {i}", batch_size=size) for i in range(models) for size in sizes]
        assert report.save_plot(tmp_path / "plot.png", [*rows, row(images_per_second=None)])
        return Image.open(tmp_path / "plot.png").height

    lines = height(2, (16, 64))
    assert height(7, (16, 64)) == lines
    assert height(1, (64,)) < lines < height(20, (64,)) < height(20, (16, 64))
    assert not report.save_plot(tmp_path / "none.png", [row(images_per_second=None)])
