"""The option eq: latents and images are transformed alike; an equivariant model loses nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Distribution
from torch.nn import functional as F

import vaezoo
from vaezoo import BaseVAE, Batch, DataSpec, Options, StepContext
from vaezoo.errors import OptionError
from vaezoo.losses.base import loss_of
from vaezoo.models.distributions import Delta
from vaezoo.models.likelihoods import GaussianLikelihood
from vaezoo_perceptual.equivariance import View, make_views, turn
from vaezoo_perceptual.loss import PerceptualGANLoss
from vaezoo_perceptual.options import PerceptualGANOptions

CONTEXT = StepContext(torch.tensor(0), 10, 100)


def pictures(count: int, height: int = 16, width: int = 16) -> Tensor:
    return torch.rand(count, 1, height, width, generator=torch.manual_seed(3))


def view(count: int, height: int = 16, width: int = 16) -> View:
    """The latents are means of 4×4 pixels, so that they show whether both are treated alike."""
    x = pictures(count, height, width)
    return View(F.avg_pool2d(x, 4), x, torch.arange(count))


@pytest.mark.parametrize(("height", "width"), [(16, 16), (16, 24)])
@pytest.mark.parametrize("downscale", [1, 2])
def test_latents_and_images_are_transformed_alike(height: int, width: int, downscale: int) -> None:
    torch.manual_seed(0)
    views = make_views(view(12, height, width), 0.5, downscale)
    for z, x, _ in views:
        torch.testing.assert_close(F.avg_pool2d(x, 4), z)
    sizes = [tuple(found.x.shape) for found in views]
    if downscale == 1:
        assert sizes == [(12, 1, height, width)]
    else:
        assert sizes == [(9, 1, height, width), (3, 1, height // 2, width // 2)]
    labels = torch.cat([found.y for found in views if found.y is not None])
    assert labels.tolist() == [*range(12)]


def test_which_examples_are_transformed() -> None:
    torch.manual_seed(0)
    x = pictures(40)
    whole, small = make_views(View(x, x, None), 0.5, 2)
    assert whole.x[:20].equal(x[:20])
    for before, after in zip(x[20:30], whole.x[20:], strict=True):
        assert not before.equal(after)
        assert any(before.rot90(n, (-2, -1)).equal(after) for n in (1, 2, 3))
    assert small.x.shape == (10, 1, 8, 8)
    assert make_views(View(x, x, None), 1e-6, 2)[0].x.shape == x.shape
    assert make_views(View(x, x, None), 1.0, 2)[1].x.shape[0] == 20


def test_each_example_has_a_turn_of_its_own() -> None:
    torch.manual_seed(0)
    x = pictures(1).expand(90, -1, -1, -1)
    turned, _ = turn(x, x, 0)
    kinds = [sum(one.equal(x[0].rot90(n, (-2, -1))) for one in turned) for n in (0, 1, 2, 3)]
    assert kinds[0] == 0
    assert min(kinds[1:]) > 15
    wide = pictures(5, 8, 12)
    assert turn(wide, wide, 0)[0].equal(wide.flip(-2, -1))


class Pooling(BaseVAE):
    """Means of squares, and each spread over its square: it commutes with turns."""

    def __init__(self) -> None:
        super().__init__(Options(), DataSpec(shape=(1, 16, 16)))
        self.latent_shape = (1, 4, 4)
        self.likelihood = GaussianLikelihood(self.data, 0.25, learned=False)
        self.decoded: list[torch.Size] = []

    def encode(self, x: Tensor, y: Tensor | None = None) -> Distribution:
        return Delta(F.avg_pool2d(x, 4), 3)

    def decode(self, z: Tensor, y: Tensor | None = None) -> Distribution:
        self.decoded.append(z.shape)
        return Delta(F.interpolate(z, scale_factor=4), 3)


class Scored(Pooling):
    def decode(self, z: Tensor, y: Tensor | None = None) -> Distribution:
        mean = super().decode(z, y).mean
        scale = torch.ones_like(mean)
        return torch.distributions.Independent(torch.distributions.Normal(mean, scale), 3)


def loss_for(model: BaseVAE, **options: Any) -> PerceptualGANLoss:
    own = {"perceptual": "none", "adversarial_weight": 0, **options}
    return PerceptualGANLoss(PerceptualGANOptions(**own), model, model.data)


class TestInTheLoss:
    @pytest.mark.parametrize("reconstruction", ["l1", "likelihood"])
    def test_an_equivariant_model_loses_nothing(self, reconstruction: str) -> None:
        batch = Batch(pictures(8))
        found = [
            loss_for(Scored(), reconstruction=reconstruction, **options)(Scored(), batch, CONTEXT)
            for options in ({}, {"eq": 1.0, "eq_downscale": 1})
        ]
        torch.testing.assert_close(found[0].loss, found[1].loss)

    def test_a_smaller_image_counts_as_a_whole_one(self) -> None:
        """By hand: Σ |x - x̂| of half the size, times four, and the terms are of every example."""
        model, x = Scored(), pictures(4)
        found = loss_for(model, eq=1.0)(model, Batch(x), CONTEXT)
        small = F.avg_pool2d(x[2:], 2)
        errors = (small - F.interpolate(F.avg_pool2d(small, 4), scale_factor=4)).abs()
        expected = 2 * 4 * errors.flatten(1).sum(1)
        torch.testing.assert_close(found.terms["l1"][2:], expected)
        assert found.terms["l1"].shape == (4,)
        assert [shape[-1] for shape in model.decoded] == [4, 2]
        assert "elbo" not in found.terms

    def test_nothing_is_transformed_in_evaluation(self) -> None:
        model, batch = Scored(), Batch(pictures(8))
        loss = loss_for(model, eq=1.0).eval()
        plain = loss_for(model)
        assert loss(model, batch, CONTEXT).loss.equal(plain(model, batch, CONTEXT).loss)

    def test_the_discriminator_sees_turned_images_beside_turned_reconstructions(self) -> None:
        torch.manual_seed(0)
        model, x = Scored(), pictures(8)
        own = {"discriminator_channels": 2, "discriminator_layers": 1, "adaptive_weight": False}
        loss = loss_for(model, eq=1.0, adversarial_weight=0.5, **own)
        assert loss.discriminator is not None
        seen: list[Tensor] = []
        loss.discriminator.register_forward_hook(lambda module, args, out: seen.append(args[0]))
        loss.discriminator_loss(model, Batch(x), CONTEXT)
        real, fake = seen
        assert real.shape == (4, 1, 16, 16)
        assert not real.equal(x[:4])
        torch.testing.assert_close(fake, F.interpolate(F.avg_pool2d(real, 4), scale_factor=4))

    @pytest.mark.parametrize("model", ["autoencoder_kl", "vqgan"])
    def test_models_with_convolutions(self, model: str) -> None:
        """Every parameter gets a gradient."""
        torch.manual_seed(0)
        small = {"hidden": (8, 8), "layers_per_block": 1, "norm_groups": 4}
        own = {"discriminator_layers": 1, "discriminator_channels": 4, "perceptual": "none"}
        built = vaezoo.create_model(
            model, (3, 16, 16), loss="perceptual_gan", eq=0.5, **small, **own
        )
        for phase in loss_of(built).phases(built):
            phase.loss_fn(built, Batch(torch.rand(4, 3, 16, 16)), CONTEXT).loss.backward(
                inputs=list(phase.parameters)
            )
        assert all(p.grad is not None for p in built.parameters() if p.requires_grad)

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ({"network": "conv"}, "give --latent-grid, or a model that has one"),
            ({"network": "conv", "latent_grid": True, "eq_downscale": 3}, "does not divide 8×8"),
            ({"network": "vit", "latent_grid": True, "patch_size": 4}, "one size only"),
        ],
    )
    def test_what_cannot_be_transformed(self, options: dict[str, Any], said: str) -> None:
        model = vaezoo.create_model(
            "vanilla",
            (1, 16, 16),
            loss="perceptual_gan",
            eq=0.5,
            perceptual="none",
            adversarial_weight=0,
            **options,
        )
        with pytest.raises(OptionError, match=said) as caught:
            loss_of(model).phases(model)
        assert "\n" not in str(caught.value)
        assert model.training
