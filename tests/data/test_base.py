"""Statistics of real-valued training examples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import vaezoo
from vaezoo import BaseDataset, DataSpec, Splits, TensorSplit
from vaezoo.data import base
from vaezoo.data.base import check_examples, compute_statistics, load_splits
from vaezoo.data.loader import BatchLoader
from vaezoo.data.options import DataOptions
from vaezoo.data.spec import DataStatistics
from vaezoo.errors import DataError


@pytest.mark.parametrize("piece", [1, 7, 1 << 20])
@pytest.mark.parametrize("shape", [(5,), (2, 3, 4)])
def test_statistics_are_of_each_value_or_channel(
    shape: tuple[int, ...], piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In float64, whatever the size of the parts: a large offset leaves no rounding error."""
    monkeypatch.setattr(base, "_PIECE", piece)
    x = torch.randn(50, *shape, generator=torch.Generator().manual_seed(0)) + 5000
    found = compute_statistics(TensorSplit(x))
    columns = x.double().numpy().swapaxes(0, 1).reshape(shape[0], -1)
    np.testing.assert_allclose(found.mean, columns.mean(1), rtol=1e-12)
    np.testing.assert_allclose(found.std, columns.std(1), rtol=1e-9)
    assert (found.minimum, found.maximum) == (float(x.min()), float(x.max()))


@pytest.mark.parametrize("value", [0.0, 0.1, 1e30])
def test_a_value_that_never_changes_has_a_deviation_of_1(value: float) -> None:
    x = torch.stack([torch.full((1000,), value), torch.arange(1000.0)], dim=1)
    assert compute_statistics(TensorSplit(x)).std[0] == 1.0


def real(n: int) -> Tensor:
    return 10 + torch.randn(n, 3, generator=torch.Generator().manual_seed(n))


def test_statistics_are_of_the_training_examples_alone(tmp_path: Path) -> None:
    train, test = real(40), real(20) * 1000
    np.savez(tmp_path / "x.npz", x=train.numpy(), x_test=test.numpy())
    spec = vaezoo.load_data("npz", root=tmp_path / "x.npz").spec
    assert spec.statistics == compute_statistics(TensorSplit(train))
    assert DataSpec.from_dict(jsonable(spec.to_dict())) == spec


def test_data_in_the_unit_range_has_none(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=np.random.default_rng(0).random((20, 3)))
    assert vaezoo.load_data("npz", root=tmp_path / "x.npz").spec.statistics is None


@pytest.mark.parametrize(
    "change",
    [
        {"mean": [0.0]},
        {"std": [1.0, 0.0]},
        {"std": [1.0, -1.0]},
        {"mean": [0.0, float("inf")]},
        {"minimum": None},
        {"maximum": "x"},
        {"mean": 3},
    ],
)
def test_wrong_statistics_of_a_run_are_refused(change: dict[str, object]) -> None:
    good = DataStatistics(mean=(0.0, 1.0), std=(1.0, 2.0), minimum=-1.0, maximum=3.0)
    values = jsonable(DataSpec(shape=(2,), domain="real", statistics=good).to_dict())
    assert DataSpec.from_dict(values).statistics == good
    values["statistics"] |= change
    with pytest.raises(ValueError, match="its statistics are not"):
        DataSpec.from_dict(values)
    assert DataSpec.from_dict({**values, "statistics": None}).statistics is None


def jsonable(values: dict[str, object]) -> dict[str, object]:
    return json.loads(json.dumps(values))


IMAGE = DataSpec(shape=(3, 4, 5))
TABLE = DataSpec(shape=(3,), domain="real")
COUNTS = DataSpec(shape=(3,), domain="count")


@pytest.mark.parametrize(
    ("x", "spec", "said"),
    [
        (np.full((2, 3, 4, 5), 200, np.uint8), IMAGE, r"in \[0, 1\], not 200 to 200: divide 8-bit"),
        (np.linspace(0, 255, 60).reshape(1, 3, 4, 5), IMAGE, "not 0 to 255: divide 8-bit levels"),
        (np.linspace(-1, 200, 60).reshape(1, 3, 4, 5), IMAGE, "not -1 to 200$"),
        (np.full((2, 3, 4, 5), 300.0), IMAGE, r"in \[0, 1\], not 300 to 300$"),
        (torch.full((2, 3, 4, 5), -1.0), IMAGE, r"in \[0, 1\], not -1 to -1$"),
        (torch.zeros(2, 1, 4, 5), IMAGE, "are n×3×4×5, not 2×1×4×5$"),
        (torch.zeros(2, 4, 5, 3), IMAGE, "not 2×4×5×3: the channels come first"),
        (torch.zeros(3, 4, 5), IMAGE, r"not 3×4×5: one example is x\[None\]"),
        (3.0, IMAGE, "not one number"),
        ("a.png", IMAGE, "not as str"),
        (None, IMAGE, "not as NoneType"),
        (np.full((2, 3, 4, 5), np.nan), IMAGE, "hold NaN or infinity"),
        (np.zeros((2, 4)), TABLE, "are n×3, not 2×4"),
        (np.zeros((2, 3), complex), TABLE, "not complex"),
        ([[1.0, 2.0, 0.5]], COUNTS, "are counts: whole numbers from 0$"),
        ([[1, -2, 3]], COUNTS, "are counts: whole numbers from 0$"),
    ],
)
def test_examples_of_another_kind_are_refused(x: Any, spec: DataSpec, said: str) -> None:
    with pytest.raises(DataError, match=said):
        check_examples(x, spec)


def test_arrays_of_the_right_kind_are_taken() -> None:
    x = np.random.default_rng(0).random((2, 3, 4, 5))
    torch.testing.assert_close(check_examples(x, IMAGE), torch.from_numpy(x).float())
    assert check_examples(np.ones((2, 3, 4, 5), bool), IMAGE).dtype == torch.float32
    assert check_examples([[1000.0, -5.0, 3]], TABLE).tolist() == [[1000.0, -5.0, 3.0]]
    assert check_examples([[1000, 0, 3]], COUNTS).tolist() == [[1000.0, 0.0, 3.0]]


def test_counts_are_not_standardised() -> None:
    counts = torch.tensor([[0.0, 3, 900], [2, 5, 100], [4, 1, 0]])
    splits = Splits(COUNTS, *[TensorSplit(counts)] * 3, description="")

    class Counts(BaseDataset):
        def load(self) -> Splits:
            return splits

    spec = load_splits(Counts(DataOptions())).spec
    assert spec.statistics is not None
    assert (spec.statistics.minimum, spec.statistics.maximum) == (0.0, 900.0)
    assert spec.log_det == 0.0
    loader = BatchLoader(splits.train, batch_size=3, device=torch.device("cpu"), spec=spec)
    assert next(iter(loader.sequential())).x.equal(counts)
    assert not spec.is_bounded
    assert not TABLE.is_bounded
    assert IMAGE.is_bounded
