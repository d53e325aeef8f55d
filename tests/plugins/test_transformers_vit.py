"""The network `vit`: its block is torch's, its patches come back, its positions are told apart."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import vaezoo
from vaezoo import DataSpec
from vaezoo.errors import DataError, OptionError
from vaezoo.models.distributions import diagonal_normal
from vaezoo.options import parse
from vaezoo_deterministic.smoothness import gradient_penalty
from vaezoo_transformers.block import TransformerBlock
from vaezoo_transformers.network import ViTNetwork
from vaezoo_transformers.options import ViTOptions
from vaezoo_transformers.patches import patchify, unpatchify
from vaezoo_transformers.positions import grid_sinusoids
from vaezoo_transformers.vit import GridEncoder, PatchHead, Structure, TokenEncoder


def network(shape: tuple[int, ...] = (3, 16, 24), **options: Any) -> ViTNetwork:
    small = {"embed_dim": 16, "depth": 2, "num_heads": 2, "patch_size": 4, **options}
    return ViTNetwork(parse(ViTOptions, small, "network vit"), DataSpec(shape=shape))


@pytest.mark.parametrize("tokens", [None, 1, 5])
@pytest.mark.parametrize(
    ("shape", "patch", "grid"),
    [((1, 28, 28), None, (7, 7)), ((3, 64, 32), None, (8, 4)), ((5, 6, 9), 3, (2, 3))],
)
def test_sizes_channels_and_patches(
    shape: tuple[int, int, int], patch: int | None, grid: tuple[int, int], tokens: int | None
) -> None:
    found = network(shape, patch_size=patch, latent_tokens=tokens)
    assert found.structure.grid == grid
    assert found.latent_grid == (grid if tokens is None else (tokens,))
    z = found.grid_encoder(6)(torch.rand(2, *shape))
    assert z.shape == (2, 6, *found.latent_grid)
    assert found.grid_decoder(6, (2, *shape[1:]))(z).shape == (2, 2, *shape[1:])
    assert found.encoder(7)(torch.rand(2, *shape)).shape == (2, 7)
    assert found.decoder(7, shape)(torch.randn(2, 7)).shape == (2, *shape)


def test_patches_that_do_not_fit_are_refused_with_those_that_do() -> None:
    with pytest.raises(
        DataError, match=r"--patch-size 5 does not divide .* 16×24 images; give 1 or"
    ):
        network(patch_size=5)
    with pytest.raises(DataError, match=r"divide 30×47 .* at most 8 .* --patch-size 1, or"):
        network((1, 30, 47), patch_size=None)
    with pytest.raises(OptionError, match="--embed-dim 18 is no multiple of --num-heads 4"):
        network(embed_dim=18, num_heads=4)
    with pytest.raises(OptionError, match="--embed-dim 18: sinusoidal positions need a multiple"):
        network(embed_dim=18, num_heads=3)
    network(embed_dim=18, num_heads=3, positions="learned")


def test_patches_come_back_and_are_those_of_a_strided_convolution() -> None:
    x = torch.randn(2, 3, 8, 12)
    patches = patchify(x, 4)
    torch.testing.assert_close(patches[:, 1].view(2, 3, 4, 4), x[:, :, :4, 4:8], rtol=0, atol=0)
    torch.testing.assert_close(unpatchify(patches, 4, (2, 3)), x, rtol=0, atol=0)
    conv, linear = nn.Conv2d(3, 5, 4, stride=4), nn.Linear(48, 5)
    with torch.no_grad():
        linear.weight.copy_(conv.weight.flatten(1))
        linear.bias.copy_(conv.bias)
    torch.testing.assert_close(linear(patches), conv(x).flatten(2).mT)


def test_the_block_is_the_encoder_layer_of_torch() -> None:
    torch.manual_seed(0)
    ours = TransformerBlock(12, 3)
    theirs = nn.TransformerEncoderLayer(
        12, 3, 48, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    )
    names = {
        "norm1": ours.norm,
        "self_attn.out_proj": ours.project,
        "norm2": ours.mlp[0],
        "linear1": ours.mlp[1],
        "linear2": ours.mlp[3],
    }
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.normal_(std=0.5)
        for name, layer in names.items():
            theirs.get_submodule(name).load_state_dict(layer.state_dict())
        theirs.self_attn.in_proj_weight.copy_(ours.attention.weight)
        theirs.self_attn.in_proj_bias.copy_(ours.attention.bias)
    x = torch.randn(2, 7, 12)
    torch.testing.assert_close(ours(x), theirs(x))
    causal = TransformerBlock(12, 3, causal=True)
    causal.load_state_dict(ours.state_dict())
    mask = nn.Transformer.generate_square_subsequent_mask(7)
    torch.testing.assert_close(causal(x), theirs(x, src_mask=mask))


def test_the_product_of_two_positions_depends_on_their_distance() -> None:
    """sin a sin b + cos a cos b = cos(a - b), for rows and columns, each with its frequencies."""
    rows, columns, width = 4, 5, 16
    table = grid_sinusoids((rows, columns), width)
    frequencies = [10_000 ** (-i / 4) for i in range(4)]
    expected = torch.tensor(
        [
            [
                sum(
                    math.cos(w * (p // columns - q // columns))
                    + math.cos(w * (p % columns - q % columns))
                    for w in frequencies
                )
                for q in range(rows * columns)
            ]
            for p in range(rows * columns)
        ]
    )
    torch.testing.assert_close(table @ table.T, expected)
    nearest = torch.cdist(table, table).fill_diagonal_(math.inf).min()
    assert nearest > 0.5, "two positions have one embedding"


def make_encoder(kind: str) -> tuple[nn.Module, Structure]:
    torch.manual_seed(1)
    structure = Structure((2, 3), 2, 16, 2, 2)
    if kind == "grid":
        return GridEncoder(structure, 1, 4), structure
    return TokenEncoder(structure, 1, 4, 4), structure


def permute(x: Tensor, order: Tensor) -> Tensor:
    return unpatchify(patchify(x, 2)[:, order], 2, (2, 3))


@pytest.mark.parametrize("kind", ["grid", "tokens"])
def test_attention_knows_positions_only_by_their_embeddings(kind: str) -> None:
    """Patches that move with their embeddings: the grid moves alike, tokens stay as they are.

    Patches that move alone change both.
    """
    encoder, _ = make_encoder(kind)
    x, order = torch.rand(3, 1, 4, 6), torch.tensor([3, 0, 5, 4, 1, 2])
    before = encoder(x)
    expected = before.flatten(2)[:, :, order].view_as(before) if kind == "grid" else before
    assert (encoder(permute(x, order)) - expected).abs().max() > 1e-4
    positions = encoder.get_submodule("embedding.positions")
    positions.embeddings = positions.get_buffer("embeddings")[order]
    torch.testing.assert_close(encoder(permute(x, order)), expected)


def test_the_convolution_of_the_head_starts_as_the_identity() -> None:
    head = PatchHead(Structure((2, 3), 2, 16, 2, 2), 3)
    x = torch.randn(2, 6, 16)
    torch.testing.assert_close(head(x), unpatchify(head.project(x), 2, (2, 3)))


def test_every_token_sees_every_patch_and_every_pixel_every_token() -> None:
    found = network(latent_tokens=3, depth=1)
    encoder, decoder = found.grid_encoder(2), found.grid_decoder(2, (3, 16, 24))
    x = torch.rand(1, 3, 16, 24, requires_grad=True)
    z = encoder(x)
    for token in range(3):
        (slope,) = torch.autograd.grad(z[0, :, token].sum(), x, retain_graph=True)
        assert (patchify(slope, 4).abs().sum(2) > 0).all()
    for pixel in ((0, 0), (15, 23)):
        (slope,) = torch.autograd.grad(decoder(z)[0, 0, *pixel], z, retain_graph=True)
        assert (slope.abs().sum(1) > 0).all()


def test_the_decoder_of_titok_sees_the_image_through_its_tokens_alone() -> None:
    """With equal codes two images have one reconstruction; its gradient is that of the tokens."""
    torch.manual_seed(0)
    small = {"embed_dim": 16, "depth": 1, "num_heads": 2, "latent_tokens": 4, "codes": 8}
    model = vaezoo.create_model("titok", (1, 16, 16), **small, dead_code_steps=None)
    assert model.latent_shape == (12, 4)
    x = torch.rand(2, 1, 16, 16, requires_grad=True)
    posterior = model.eval().encode(x)
    assert posterior.indices.shape == (2, 4)
    z = posterior.rsample()
    mean = model.decode(z).mean
    (through,) = torch.autograd.grad(mean.square().sum(), z, retain_graph=True)
    (of_image,) = torch.autograd.grad(mean.square().sum(), x, retain_graph=True)
    (of_tokens,) = torch.autograd.grad(z, x, through)
    torch.testing.assert_close(of_image, of_tokens)
    assert of_image.abs().max() > 0
    torch.testing.assert_close(model.reconstruct(x), model.decode(z.detach()).mean)


def test_sinusoidal_weights_fit_another_size_and_learned_ones_do_not() -> None:
    saved = network((3, 16, 24)).grid_encoder(4).state_dict()
    network((3, 32, 8)).grid_encoder(4).load_state_dict(saved)
    learned = network((3, 16, 24), positions="learned").grid_encoder(4).state_dict()
    with pytest.raises(RuntimeError, match="size mismatch"):
        network((3, 32, 16), positions="learned").grid_encoder(4).load_state_dict(learned)


@pytest.mark.parametrize("bottleneck", ["vq", "fsq", "rvq", "bsq", "multi_scale"])
def test_any_quantizer_quantizes_the_tokens(bottleneck: str) -> None:
    small = {"embed_dim": 16, "depth": 1, "num_heads": 2, "latent_tokens": 6}
    model = vaezoo.create_model("titok", (1, 16, 16), bottleneck=bottleneck, **small)
    output = model.eval()(torch.rand(2, 1, 16, 16))
    assert output.likelihood.mean.shape == (2, 1, 16, 16)
    assert model.sampler is not None
    sampled = model.sampler.distribution().sample(torch.Size((2,)))
    assert model.decode(sampled).mean.shape == (2, 1, 16, 16)


def test_a_gradient_penalty_differentiates_attention_twice() -> None:
    """∂ penalty / ∂ weight against finite differences, through all of the decoder."""
    torch.manual_seed(0)
    decoder = network((1, 8, 8), depth=1).decoder(2, (1, 8, 8)).double()
    z, weight = (
        torch.randn(1, 2).double(),
        decoder.get_parameter("2.transformer.0.attention.weight"),
    )

    def penalty() -> Tensor:
        torch.manual_seed(7)
        return gradient_penalty(lambda z: diagonal_normal(decoder(z), torch.ones(())), z)[1].sum()

    (slope,) = torch.autograd.grad(penalty(), weight)
    step = 1e-5 * torch.randn_like(weight)
    with torch.no_grad():
        weight += step
        above = penalty()
        weight -= 2 * step
        below = penalty()
    torch.testing.assert_close((slope * step).sum(), (above - below) / 2, rtol=1e-4, atol=0)
