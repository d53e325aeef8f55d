"""Codes on levels: the wiring of VQ-VAE-2, its gradients, its sequence of codes and their prior."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import vaezoo
from vaezoo import Batch, EncoderDecoderVAE, StepContext
from vaezoo_discrete.distributions import CodePosterior
from vaezoo_discrete.losses import code_usage
from vaezoo_discrete.vq import VectorQuantizer
from vaezoo_quantizers.hierarchical import HierarchicalQuantizer, repeat

DIM, CODES = 3, 7


def quantizer(
    grid: tuple[int, ...] = (5, 8), levels: int = 2, **options: Any
) -> HierarchicalQuantizer:
    torch.manual_seed(0)
    settings = {"dead_code_steps": None, "ema": False, "ndim": 1, **options}
    each = [VectorQuantizer(CODES, DIM, **settings) for _ in range(levels)]
    return HierarchicalQuantizer(each, grid, width=8, blocks=1)


def model(shape: tuple[int, ...] = (1, 20, 12), **options: Any) -> EncoderDecoderVAE:
    torch.manual_seed(0)
    small = {"codes": CODES, "code_dim": DIM, "level_width": 8, "hidden": (4, 4)}
    made = vaezoo.create_model("vq_vae_2", shape, prior_width=8, prior_layers=1, **small, **options)
    assert isinstance(made, EncoderDecoderVAE)
    return made


def nearest(features: Tensor, codes: Tensor) -> Tensor:
    """Indices, [batch, positions], row by row."""
    rows = features.flatten(2).mT
    return torch.cdist(rows, codes.expand(len(rows), -1, -1)).argmin(2)


def test_the_lower_level_is_quantized_given_the_upper_one() -> None:
    """Razavi et al. 2019, algorithm 1, written out."""
    made = quantizer()
    x = torch.randn(2, 2 * DIM, 5, 8)
    below, above = (q.codebook for q in made.quantizers)
    for codes in (below, above):  # far enough from each other that several are in use
        codes.data.normal_(std=0.3)
    top = made.to_codes[1](made.down[0](x))
    assert top.shape == (2, DIM, 3, 4)
    top_indices = nearest(top, above)
    top_codes = F.embedding(top_indices, above).mT.unflatten(2, (3, 4))
    conditioned = torch.cat([made.up[0](top_codes), x], 1)
    bottom_indices = nearest(made.to_codes[0](conditioned), below)
    bottom_codes = F.embedding(bottom_indices, below).mT.unflatten(2, (5, 8))
    found = made(x)
    assert found.indices.equal(torch.cat([top_indices, bottom_indices], 1))
    wide = F.interpolate(top_codes, scale_factor=2)[:, :, :5, :8]
    torch.testing.assert_close(found.quantized, torch.cat([wide, bottom_codes], 1))
    assert made.sections == (12, 40)
    assert len(top_indices.unique()) > 1
    assert len(bottom_indices.unique()) > 1


def test_other_codes_above_change_the_codes_below_and_not_the_reverse() -> None:
    made, x = quantizer(), torch.randn(8, 2 * DIM, 5, 8)
    before = made(x).indices.split(made.sections, 1)
    for level, changes in ((1, [True, True]), (0, [False, True])):
        other = quantizer()
        with torch.no_grad():
            other.quantizers[level].codebook.copy_(torch.randn(CODES, DIM))
        after = other(x).indices.split(made.sections, 1)
        found = [not a.equal(b) for a, b in zip(before, after, strict=True)]
        assert found == changes


@pytest.mark.parametrize(
    ("size", "times", "expected"),
    [((5,), 2, [0, 0, 1, 1, 2]), ((3,), 4, [0, 0, 0]), ((1,), 2, [0])],
)
def test_an_upper_level_is_repeated_and_cut(
    size: tuple[int, ...], times: int, expected: list[int]
) -> None:
    x = torch.arange(math.ceil(size[0] / times))[None]
    assert repeat(x, times, size)[0].tolist() == expected


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((3, 20, 12), {}),
        ((2, 25), {}),
        ((1, 17, 8, 12), {}),
        ((1, 20, 24), {"code_levels": 3}),
        ((3, 16, 24), {"network": "ldm", "norm_groups": 2, "layers_per_block": 1}),
    ],
)
def test_decoded_indices_are_the_reconstruction(
    shape: tuple[int, ...], options: dict[str, Any]
) -> None:
    """Signals, images and volumes of odd grids; any number of channels."""
    made, x = model(shape, **options).eval(), torch.rand(3, *shape)
    posterior, codes = made.encode(x), made.codebook
    assert isinstance(posterior, CodePosterior)
    assert codes is not None
    again = made.decode(codes.indices_to_codes(posterior.indices)).mean
    torch.testing.assert_close(made.reconstruct(x), again)
    assert posterior.indices.shape == (3, sum(posterior.sections))
    assert made.sample(2).shape == (2, *shape)


def test_each_level_passes_the_gradient_of_the_decoder_straight_through() -> None:
    """Of weights on the quantized features, what reaches the features of each level's codes.

    The top level gets the sum over the positions that it is repeated at, and what comes through
    `up` from the level below, whose quantizer passes it straight through too.
    """
    made, x = quantizer(), torch.randn(2, 2 * DIM, 5, 8)
    seen: dict[int, Tensor] = {}
    for level, layer in enumerate(made.to_codes):
        layer.register_forward_hook(lambda _, __, out, level=level: seen.update({level: out}))
    quantized = made(x).quantized
    weight = torch.randn_like(quantized)
    bottom, top = torch.autograd.grad((weight * quantized).sum(), [seen[0], seen[1]])
    torch.testing.assert_close(bottom, weight[:, DIM:])
    codes = made(x).quantized[:, :DIM, ::2, ::2].detach().requires_grad_()
    up = made.to_codes[0](torch.cat([made.up[0](codes), x], 1))
    (through,) = torch.autograd.grad(up, codes, weight[:, DIM:])
    padded = F.pad(weight[:, :DIM], (0, 0, 0, 1))
    torch.testing.assert_close(top, 4 * F.avg_pool2d(padded, 2) + through)


def test_the_distortion_alone_trains_both_levels() -> None:
    made = model()
    output = made(torch.rand(4, 1, 20, 12))
    (-output.likelihood.log_prob(torch.rand(4, 1, 20, 12)).mean()).backward()
    parts = [made.encoder, made.bottleneck.quantizer]
    for name, parameter in [pair for part in parts for pair in part.named_parameters()]:
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("codebook", ["ema", "gradient"])
def test_both_codebooks_learn(codebook: str) -> None:
    made = model(codebook=codebook, dead_code_steps=None).train()
    assert made.loss is not None
    quantizers = made.bottleneck.quantizer.quantizers
    before = [q.codebook.clone() for q in quantizers]
    optimizer = torch.optim.SGD(made.parameters(), 0.1)
    x = Batch(torch.rand(4, 1, 20, 12))
    made.loss(made, x, StepContext(torch.tensor(0), 10, 4)).loss.backward()
    optimizer.step()
    assert all((q.codebook - b).abs().max() > 1e-4 for q, b in zip(quantizers, before, strict=True))


def test_losses_and_rate_are_sums_over_both_levels() -> None:
    made, x = quantizer(), torch.randn(3, 2 * DIM, 5, 8)
    seen: dict[int, Tensor] = {}
    for level, layer in enumerate(made.to_codes):
        layer.register_forward_hook(lambda _, __, out, level=level: seen.update({level: out}))
    output = made(x)
    codes = made.indices_to_codes(output.indices).split(made.sections, 2)
    distances = [
        (seen[level].flatten(2) - part).square().sum((1, 2))
        for level, part in zip((1, 0), codes, strict=True)
    ]
    torch.testing.assert_close(output.losses["commitment"], distances[0] + distances[1])
    torch.testing.assert_close(output.losses["codebook"], distances[0] + distances[1])
    whole = model()
    posterior = whole.encode(torch.rand(2, 1, 20, 12))
    rate = posterior.kl_divergence(whole.prior(), None)
    torch.testing.assert_close(rate, torch.full((2,), (3 * 2 + 5 * 3) * math.log(CODES)))


def test_the_use_of_codes_is_the_mean_over_levels() -> None:
    """The top has one code at 3 positions, the level below 6 codes at 6: not 6 of 8 together."""
    indices = torch.tensor([[2, 2, 2, 0, 1, 2, 3, 4, 5]])
    perplexity, usage = code_usage(indices, 8, sections=(3, 6))
    assert perplexity.item() == pytest.approx((1 + 6) / 2, rel=1e-6)
    assert usage.item() == pytest.approx((1 / 8 + 6 / 8) / 2)


def test_the_prior_knows_both_levels() -> None:
    """Fitted to one image, it draws the codes of this image, those of each level in its part."""
    torch.manual_seed(0)
    made = model((1, 8, 8), prior_steps=100).eval()
    x = torch.rand(1, 1, 8, 8)
    with torch.no_grad():  # codes apart from each other, so that several are used
        for q in made.bottleneck.quantizer.quantizers:
            q.codebook.copy_(torch.randn(CODES, DIM) * 0.3)
    made.fit_sampler([Batch(x)])
    prior, posterior = made.sampling_prior(), made.encode(x)
    assert -prior.log_prob(posterior.mean).item() < 2  # uniform: 5 log 7 = 9.7
    drawn = prior.with_temperature(0.0).sample(torch.Size((2,)))
    torch.testing.assert_close(drawn, posterior.mean.expand(2, -1, -1))
