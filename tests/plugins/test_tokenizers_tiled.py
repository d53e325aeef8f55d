"""Tiles give what the whole image gives, where the network sees less than the overlap."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from torch import Tensor, nn

import vaezoo
from vaezoo import EncoderDecoderVAE
from vaezoo.errors import DataError, OptionError
from vaezoo_tokenizers.tiled import _weights, decode_tiled, encode_tiled, map_tiles


@pytest.mark.parametrize("scale", [Fraction(1), Fraction(1, 4), Fraction(8)])
@pytest.mark.parametrize(
    ("size", "tile", "overlap"), [(64, 16, 8), (36, 16, 4), (20, 20, 8), (28, 8, 0)]
)
def test_weights_sum_to_one_and_are_zero_at_inner_borders(
    size: int, tile: int, overlap: int, scale: Fraction
) -> None:
    weights = _weights(size, tile, overlap, scale)
    assert weights.shape[1] == size * scale
    torch.testing.assert_close(weights.sum(0), torch.ones(int(size * scale)))
    assert (weights >= 0).all()
    margin = int(overlap * scale) // 4
    for row in weights:
        support = row.nonzero().flatten()
        assert len(support) <= tile * scale - (0 if len(weights) == 1 else margin)


def local(radius: int) -> nn.Module:
    """A random network with convolutions that see `radius` positions to each side."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for _ in range(radius):
        layers += [nn.Conv2d(3, 3, 3, padding=1), nn.Tanh()]
    return nn.Sequential(*layers)


@pytest.mark.parametrize("shape", [(40, 40), (24, 52), (16, 16), (12, 40)])
def test_equals_the_plain_output_where_the_network_sees_a_quarter(shape: tuple[int, int]) -> None:
    x = torch.randn(2, 3, *shape)
    for radius, exact in ((2, True), (6, False)):
        network = local(radius)
        found = map_tiles(network, x, (16, 16), 8)
        difference = (found - network(x)).abs().max()
        assert (difference < 1e-5) == (exact or shape == (16, 16)), f"{radius}: {difference}"


@pytest.mark.parametrize("up", [True, False])
def test_a_change_of_size_is_that_of_the_whole(up: bool) -> None:
    pool: nn.Module = nn.Upsample(scale_factor=4) if up else nn.AvgPool2d(4)
    network = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), pool)
    x = torch.randn(1, 3, 24, 40)
    scale = Fraction(4) if up else Fraction(1, 4)
    torch.testing.assert_close(map_tiles(network, x, (16, 16), 8, scale), network(x))


def build(name: str = "autoencoder_kl", size: int = 16, **options: object) -> EncoderDecoderVAE:
    torch.manual_seed(0)
    small = {"hidden": (8, 8), "layers_per_block": 1, "norm_groups": 4, **options}
    model = vaezoo.create_model(name, (3, size, size), **small)
    assert isinstance(model, EncoderDecoderVAE)
    return model.eval()


def no_statistics(model: EncoderDecoderVAE) -> EncoderDecoderVAE:
    """Without group norm, whose statistics are of a whole image, the network is local."""
    for module in [*model.modules()]:
        for name, child in module.named_children():
            if isinstance(child, nn.GroupNorm):
                setattr(module, name, nn.Identity())
    return model


@torch.no_grad()
def test_a_model_encodes_and_decodes_larger_images_in_tiles() -> None:
    model = no_statistics(build(attention=False))
    x = torch.rand(2, 3, 64, 96)
    posterior, plain = encode_tiled(model, x, tile=(24, 24), overlap=22), model.encode(x)
    assert posterior.mean.shape == (2, 4, 32, 48)
    torch.testing.assert_close(posterior.mean, plain.mean, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(posterior.variance, plain.variance, atol=1e-5, rtol=1e-4)
    z = plain.mean
    found = decode_tiled(model, z, tile=(28, 28), overlap=26).mean
    assert found.shape == x.shape
    torch.testing.assert_close(found, model.decode(z).mean, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_tiles_are_as_large_as_in_training_by_default() -> None:
    sizes: list[tuple[int, ...]] = []

    def note(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        sizes.append(tuple(arguments[0].shape[2:]))

    for model in (build(), vaezoo.create_model("vit_vae", (3, 16, 16), embed_dim=16, depth=1)):
        assert isinstance(model, EncoderDecoderVAE)
        model.encoder.register_forward_pre_hook(note)
        posterior = encode_tiled(model, torch.rand(1, 3, 40, 24))
        assert decode_tiled(model, posterior.mean).mean.shape == (1, 3, 40, 24)
    assert {*sizes} == {(16, 16)}


def test_what_has_no_grid_or_does_not_fit_is_refused() -> None:
    x = torch.rand(1, 3, 32, 32)
    with pytest.raises(OptionError, match="latent on a grid of rows and columns"):
        encode_tiled(build(latent_grid=False), x)
    with pytest.raises(DataError, match="31×32: the sides must be multiples of 2"):
        encode_tiled(build(), x[:, :, :31])
    with pytest.raises(OptionError, match="overlap of 8: give an overlap from 0 to below"):
        encode_tiled(build(), x, overlap=8)
