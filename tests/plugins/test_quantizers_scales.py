"""Multi-scale codes: resizing, the residual sum over scales, the sequence, its prior."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from vaezoo_discrete.vq import VectorQuantizer
from vaezoo_quantizers.scales import MultiScaleQuantizer, area_matrix, cubic_matrix, scale_grids

WIDTH = 3
VAR = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)
"""The scales of Tian et al. (2024) at 256 pixels."""


def quantizer(
    grid: tuple[int, ...] = (4, 6), convolutions: int = 2, **options: object
) -> MultiScaleQuantizer:
    torch.manual_seed(0)
    settings: dict[str, object] = {"dead_code_steps": None, "ema": False, "ndim": 1}
    codes = VectorQuantizer(7, WIDTH, **settings | options)  # type: ignore[arg-type]
    return MultiScaleQuantizer(codes, scale_grids(grid, None), convolutions=convolutions)


def features(grid: tuple[int, ...] = (4, 6), n: int = 5) -> Tensor:
    made = torch.randn(n, WIDTH, *grid, generator=torch.Generator().manual_seed(1))
    return made.requires_grad_()


@pytest.mark.parametrize(
    ("grid", "scales", "expected"),
    [
        ((8, 8), None, [(1, 1), (2, 2), (4, 4), (8, 8)]),
        ((4, 6), None, [(1, 1), (1, 2), (3, 4), (4, 6)]),
        ((7,), None, [(1,), (2,), (4,), (7,)]),
        ((1, 1), None, [(1, 1)]),
        ((2, 2, 4), (1, 3, 4), [(1, 1, 1), (2, 2, 3), (2, 2, 4)]),
        ((16, 16), VAR, [(n, n) for n in VAR]),
    ],
)
def test_the_grids_of_a_pyramid(
    grid: tuple[int, ...], scales: tuple[int, ...] | None, expected: list[tuple[int, ...]]
) -> None:
    assert scale_grids(grid, scales) == expected


def test_matrices_resize_as_interpolate_does() -> None:
    x = torch.randn(2, 3, 7, 10)
    down = torch.einsum("sf,bcfg,tg->bcst", area_matrix(7, 3), x, area_matrix(10, 4))
    torch.testing.assert_close(down, F.interpolate(x, size=(3, 4), mode="area"))
    up = torch.einsum("fs,bcst,gt->bcfg", cubic_matrix(3, 7), down, cubic_matrix(4, 10))
    torch.testing.assert_close(up, F.interpolate(down, size=(7, 10), mode="bicubic"))


@pytest.mark.parametrize("convolutions", [0, 2, 9])
def test_each_scale_quantizes_what_the_coarser_ones_left(convolutions: int) -> None:
    made, x = quantizer(convolutions=convolutions), features()
    quantized, indices, losses = made(x)
    book, left, total = made.quantizer.codebook.detach(), x.detach(), torch.zeros_like(x)
    grids, ends = scale_grids((4, 6), None), [1, 3, 15, 39]
    distances = []
    for k, grid in enumerate(grids):
        small = F.interpolate(left, size=grid, mode="area") if k < 3 else left
        vectors = small.movedim(1, -1)
        nearest = (vectors.unsqueeze(-2) - book).square().sum(-1).argmin(-1)
        assert indices[:, ends[k] - nearest[0].numel() : ends[k]].equal(nearest.flatten(1))
        codes = book[nearest].movedim(-1, 1)
        if k < 3:
            codes = F.interpolate(codes, size=(4, 6), mode="bicubic")
            if convolutions:
                layer = made.convolutions[k * min(convolutions, 3) // 3]
                codes = 0.5 * codes + 0.5 * layer(codes).detach()
        left, total = left - codes, total + codes
        distances.append((x - total).square().flatten(1).sum(1))
    torch.testing.assert_close(quantized, total, rtol=1e-4, atol=1e-5)
    mean = torch.stack(distances).mean(0)
    torch.testing.assert_close(losses["commitment"], mean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(losses["codebook"], mean.detach(), rtol=1e-4, atol=1e-5)


def test_the_sum_over_scales_and_its_first_scales_alone() -> None:
    made, x = quantizer(), features()
    quantized, indices, _ = made(x)
    codes = made.indices_to_codes(indices)
    torch.testing.assert_close(made.codes_to_features(codes), quantized, rtol=1e-4, atol=1e-5)
    coarse = made.codes_to_features(codes[..., :3])
    finer = made.codes_to_features(codes[..., :15])
    assert coarse.shape == finer.shape == x.shape
    assert not coarse.allclose(finer)
    with pytest.raises(ValueError, match="16 codes are not those of the first scales"):
        made.codes_to_features(codes[..., :16])


def test_convolutions_and_codes_are_trained_by_their_term_alone() -> None:
    made, x = quantizer(), features()
    output = made(x)
    for parameter in made.parameters():
        (found,) = torch.autograd.grad(
            output.losses["codebook"].sum(), parameter, retain_graph=True
        )
        assert found.abs().sum() > 0
    latent = made.latent(output)
    decoded = made.codes_to_features(latent)
    for value in (output.quantized, output.losses["commitment"], latent, decoded):
        both = [x, *made.parameters()]
        found = torch.autograd.grad(value.sum(), both, retain_graph=True, allow_unused=True)
        assert found[0] is not None
        assert all(gradient is None for gradient in found[1:])


def test_moving_averages_are_of_the_vectors_of_all_scales() -> None:
    made, x = quantizer(convolutions=0, ema=True, decay=0.0), features()
    book = made.quantizer.codebook.clone()
    _, indices, losses = made(x)
    assert "codebook" not in losses  # nothing is left for it to train
    left, vectors = x.detach(), []
    for k, grid in enumerate(scale_grids((4, 6), None)):
        small = F.interpolate(left, size=grid, mode="area") if k < 3 else left
        vectors.append(small.flatten(2).mT)
        codes = book[(small.movedim(1, -1).unsqueeze(-2) - book).square().sum(-1).argmin(-1)]
        codes = codes.movedim(-1, 1)
        left = left - (F.interpolate(codes, size=(4, 6), mode="bicubic") if k < 3 else codes)
    everything = torch.cat(vectors, 1)
    for code in indices.unique():
        mean = everything[indices == code].mean(0)
        assert torch.allclose(made.quantizer.codebook[code], mean, atol=1e-5)


@pytest.mark.parametrize("grid", [(7,), (3, 2), (3, 2, 4), (1, 1)])
def test_signals_images_and_volumes(grid: tuple[int, ...]) -> None:
    made, x = quantizer(grid), features(grid)
    output = made(x)
    assert output.quantized.shape == x.shape
    assert made.codes_grid(grid) == output.indices.shape[1:]
    sum(v.sum() for v in output.losses.values()).backward()


def test_resizing_matrices_are_not_saved() -> None:
    assert {name.split(".")[0] for name in quantizer().state_dict()} == {
        "quantizer",
        "convolutions",
    }
