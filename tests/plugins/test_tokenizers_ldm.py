"""The network `ldm` has the layers of diffusers; its likelihoods are their formulas."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.distributions import Laplace, Normal

import vaezoo
from vaezoo import DataSpec
from vaezoo.errors import DataError, OptionError
from vaezoo.options import parse
from vaezoo_tokenizers.ldm import Attention, Downsample, LDMDecoder, LDMEncoder, Structure
from vaezoo_tokenizers.likelihoods import GaussianLinearLikelihood, LaplaceLinearLikelihood
from vaezoo_tokenizers.network import LDMNetwork
from vaezoo_tokenizers.options import LDMOptions, LinearOptions


def network(shape: tuple[int, ...] = (3, 16, 16), **options: Any) -> LDMNetwork:
    small = {"hidden": (8, 8), "layers_per_block": 1, "norm_groups": 4, **options}
    return LDMNetwork(parse(LDMOptions, small, "network ldm"), DataSpec(shape=shape))


@pytest.mark.parametrize(
    ("hidden", "size", "grid"),
    [((8,), (5, 7), (5, 7)), ((8, 8, 8), (8, 12), (2, 3)), ((8,) * 5, (16, 48), (1, 3))],
)
def test_the_factor_follows_from_the_levels(
    hidden: tuple[int, ...], size: tuple[int, int], grid: tuple[int, int]
) -> None:
    found = network((2, *size), hidden=hidden)
    assert found.latent_grid == grid
    z = found.grid_encoder(6)(torch.rand(2, 2, *size))
    assert z.shape == (2, 6, *grid)
    assert found.grid_decoder(6, (5, *size))(z).shape == (2, 5, *size)


def test_another_size_is_refused_with_the_sizes_that_fit() -> None:
    with pytest.raises(DataError) as caught:
        network((3, 30, 45), hidden=(8, 8, 8))
    assert "multiples of 4, as 28 and 44, not 30×45" in str(caught.value)


def test_groups_and_levels_that_do_not_fit_are_refused() -> None:
    with pytest.raises(
        OptionError, match="--norm-groups 5 does not divide 8 of --hidden: give 1 or"
    ):
        network(norm_groups=5)
    with pytest.raises(
        OptionError, match="--attention-levels 2: the levels of --hidden are 0 to 1"
    ):
        network(attention_levels=(0, 2))


def test_attention_is_that_of_torch() -> None:
    """nn.MultiheadAttention with one head, on the same weights; both forms of it."""
    torch.manual_seed(0)
    for size in (5, 48):
        ours, theirs = Attention(6, 3), nn.MultiheadAttention(6, 1, batch_first=True)
        x = torch.randn(2, 6, size, size)
        with torch.no_grad():
            ours.group_norm.weight.normal_()
            packed = [ours.to_q, ours.to_k, ours.to_v]
            theirs.in_proj_weight.copy_(torch.cat([layer.weight for layer in packed]))
            theirs.in_proj_bias.copy_(torch.cat([layer.bias for layer in packed]))
            theirs.out_proj.load_state_dict(ours.to_out[0].state_dict())
            rows = ours.group_norm(x).flatten(2).mT
            expected = x + theirs(rows, rows, rows)[0].mT.reshape(x.shape)
            torch.testing.assert_close(ours(x), expected, atol=1e-5, rtol=1e-5)


def test_attention_can_be_differentiated_twice() -> None:
    """As a gradient penalty on the decoder does."""
    z = torch.randn(2, 8, 8, 8, requires_grad=True)
    decoder = network((3, 16, 16)).grid_decoder(8, (3, 16, 16))
    (slope,) = torch.autograd.grad(decoder(z).sum(), z, create_graph=True)
    slope.square().sum().backward()
    assert all(p.grad is not None for n, p in decoder.named_parameters() if "to_q" in n)


def test_downsample_reads_one_row_and_column_below_and_on_the_right() -> None:
    layer = Downsample(1)
    with torch.no_grad():
        layer.conv.weight.zero_()
        layer.conv.bias.zero_()
        layer.conv.weight[0, 0, 2, 2] = 1.0
        x = torch.arange(16.0).view(1, 1, 4, 4)
        assert layer(x).tolist() == [[[[10.0, 0.0], [0.0, 0.0]]]]


@pytest.mark.parametrize("quant_conv", [True, False])
@pytest.mark.parametrize(
    ("channels", "hidden", "layers", "groups", "attention", "levels"),
    [
        (3, (6, 12, 18), 1, 3, True, ()),
        (1, (10,), 2, 5, False, ()),
        (4, (8, 4), 2, 1, True, (0,)),
    ],
)
def test_encoder_and_decoder_are_those_of_diffusers(
    channels: int,
    hidden: tuple[int, ...],
    layers: int,
    groups: int,
    attention: bool,
    levels: tuple[int, ...],
    quant_conv: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Same names, same shapes, same outputs, on images that are not square."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    kinds = ["Attn" if n in levels else "" for n in range(len(hidden))]
    theirs = diffusers.AutoencoderKL(
        in_channels=channels,
        out_channels=channels,
        down_block_types=[f"{kind}DownEncoderBlock2D" for kind in kinds],
        up_block_types=[f"{kind}UpDecoderBlock2D" for kind in reversed(kinds)],
        block_out_channels=hidden,
        layers_per_block=layers,
        latent_channels=4,
        norm_num_groups=groups,
        mid_block_add_attention=attention,
        use_quant_conv=quant_conv,
        use_post_quant_conv=quant_conv,
    ).eval()
    for parameter in theirs.parameters():  # biases and norms too: they start at 0 and 1
        nn.init.normal_(parameter, std=0.3)
    structure = Structure(hidden, layers, groups, attention, levels)
    encoder = LDMEncoder(structure, channels, 8, quant_conv=quant_conv)
    decoder = LDMDecoder(structure, 4, channels, post_quant_conv=quant_conv)
    names = {"quant_conv": "encoder.quant_conv", "post_quant_conv": "decoder.post_quant_conv"}
    state = {}
    for name, tensor in theirs.state_dict().items():
        first, _, rest = name.partition(".")
        state[f"{names.get(first, first)}.{rest}"] = tensor
    nn.ModuleDict({"encoder": encoder, "decoder": decoder}).load_state_dict(state)
    x = torch.randn(2, channels, 2 * structure.factor, 3 * structure.factor)
    with torch.no_grad():
        expected = theirs.encode(x).latent_dist
        torch.testing.assert_close(encoder(x), expected.parameters, atol=1e-5, rtol=1e-5)
        z = expected.mean
        torch.testing.assert_close(decoder(z), theirs.decode(z).sample, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("cls", "family"), [(LaplaceLinearLikelihood, Laplace), (GaussianLinearLikelihood, Normal)]
)
def test_a_linear_likelihood_has_the_location_without_tanh(cls: Any, family: Any) -> None:
    torch.manual_seed(0)
    data = DataSpec(shape=(3, 4, 5))
    likelihood = cls(LinearOptions(scale=0.3), data)
    raw, x = 2 * torch.randn(2, 3, 4, 5), torch.rand(2, 3, 4, 5)
    found = likelihood(raw)
    expected = family((raw + 1) / 2, 0.3).log_prob(x).sum((1, 2, 3))
    torch.testing.assert_close(found.log_prob(x), expected)
    assert found.mean.equal(((raw + 1) / 2).clamp(0, 1))
    assert raw.abs().max() > 1


def test_the_default_scale_is_the_absolute_error_of_latent_diffusion() -> None:
    """Of values in [-1, 1], up to a constant: so beta is the kl_weight of its published code."""
    model = vaezoo.create_model(
        "autoencoder_kl", (3, 8, 8), hidden=(8, 8), norm_groups=4, beta=0.01, layers_per_block=1
    )
    assert model.loss is not None
    x = torch.rand(2, 3, 8, 8)
    context = vaezoo.StepContext(torch.tensor(0), 10, 100)
    torch.manual_seed(1)
    loss = model.loss(model, vaezoo.Batch(x), context).loss
    torch.manual_seed(1)
    posterior = model.encode(x)
    raw = model.decoder(posterior.rsample())
    mean, std = posterior.mean, posterior.stddev
    kl = 0.5 * (mean**2 + std**2 - 1 - 2 * std.log()).sum() / len(x)
    absolute = (2 * x - 1 - raw).abs().sum() / len(x)
    constant = x[0].numel() * math.log(2 * 0.5)
    torch.testing.assert_close(loss, absolute + 0.01 * kl + constant)
