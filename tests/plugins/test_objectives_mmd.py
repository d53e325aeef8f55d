"""Tests of the MMD at any latent size, and of the two losses with it."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.distributions import Distribution

import vaezoo
from small_models import fit, images, run_loss, small_model
from vaezoo.models.distributions import diagonal_normal
from vaezoo_objectives.mmd import mmd, mmd_to_prior
from vaezoo_objectives.options import MMDOptions

SIZES = [2, 8, 32, 128, 256]
SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


def normal(n: int, size: int, seed: int, shift: float = 0.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, size, generator=generator, dtype=torch.float64) + shift


def estimates(size: int, kernel: str, shift: float, scales: tuple[float, ...] = (1.0,)) -> Tensor:
    """Fifty independent estimates of the MMD from batches of 32."""
    pairs = ((normal(32, size, i, shift), normal(32, size, 1000 + i)) for i in range(50))
    return torch.stack([mmd(x, y, kernel, scales) for x, y in pairs])


def rbf_between_gaussians(size: int, shift: float) -> float:
    """The squared MMD of N(shift, 1) and N(0, 1), each in `size` dimensions, in closed form.

    With C = 2·size: E exp(-d²/C) of d ~ N(shift, 2) is (1 + 4/C)^(-size/2) exp(-size·shift²/(C+4)).
    """
    width = 2.0 * size
    within = (1 + 4 / width) ** (-size / 2)
    return 2 * within * (1 - math.exp(-size * shift**2 / (width + 4)))


class TestEstimate:
    @pytest.mark.parametrize("kernel", ["imq", "rbf"])
    @pytest.mark.parametrize("scales", [(1.0,), SCALES])
    def test_is_that_of_a_double_loop(self, kernel: str, scales: tuple[float, ...]) -> None:
        n, size = 5, 3
        x, y = normal(n, size, 0, 0.5), normal(n, size, 1)

        def k(a: Tensor, b: Tensor) -> float:
            squared = sum((float(p) - float(q)) ** 2 for p, q in zip(a, b, strict=True))
            widths = [scale * 2 * size for scale in scales]
            if kernel == "imq":
                return sum(c / (c + squared) for c in widths)
            return sum(math.exp(-squared / c) for c in widths)

        within = sum(k(v[i], v[j]) for v in (x, y) for i in range(n) for j in range(n) if i != j)
        across = sum(k(x[i], y[j]) for i in range(n) for j in range(n))
        expected = within / (n * (n - 1)) - 2 * across / n**2
        assert float(mmd(x, y, kernel, scales)) == pytest.approx(expected, abs=1e-12)

    @pytest.mark.parametrize("kernel", ["imq", "rbf"])
    @pytest.mark.parametrize("size", SIZES)
    def test_of_equal_distributions_is_nothing_in_the_mean(self, size: int, kernel: str) -> None:
        """Unbiased: the mean of many is within its own error of 0, and so it is negative at times.

        An estimate that counts the pairs of an example with itself is off by 2/n · (k(0) - E k).
        """
        values = estimates(size, kernel, 0.0)
        error = values.std() / math.sqrt(len(values))
        assert values.mean().abs() < 4 * error
        assert error < 0.005
        assert (values < 0).any()

    @pytest.mark.parametrize("kernel", ["imq", "rbf"])
    @pytest.mark.parametrize("size", SIZES)
    def test_of_far_ones_is_far_from_nothing(self, size: int, kernel: str) -> None:
        """The MMD is as large at 256 latents as at 2: with a wrong kernel width it would not be."""
        for scales in ((1.0,), SCALES):
            least = 0.15 if scales == (1.0,) else 0.8
            assert estimates(size, kernel, 1.5, scales).mean() > least

    @pytest.mark.parametrize("shift", [0.5, 1.0, 2.0])
    @pytest.mark.parametrize("size", SIZES)
    def test_is_the_closed_form_between_gaussians(self, size: int, shift: float) -> None:
        """The squared width is proportional to the number of dimensions, at every size."""
        values = estimates(size, "rbf", shift)
        error = values.std() / math.sqrt(len(values))
        assert (values.mean() - rbf_between_gaussians(size, shift)).abs() < 4 * error
        assert error < 0.25 * values.mean()

    @pytest.mark.parametrize("n", [8, 64, 512])
    def test_does_not_depend_on_the_batch(self, n: int) -> None:
        value = mmd(normal(n, 8, 0, 2.0), normal(n, 8, 1), "rbf", (1.0,))
        assert float(value) == pytest.approx(rbf_between_gaussians(8, 2.0), rel=0.3)

    @pytest.mark.parametrize("kernel", ["imq", "rbf"])
    def test_gradient(self, kernel: str) -> None:
        x, y = normal(5, 4, 0).requires_grad_(), normal(5, 4, 1)
        assert torch.autograd.gradcheck(lambda v: mmd(v, y, kernel, (0.5, 2.0)), (x,))

    @pytest.mark.parametrize("kernel", ["imq", "rbf"])
    @pytest.mark.parametrize("size", SIZES)
    def test_descent_brings_latents_to_the_prior(self, size: int, kernel: str) -> None:
        x = normal(64, size, 0, 1.0).requires_grad_()
        (gradient,) = torch.autograd.grad(mmd(x, normal(64, size, 1), kernel, (1.0,)), x)
        assert (gradient.mean(0) > 0).double().mean() > 0.95

    def test_of_one_is_nothing(self) -> None:
        value = mmd(normal(1, 4, 0, 9.0).requires_grad_(), normal(1, 4, 1), "imq", (1.0,))
        assert value.item() == 0.0
        assert value.shape == ()


class TestPrior:
    def test_is_the_models_own(self) -> None:
        """Latents at 3 are far from a standard prior, and match a prior at 3."""
        z, moved = normal(256, 4, 0, 3.0), torch.full((4,), 3.0).double()
        torch.manual_seed(0)
        far = mmd_to_prior(z, diagonal_normal(moved * 0, torch.ones(4).double()), MMDOptions())
        home = mmd_to_prior(z, diagonal_normal(moved, torch.ones(4).double()), MMDOptions())
        assert far > 0.3
        assert home.abs() < 0.01

    def test_with_a_batch_of_its_own_is_drawn_once_each(self) -> None:
        loc = 3.0 * torch.ones(64, 4).double()
        torch.manual_seed(0)
        conditional = diagonal_normal(loc, torch.ones_like(loc))
        assert mmd_to_prior(normal(64, 4, 0, 3.0), conditional, MMDOptions()).abs() < 0.05

    def test_spatial_latents_are_so_many_latents(self) -> None:
        z = normal(16, 12, 0, 0.5)
        flat = diagonal_normal(torch.zeros(12).double(), torch.ones(12).double())
        spatial = diagonal_normal(torch.zeros(3, 2, 2).double(), torch.ones(3, 2, 2).double(), 3)
        torch.manual_seed(0)
        expected = mmd_to_prior(z, flat, MMDOptions())
        torch.manual_seed(0)
        assert mmd_to_prior(z.view(16, 3, 2, 2), spatial, MMDOptions()).equal(expected)


class TestInfoVae:
    def test_with_lambda_one_and_no_preference_is_the_elbo(self) -> None:
        objective, terms = run_loss(small_model("info_vae", alpha=0.0, lambda_mmd=1.0), images())
        assert torch.allclose(objective, -terms["elbo"].mean(), rtol=0, atol=1e-12)

    @pytest.mark.parametrize(("alpha", "weight"), [(1.0, 50.0), (0.5, 7.0), (-0.5, 110.0), (0, 1)])
    def test_is_equation_6(self, alpha: float, weight: float) -> None:
        objective, terms = run_loss(
            small_model("info_vae", alpha=alpha, lambda_mmd=weight), images()
        )
        expected = (terms["distortion"] + (1 - alpha) * terms["rate"]).mean()
        expected = expected + (alpha + weight - 1) * terms["mmd"]
        assert torch.allclose(objective, expected, rtol=0, atol=1e-10)

    def test_at_alpha_one_no_kl_has_a_gradient(self) -> None:
        vae = small_model("info_vae", alpha=1.0, lambda_mmd=0.0)
        encoder = list(vae.encoder.parameters())
        objective, terms = run_loss(vae, images())
        ours = torch.autograd.grad(objective, encoder, retain_graph=True)
        alone = torch.autograd.grad(terms["distortion"].mean(), encoder)
        assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(ours, alone, strict=True))

    def test_mmd_reaches_the_encoder_and_not_the_decoder(self) -> None:
        vae = small_model("info_vae")
        run_loss(vae, images()).terms["mmd"].backward()
        assert all(p.grad is not None for p in vae.encoder.parameters())
        assert all(p.grad is None for p in vae.decoder.parameters())

    def test_terms_of_examples_do_not_know_the_batch(
        self, assert_terms_per_example: Callable[..., None]
    ) -> None:
        vae, x = small_model("info_vae", logvar_range=(-60.0, -59.0)), images(64)
        names = ("elbo", "rate", "distortion")
        loss = partial(run_loss, vae)
        assert_terms_per_example(loss, x, names, mean_loss=False, rtol=0, atol=1e-6)


class TestWaeMmd:
    def test_distortion_is_the_squared_error_and_a_constant(self) -> None:
        """At the default variance, ½, the distortion in nats is ‖x - mean‖² + D/2 · log π."""
        vae, x = small_model("wae_mmd"), images()
        distortion = run_loss(vae, x).terms["distortion"]
        torch.manual_seed(1)
        squared = (x - vae(x).likelihood.mean).square().sum((1, 2, 3))
        constant = 32 * math.log(math.pi)
        assert torch.allclose(distortion, squared + constant, rtol=0, atol=1e-5)

    def test_has_no_kl(self) -> None:
        objective, terms = run_loss(small_model("wae_mmd", lambda_mmd=3.0), images())
        assert set(terms) == {"distortion", "mmd"}
        assert torch.allclose(objective, terms["distortion"].mean() + 3.0 * terms["mmd"])

    def test_promises_no_elbo(self) -> None:
        tags = {spec.name: spec.tags for spec in vaezoo.list_models()}["wae_mmd"]
        assert not {"elbo", "importance"} & {*tags}

    def test_takes_posteriors_that_are_points(self) -> None:
        """As in the paper's experiments: the posterior needs no density."""
        vae = small_model("wae_mmd")
        encode = vae.encode

        class Point(Distribution):
            def __init__(self, at: Tensor) -> None:
                super().__init__(at.shape[:1], at.shape[1:], validate_args=False)
                self.at = at

            def rsample(self, sample_shape: torch.Size = torch.Size()) -> Tensor:  # noqa: B008
                return self.at.expand(*sample_shape, *self.at.shape)

        vae.encode = lambda x, y=None: Point(encode(x, y).mean)
        objective, _ = run_loss(vae, images())
        objective.backward()
        assert objective.isfinite()

    @pytest.mark.parametrize("kernel", ["imq", "rbf"])
    def test_brings_the_latents_to_the_prior(self, kernel: str) -> None:
        """After 150 steps with a large penalty the latents have the prior's mean and deviation."""
        vae = small_model("wae_mmd", kernel=kernel, lambda_mmd=1e4).float()
        x = images(256).float()
        fit(vae, x, 150, 0.02)
        z = vae.encode(x).sample((20,)).flatten(0, 1)
        assert z.mean(0).abs().max() < 0.2
        assert ((z.var(0) > 0.6) & (z.var(0) < 1.5)).all()
