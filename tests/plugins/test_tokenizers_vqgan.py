"""`vqgan` is the VQModel of diffusers, quantizer included, and its loss is the published one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import vaezoo
from vaezoo_discrete.distributions import CodePosterior

SMALL: dict[str, Any] = {
    "layers_per_block": 1,
    "norm_groups": 2,
    "codes": 11,
    "code_dim": 5,
    "prior_width": 8,
    "prior_layers": 1,
}


@pytest.mark.parametrize(
    ("levels", "shape", "grid"),
    [(3, (1, 12, 20), (3, 5)), (4, (4, 8, 24), (1, 3)), (5, (2, 16, 32), (1, 2))],
)
def test_codes_of_any_factor_channels_and_size(
    levels: int, shape: tuple[int, int, int], grid: tuple[int, int]
) -> None:
    model = vaezoo.create_model("vqgan", shape, hidden=(4,) * levels, **SMALL).eval()
    x = torch.rand(3, *shape)
    posterior = model.encode(x)
    assert isinstance(posterior, CodePosterior)
    assert posterior.indices.shape == (3, *grid)
    assert model.latent_shape == (5, *grid)
    assert model.reconstruct(x).shape == x.shape
    assert model.sample(2).shape == (2, *shape)


def test_it_is_the_vqmodel_of_diffusers(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the same weights: features, indices and images, which are not square."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    theirs = diffusers.VQModel(
        in_channels=3,
        out_channels=3,
        down_block_types=["DownEncoderBlock2D"] * 3,
        up_block_types=["UpDecoderBlock2D"] * 3,
        block_out_channels=(4, 6, 8),
        latent_channels=5,
        vq_embed_dim=5,
        num_vq_embeddings=11,
        norm_num_groups=2,
        layers_per_block=1,
    ).eval()
    for parameter in theirs.parameters():  # biases and norms too: they start at 0 and 1
        nn.init.normal_(parameter, std=0.3)
    nn.init.normal_(theirs.decoder.conv_out.weight)
    x = torch.rand(2, 3, 16, 12)
    with torch.no_grad():  # codes among the features, so that several are used
        features = theirs.encode(2 * x - 1).latents
        rows = features.movedim(1, -1).flatten(0, 2)[::2][:11]
        theirs.quantize.embedding.weight.copy_(rows + 0.1 * features.std() * torch.randn(11, 5))
    ours = vaezoo.create_model("vqgan", (3, 16, 12), hidden=(4, 6, 8), **SMALL).eval()
    own: dict[str, Tensor] = {}
    for name, tensor in theirs.state_dict().items():
        if name.startswith("quantize."):
            own["bottleneck.quantizer.codebook"] = tensor
        else:
            part = {"quant_conv": "encoder.", "post_quant_conv": "decoder."}
            own[part.get(name.partition(".")[0], "") + name] = tensor
    missing = ours.load_state_dict(own, strict=False)
    assert not missing.unexpected_keys
    assert not [n for n in missing.missing_keys if n.startswith(("encoder", "decoder"))]
    with torch.no_grad():
        torch.testing.assert_close(ours.encoder(x), features, atol=1e-5, rtol=1e-5)
        indices = theirs.quantize(features)[2][2].view(2, 4, 3)
        posterior = ours.encode(x)
        assert isinstance(posterior, CodePosterior)
        assert posterior.indices.equal(indices)
        assert len(indices.unique()) > 2
        image = theirs.decode(features).sample
        assert image.abs().max() > 1  # so that the clamp of the mean is seen
        expected = ((image + 1) / 2).clamp(0, 1)
        torch.testing.assert_close(ours.reconstruct(x), expected, atol=1e-5, rtol=1e-5)


def test_its_loss_is_the_absolute_error_with_the_terms_of_the_codes() -> None:
    """Esser et al. 2021, equation 4, without the perceptual term, as sums over an image.

    The published weight of a mean over the features is that of a sum, multiplied by the number of
    values of the image and divided by that of the features.
    """
    torch.manual_seed(0)
    shape, beta = (3, 16, 8), 0.25
    positions, image = 4 * 2, 3 * 16 * 8
    model = vaezoo.create_model(
        "vqgan",
        shape,
        hidden=(4, 4, 4),
        codebook="gradient",
        dead_code_steps=None,
        loss="vq",
        commitment=beta * image / (5 * positions),
        **SMALL,
    )
    assert model.loss is not None
    x = torch.rand(4, *shape)
    output = model.loss(model, vaezoo.Batch(x), vaezoo.StepContext(torch.tensor(0), 10, 4))
    features = model.encoder(x)
    codes = model.encode(x).mean
    published = (2 * x - 1 - model.decoder(codes)).abs().mean()
    published = published + beta * (features - codes).square().mean()
    uniform = positions * torch.tensor(11.0).log()
    codebook = (features - codes).square().sum() / len(x)
    torch.testing.assert_close(output.loss - uniform - codebook, published * image)
