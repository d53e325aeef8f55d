"""Maps of latents."""

from __future__ import annotations

import sys

import pytest
import torch

from vaezoo import DataSpec, Splits, TensorSplit
from vaezoo.errors import DataError, OptionError
from vaezoo.evaluation.latents import LatentStats
from vaezoo.io import MissingExtraError
from vaezoo_maps.embedding import embed_latents, embed_points, pca_plane


def cloud(n: int = 500) -> torch.Tensor:
    noise = torch.randn(n, 5, generator=torch.Generator().manual_seed(0))
    return noise * torch.tensor([0.1, 3.0, 0.2, 0.3, 2.0]) + 7


def test_the_plane_is_that_of_the_covariances_eigenvectors() -> None:
    points = cloud()
    plane, shares = pca_plane(points)
    values = torch.linalg.eigvalsh(torch.cov(points.double().T, correction=0)).flip(0)
    assert shares == pytest.approx((values[:2] / values.sum()).tolist(), rel=1e-9)
    spread = plane.double().square().mean(0)
    torch.testing.assert_close(spread, values[:2], rtol=1e-5, atol=0)
    assert abs(float(torch.corrcoef(plane.T)[0, 1])) < 1e-5


def test_a_sign_does_not_depend_on_the_decomposition() -> None:
    first, _ = pca_plane(cloud())
    # The largest loading is that of the second value, and positive.
    assert torch.corrcoef(torch.stack([first[:, 0], cloud()[:, 1]]))[0, 1] > 0.99


def test_one_value_is_a_line_and_two_points_no_map() -> None:
    plane, shares = pca_plane(torch.tensor([[1.0], [2.0], [4.0]]))
    assert plane[:, 1].tolist() == [0.0, 0.0, 0.0]
    assert shares == [pytest.approx(1.0), 0.0]
    with pytest.raises(DataError, match="give 3 or more"):
        embed_points(cloud(2))


def test_a_missing_package_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(MissingExtraError, match=r"--method umap needs .*vaezoo\[maps\]") as caught:
        embed_points(cloud(), "umap")
    assert "\n" not in str(caught.value)


def splits(factors: tuple[str, ...] = ("size", "place")) -> Splits:
    class Known(TensorSplit):
        def factors(self, index: torch.Tensor) -> torch.Tensor:
            return torch.stack([index % 3, index % 7], 1)

    split = Known(torch.zeros(20, 1, 2, 2), torch.arange(20) % 2)
    spec = DataSpec(shape=(1, 2, 2), class_names=("even", "odd"))
    return Splits(spec, split, split, split, "so", factor_names=factors)


def latents() -> LatentStats:
    index = torch.tensor([1, 5, 8, 19])
    return LatentStats(torch.randn(4, 3), index, index % 2, None, torch.ones(3))


def test_points_are_coloured_by_what_their_examples_are() -> None:
    by_class = embed_latents(latents(), splits())
    assert (by_class.by, by_class.names) == ("class", ("even", "odd"))
    assert by_class.values is not None
    assert by_class.values.tolist() == [1, 1, 0, 1]
    by_place = embed_latents(latents(), splits(), by="place")
    assert by_place.values is not None
    assert by_place.values.tolist() == [1, 5, 1, 5]
    with pytest.raises(OptionError, match="class, size, place; did you mean 'place'"):
        embed_latents(latents(), splits(), by="palce")
