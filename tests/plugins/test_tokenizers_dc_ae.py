"""`dc_ae` is the AutoencoderDC of diffusers; its shortcuts and its attention are their formulas."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import vaezoo
from vaezoo.data.loader import BatchLoader
from vaezoo.errors import DataError, OptionError
from vaezoo.evaluation.metric import EvalContext
from vaezoo.plugins.specs import METRIC_REQUIRES
from vaezoo_tokenizers.dc_ae import DownSample, UpSample, to_channels
from vaezoo_tokenizers.efficientvit import ChannelRMSNorm, LinearAttention, linear_attention

SAMPLER: dict[str, Any] = {"width": 8, "layers": 2}


@pytest.mark.parametrize(
    ("hidden", "layers", "shape", "grid", "channels"),
    [
        ((6, 8), None, (1, 10, 14), (5, 7), 32),
        ((5, 8, 12, 20), (0, 1, 1, 1), (2, 24, 8), (3, 1), 9),
        ((4, 4, 4, 8, 8, 8), (1,) * 6, (4, 32, 64), (1, 2), 3),
    ],
)
def test_any_factor_channels_and_size(
    hidden: tuple[int, ...],
    layers: tuple[int, ...] | None,
    shape: tuple[int, int, int],
    grid: tuple[int, int],
    channels: int,
) -> None:
    """Also where numbers of channels do not divide each other."""
    model = vaezoo.create_model(
        "dc_ae",
        shape,
        hidden=hidden,
        encoder_layers=layers,
        decoder_layers=layers,
        latent_dim=channels,
        head_dim=4,
        **SAMPLER,
    )
    x = torch.rand(2, *shape)
    assert model.encode(x).mean.shape == (2, channels, *grid)
    assert model(x).likelihood.mean.shape == x.shape


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"hidden": (8, 10)}, "hidden 10 below the first level is no multiple of 4"),
        ({"hidden": (8, 8), "encoder_layers": (1,)}, "has 1 numbers and hidden 2: give one a"),
        ({"hidden": (8, 8), "decoder_layers": (1, 0)}, "is 0 at a level below the first"),
        ({"hidden": (8, 8), "attention_levels": (2,)}, "levels of hidden are 0 to 1"),
        ({"hidden": (8, 8), "batch_norm_levels": (1,)}, "1 has EfficientViT blocks"),
        ({"attention_scales": (4,)}, "attention_scales 4 is even: give 5"),
    ],
)
def test_what_does_not_fit_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        vaezoo.create_model("dc_ae", (3, 16, 16), **options)


def test_another_size_is_refused_with_the_sizes_that_fit() -> None:
    with pytest.raises(DataError, match="network dc_ae with 3 levels takes images whose sides are"):
        vaezoo.create_model("dc_ae", (3, 30, 45), hidden=(8, 8, 8))


def zero(layer: nn.Module) -> nn.Module:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer


@pytest.mark.parametrize("kind", ["pixel_unshuffle", "conv"])
def test_without_its_residual_a_level_down_is_the_mean_of_groups(kind: Any) -> None:
    """Channel c of the input at (2i + a, 2j + b) is channel 4c + 2a + b; then means of 3."""
    x = torch.randn(2, 6, 4, 10)
    found = zero(DownSample(6, 8, kind))(x)
    moved = [x[:, channel, a::2, b::2] for channel in range(6) for a in range(2) for b in range(2)]
    expected = [torch.stack(moved[3 * i : 3 * i + 3]).mean(0) for i in range(8)]
    torch.testing.assert_close(found, torch.stack(expected, 1))


@pytest.mark.parametrize("kind", ["pixel_shuffle", "interpolate"])
def test_without_its_residual_a_level_up_copies_channels(kind: Any) -> None:
    """Of 4 channels 6·4 = 24 are made: 6 copies of each, and these are moved to space."""
    x = torch.randn(2, 4, 3, 5)
    found = zero(UpSample(4, 6, kind))(x)
    for channel in range(6):
        for a in range(2):
            for b in range(2):
                source = x[:, (4 * channel + 2 * a + b) // 6]
                assert found[:, channel, a::2, b::2].equal(source)


def test_down_and_up_without_residuals_are_the_identity_where_nothing_is_averaged() -> None:
    x = torch.randn(2, 3, 8, 4)
    down = nn.Sequential(DownSample(3, 12, "pixel_unshuffle"), DownSample(12, 48, "conv"))
    up = nn.Sequential(UpSample(48, 12, "interpolate"), UpSample(12, 3, "pixel_shuffle"))
    assert zero(up)(zero(down)(x)).equal(x)


@pytest.mark.parametrize(("n", "channels"), [(6, 3), (3, 6), (5, 3), (3, 5), (4, 4)])
def test_channels_are_means_or_copies(n: int, channels: int) -> None:
    x = torch.randn(2, n, 3, 2)
    expected = [
        x[:, i * n // channels : -(-(i + 1) * n // channels)].mean(1) for i in range(channels)
    ]
    torch.testing.assert_close(to_channels(x, channels), torch.stack(expected, 1))


def test_the_features_pass_the_latent_by_shortcuts() -> None:
    """Without the convolutions around it: means of channels, and copies of them."""
    model = vaezoo.create_model("dc_ae", (3, 8, 8), hidden=(8, 16), latent_dim=4, **SAMPLER)
    encoder, decoder = model.encoder, model.decoder
    for layer in (encoder.conv_out, decoder.conv_in):
        zero(layer)
    h = torch.randn(2, 16, 4, 4)
    seen: list[Tensor] = []
    encoder.down_blocks.register_forward_hook(lambda *_: h)
    decoder.up_blocks[-1].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    z = encoder(torch.rand(2, 3, 8, 8))
    torch.testing.assert_close(z, h.view(2, 4, 4, 4, 4).mean(2))
    decoder(z)
    assert seen[0].equal(z.repeat_interleave(4, 1))


@pytest.mark.parametrize("positions", [1, 3, 40])
def test_linear_attention_is_the_quadratic_formula(positions: int) -> None:
    torch.manual_seed(0)
    q, k, v = (torch.rand(2, 3, 8, positions) - shift for shift in (0.3, 0.3, 0.5))
    for tensor in (q, k, v):
        tensor.requires_grad_()
    weights = torch.einsum("bhdi,bhdj->bhij", F.relu(q), F.relu(k))
    expected = torch.einsum("bhij,bhdj->bhdi", weights / weights.sum(-1, keepdim=True), v)
    found = linear_attention(q, k, v)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    cotangent = torch.randn_like(found)
    ours, theirs = (
        torch.autograd.grad((y * cotangent).sum(), (q, k, v)) for y in (found, expected)
    )
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=1e-3, rtol=1e-3)


def test_a_query_without_positive_values_finds_nothing_and_harms_no_gradient() -> None:
    q, k, v = -torch.rand(1, 4, 5), torch.rand(1, 4, 5), torch.randn(1, 4, 5)
    for tensor in (q, k, v):
        tensor.requires_grad_()
    found = linear_attention(q, k, v)
    assert found.abs().max() == 0
    assert all(slope.isfinite().all() for slope in torch.autograd.grad(found.sum(), (q, k, v)))


def test_attention_sees_all_positions_in_float32() -> None:
    attention = LinearAttention(8, 4, (3,))
    x = torch.randn(1, 8, 6, 6, requires_grad=True)
    nn.init.constant_(attention.norm_out.weight, 0.7)
    (slope,) = torch.autograd.grad((attention(x) - x)[0, 0, 0, 0], x)
    assert (slope.abs().amax(1) > 0).sum() > 30
    with torch.autocast("cpu", torch.bfloat16):
        half = attention(x)
    assert (half - attention(x)).abs().max() < 0.2


def test_the_norm_is_of_each_position() -> None:
    norm, x = ChannelRMSNorm(3), torch.randn(2, 3, 4, 5)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    expected = F.rms_norm(x.movedim(1, -1), (3,), norm.weight, 1e-5) + norm.bias
    torch.testing.assert_close(norm(x), expected.movedim(-1, 1))


@pytest.mark.parametrize(
    ("hidden", "encoder", "decoder", "ours", "theirs"),
    [
        ((4, 8, 16), (1, 2, 1), (2, 1, 1), {"attention_scales": (5,)}, {}),
        (
            (4, 8, 16),
            (0, 1, 2),
            (0, 2, 1),
            {"batch_norm_levels": (0, 1)},
            {
                "decoder_norm_types": ("batch_norm", "batch_norm", "rms_norm"),
                "decoder_act_fns": ("relu", "relu", "silu"),
            },
        ),
        (
            (8, 8, 16),
            (1, 1, 1),
            (1, 1, 1),
            {"downsample": "conv", "upsample": "interpolate", "attention_scales": (3, 5)},
            {"downsample_block_type": "Conv", "upsample_block_type": "interpolate"},
        ),
    ],
)
def test_it_is_the_autoencoder_dc_of_diffusers(
    hidden: tuple[int, ...],
    encoder: tuple[int, ...],
    decoder: tuple[int, ...],
    ours: dict[str, Any],
    theirs: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Same names, same shapes, same outputs, on images that are not square."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    blocks = ("ResBlock", "ResBlock", "EfficientViTBlock")
    scales = ((), (), ours.get("attention_scales", ()))
    peer = diffusers.AutoencoderDC(
        latent_channels=4,
        attention_head_dim=4,
        encoder_block_types=blocks,
        decoder_block_types=blocks,
        encoder_block_out_channels=hidden,
        decoder_block_out_channels=hidden,
        encoder_layers_per_block=encoder,
        decoder_layers_per_block=decoder,
        encoder_qkv_multiscales=scales,
        decoder_qkv_multiscales=scales,
        **theirs,
    ).eval()
    for parameter in peer.parameters():  # biases and norms too: they start at 0 and 1
        nn.init.normal_(parameter, std=0.4)
    model = vaezoo.create_model(
        "dc_ae",
        (3, 12, 20),
        hidden=hidden,
        encoder_layers=encoder,
        decoder_layers=decoder,
        latent_dim=4,
        head_dim=4,
        **ours,
        **SAMPLER,
    ).eval()
    missing, unexpected = model.load_state_dict(peer.state_dict(), strict=False)
    assert not unexpected
    assert all(name.startswith("sampler.") for name in missing)
    x = torch.rand(2, 3, 12, 20)
    with torch.no_grad():
        z = peer.encode(2 * x - 1).latent
        torch.testing.assert_close(model.encode(x).mean, z, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(model.decoder(z), peer.decode(z).sample, atol=1e-4, rtol=1e-4)


def test_metrics_say_that_it_has_no_elbo_whatever_its_sampler_is() -> None:
    model = vaezoo.create_model("dc_ae", (1, 8, 8), hidden=(4, 4), **SAMPLER).eval()
    model.sampler.fitted.fill_(True)
    assert not model.prior_has_density
    split = vaezoo.TensorSplit(torch.rand(2, 1, 8, 8))
    batches = BatchLoader(split, batch_size=2, device=torch.device("cpu"))
    context = EvalContext(model, frozenset(("deterministic",)), batches)
    assert not context.has("elbo")
    assert context.why_not("elbo") == METRIC_REQUIRES["elbo"]
    able = EvalContext(model, frozenset(("elbo",)), batches)
    assert not able.has("elbo")
    assert "no density" in able.why_not("elbo")
