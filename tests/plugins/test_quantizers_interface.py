"""What all quantizers have in common: shapes, round trips, gradients, the latent, the loss."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import vaezoo
from vaezoo import Batch, DataSpec, EncoderDecoderVAE, StepContext
from vaezoo.errors import OptionError
from vaezoo_discrete.distributions import CodePosterior, CodePrior, SoftPosterior
from vaezoo_discrete.fsq import ScalarQuantizer
from vaezoo_discrete.losses import code_usage
from vaezoo_discrete.quantizer import Quantizer
from vaezoo_discrete.vq import VectorQuantizer
from vaezoo_quantizers.binary import BinaryQuantizer
from vaezoo_quantizers.hierarchical import HierarchicalQuantizer
from vaezoo_quantizers.ibq import IndexQuantizer
from vaezoo_quantizers.product import ProductQuantizer
from vaezoo_quantizers.residual import ResidualQuantizer
from vaezoo_quantizers.scales import MultiScaleQuantizer, scale_grids
from vaezoo_quantizers.simvq import LinearCodebookQuantizer

GRID = (4, 6)


def levels(count: int, **options: Any) -> list[VectorQuantizer]:
    return [VectorQuantizer(8, 6, **options) for _ in range(count)]


MAKERS: dict[str, Callable[[], Quantizer]] = {
    "vq": lambda: VectorQuantizer(8, 6),
    "vq rotation": lambda: VectorQuantizer(8, 6, estimator="rotation"),
    "vq cosine": lambda: VectorQuantizer(8, 6, cosine=True, ema=False),
    "fsq": lambda: ScalarQuantizer((4, 3, 5)),
    "rvq": lambda: ResidualQuantizer(levels(3)),
    "rvq shared": lambda: ResidualQuantizer(levels(1, ema=False), 3),
    "rvq dropout": lambda: ResidualQuantizer(levels(3), quantizer_dropout=1.0),
    "pq": lambda: ProductQuantizer([VectorQuantizer(8, 3) for _ in range(2)]),
    "lfq": lambda: BinaryQuantizer(3, 2),
    "bsq": lambda: BinaryQuantizer(6, spherical=True, joint_entropy=False),
    "simvq": lambda: LinearCodebookQuantizer(8, 6),
    "ibq": lambda: IndexQuantizer(8, 6),
    "multi_scale": lambda: MultiScaleQuantizer(
        VectorQuantizer(8, 6, ndim=1), scale_grids(GRID, None), convolutions=2
    ),
    "hierarchical": lambda: HierarchicalQuantizer(levels(3, ndim=1), GRID, width=8, blocks=1),
}
each = pytest.mark.parametrize("name", list(MAKERS))
STRAIGHT = [
    name
    for name in MAKERS
    if name not in ("vq rotation", "vq cosine", "fsq", "bsq", "ibq", "hierarchical")
]
BOTTLENECKS: dict[str, dict[str, Any]] = {
    "rvq": {"codes": 8, "code_dim": 4, "codebooks": 3, "quantizer_dropout": 0.5},
    "pq": {"codes": 8, "code_dim": 4, "codebooks": 2},
    "lfq": {"bits": 6, "codebooks": 2},
    "bsq": {"bits": 4},
    "simvq": {"codes": 8, "code_dim": 4},
    "ibq": {"codes": 8, "code_dim": 4},
    "multi_scale": {"codes": 8, "code_dim": 4},
    "hierarchical_vq": {"codes": 8, "code_dim": 4, "level_width": 4},
}


def make(name: str) -> Quantizer:
    torch.manual_seed(0)
    return MAKERS[name]()


def features(quantizer: Quantizer, n: int = 5) -> Tensor:
    x = torch.randn(n, quantizer.dim, *GRID, generator=torch.Generator().manual_seed(1))
    return x.requires_grad_()


def indices_of(quantizer: Quantizer, n: int = 40) -> Tensor:
    """Random indices of a batch."""
    books = (quantizer.codebooks,) if quantizer.codebooks > 1 else ()
    return torch.randint(quantizer.num_codes, (n, *books, *quantizer.codes_grid(GRID)))


class TestModules:
    @each
    def test_shapes(self, name: str) -> None:
        quantizer = make(name)
        x = features(quantizer)
        quantized, indices, losses = quantizer(x)
        assert quantized.shape == x.shape
        assert indices.dtype == torch.int64
        assert indices.shape == indices_of(quantizer, 5).shape
        assert indices.min() >= 0
        assert indices.max() < quantizer.num_codes
        codes = quantizer.indices_to_codes(indices)
        assert codes.shape == (5, quantizer.code_dim, *quantizer.codes_grid(GRID))
        assert all(value.shape in ((5,), ()) for value in losses.values())

    @each
    def test_indices_and_codes_are_one_to_one(self, name: str) -> None:
        """Also of indices that no features have: a prior may draw any."""
        quantizer = make(name)
        indices = indices_of(quantizer)
        codes = quantizer.indices_to_codes(indices)
        assert quantizer.codes_to_indices(codes).equal(indices)
        more = codes.expand(2, *codes.shape)  # any number of batch dimensions
        assert quantizer.codes_to_indices(more).equal(indices.expand(2, *indices.shape))
        assert quantizer.indices_to_codes(indices.expand(2, *indices.shape)).equal(more)

    @each
    def test_quantized_features_are_those_of_the_indices(self, name: str) -> None:
        quantizer = make(name).eval()
        quantized, indices, _ = quantizer(features(quantizer))
        again = quantizer.codes_to_features(quantizer.indices_to_codes(indices))
        torch.testing.assert_close(quantized, again, rtol=1e-5, atol=1e-5)

    @each
    def test_evaluation_changes_nothing(self, name: str) -> None:
        quantizer = make(name).eval()
        before = {key: value.clone() for key, value in quantizer.state_dict().items()}
        first, second = (quantizer(features(quantizer)) for _ in range(2))
        assert first.quantized.equal(second.quantized)
        assert all(value.equal(before[key]) for key, value in quantizer.state_dict().items())

    @pytest.mark.parametrize("name", STRAIGHT)
    def test_the_gradient_passes_straight_through_once(self, name: str) -> None:
        """Levels that each pass it on would multiply it by their number."""
        quantizer = make(name)
        x = features(quantizer)
        weight = torch.randn_like(x)
        (found,) = torch.autograd.grad((weight * quantizer(x).quantized).sum(), x)
        torch.testing.assert_close(found, weight)

    @each
    def test_the_latent_decodes_to_the_quantized_features_with_their_gradient(
        self, name: str
    ) -> None:
        quantizer = make(name)
        x = features(quantizer)
        output = quantizer(x)
        posterior = CodePosterior(output, quantizer)
        decoded = quantizer.codes_to_features(posterior.rsample())
        torch.testing.assert_close(decoded, output.quantized, rtol=1e-5, atol=1e-5)
        weight = torch.randn_like(decoded)
        through, direct = (
            torch.autograd.grad((weight * value).sum(), x, retain_graph=True)[0]
            for value in (decoded, output.quantized)
        )
        torch.testing.assert_close(through, direct)

    @each
    def test_half_precision(self, name: str) -> None:
        """Under autocast all of it is float32: the same indices, the same losses."""
        quantizer = make(name).eval()
        x = features(quantizer).detach().bfloat16()
        expected = quantizer(x.float())
        with torch.autocast("cpu", torch.bfloat16):
            found = quantizer(x)
        assert found.quantized.equal(expected.quantized)
        assert found.indices.equal(expected.indices)
        assert all(value.equal(expected.losses[key]) for key, value in found.losses.items())

    @each
    def test_indices_of_features_that_are_not_finite_exist(self, name: str) -> None:
        """The step is skipped later: counts of codes must not fail before."""
        quantizer = make(name)
        for value in (math.nan, math.inf):
            indices = quantizer(torch.full_like(features(quantizer), value)).indices
            assert indices.min() >= 0
            assert indices.max() < quantizer.num_codes

    @each
    def test_losses_are_of_each_example(self, name: str) -> None:
        quantizer = make(name).eval()
        x = features(quantizer).detach()
        whole, part = quantizer(x).losses, quantizer(x[:2]).losses
        for key, value in whole.items():
            if value.shape:
                torch.testing.assert_close(value[:2], part[key], rtol=1e-5, atol=1e-5)


class TestDistributions:
    @each
    def test_posterior_has_its_own_codes_only(self, name: str) -> None:
        quantizer = make(name).eval()
        posterior = CodePosterior(quantizer(features(quantizer)), quantizer)
        assert posterior.log_prob(posterior.rsample()).eq(0).all()
        assert posterior.log_prob(posterior.mean).eq(0).all()
        other = posterior.indices.clone()
        last = (1, *[-1] * (other.dim() - 1))
        other[last] = (other[last] + 1) % quantizer.num_codes
        log_p = posterior.log_prob(quantizer.indices_to_codes(other))
        assert log_p.tolist() == [0, -math.inf, 0, 0, 0]

    @each
    def test_uniform_prior_is_of_all_codebooks(self, name: str) -> None:
        quantizer = make(name)
        grid = quantizer.codes_grid(GRID)
        prior = CodePrior(quantizer, grid, torch.zeros(()))
        z = prior.sample(torch.Size((2, 3)))
        assert z.shape == (2, 3, quantizer.code_dim, *grid)
        expected = -math.prod(grid) * quantizer.codebooks * math.log(quantizer.num_codes)
        torch.testing.assert_close(prior.log_prob(z), torch.full((2, 3), expected))

    def test_all_latents_of_two_codebooks_have_probability_one(self) -> None:
        quantizer = ResidualQuantizer([VectorQuantizer(3, 2, ndim=1) for _ in range(2)])
        every = torch.cartesian_prod(*[torch.arange(3)] * 4).view(-1, 2, 2)
        prior = CodePrior(quantizer, (2,), torch.zeros(()))
        total = prior.log_prob(quantizer.indices_to_codes(every)).exp().sum()
        assert total.item() == pytest.approx(1, abs=1e-5)


def model(bottleneck: str, **options: Any) -> EncoderDecoderVAE:
    torch.manual_seed(0)
    made = vaezoo.create_model(
        "vq_vae",
        data=DataSpec(shape=(1, 12, 12), domain="binary"),
        bottleneck=bottleneck,
        network="conv",
        hidden=(4, 8),
        **options,
    )
    assert isinstance(made, EncoderDecoderVAE)
    return made


PRIOR = {"prior_steps": 3, "prior_width": 8, "prior_layers": 1}


class TestModels:
    @pytest.mark.parametrize("name", list(BOTTLENECKS))
    def test_trains_fits_a_prior_and_samples(self, name: str) -> None:
        made = model(name, **BOTTLENECKS[name], **PRIOR)
        x = torch.rand(6, 1, 12, 12).round()
        assert made.loss is not None
        loss, terms = made.loss(made, Batch(x), StepContext(torch.tensor(0), 10, 6))
        loss.backward()
        for parameter in (*made.encoder.parameters(), *made.bottleneck.parameters()):
            assert parameter.grad is not None
            assert parameter.grad.isfinite().all()
        options = made.loss.options
        expected = -terms["elbo"].mean() + options.commitment * terms["commitment"].mean()
        for term in {"codebook", "index"} & {*terms}:
            expected = expected + terms[term].mean()
        if "entropy" in terms:
            assert made.loss.no_accumulate_reason
            expected = expected + 0.1 * (terms["entropy"].mean() - terms["batch_entropy"])
        torch.testing.assert_close(loss, expected)
        made.fit_sampler([Batch(x)])
        made.eval()
        assert made.sampler is not None
        assert made.sampler.is_fitted
        assert made.sample(3).shape == (3, 1, 12, 12)
        prior, posterior = made.sampling_prior(), made.encode(x)
        expected = -prior.log_prob(posterior.rsample())
        torch.testing.assert_close(posterior.kl_divergence(prior, None), expected)
        assert (expected - made.prior().log_prob(posterior.mean).neg()).abs().min() > 1e-3

    def test_mixtures_have_no_rate(self) -> None:
        made = model("soft_vq", codes=8, code_dim=4, sampler="gaussian")
        x = torch.rand(6, 1, 12, 12).round()
        assert made.loss is not None
        loss, terms = made.loss(made, Batch(x), StepContext(torch.tensor(0), 10, 6))
        loss.backward()
        assert {*terms} == {"distortion", "entropy", "batch_entropy", "perplexity", "usage"}
        assert isinstance(posterior := made.encode(x), SoftPosterior)
        assert made.bottleneck.quantizer.codebook.grad.abs().sum() > 0
        assert posterior.rsample().shape == (6, *made.latent_shape)
        assert made.eval().reconstruct(x).shape == x.shape

    @pytest.mark.parametrize(
        ("bottleneck", "options", "said"),
        [
            ("pq", {"code_dim": 10, "codebooks": 4}, "code_dim 10 channels do not divide into 4"),
            ("lfq", {"bits": 10, "codebooks": 3}, "bits 10 do not divide into 3 codebooks"),
            ("bsq", {"bits": 36}, "codebooks of 68,719,476,736 codes, and 1,048,576 are the most"),
            ("rvq", {"cosine": True}, "cosine is for vq and pq"),
            ("multi_scale", {"cosine": True}, "cosine is for vq and pq"),
            ("multi_scale", {"scale_sizes": (1, 2)}, "must rise to 3, the longest side"),
            ("multi_scale", {"scale_sizes": (2, 1, 3)}, "must rise to 3, the longest side"),
            (
                "hierarchical_vq",
                {"code_levels": 3},
                "halve a grid of features of 3×3 2 times: give",
            ),
        ],
    )
    def test_what_does_not_fit_is_refused(
        self, bottleneck: str, options: dict[str, Any], said: str
    ) -> None:
        with pytest.raises(OptionError, match=said):
            model(bottleneck, **options)

    def test_thirty_six_bits_have_indices_in_four_codebooks(self) -> None:
        made = model("bsq", bits=36, codebooks=4, **PRIOR)
        assert made.encode(torch.rand(2, 1, 12, 12)).indices.shape == (2, 4, 3, 3)


class TestUsage:
    def test_is_the_mean_over_codebooks(self) -> None:
        """The first codebook has 4 codes alike, the second one code."""
        indices = torch.stack([torch.arange(4).view(2, 2), torch.full((2, 2), 3)])[None]
        perplexity, usage = code_usage(indices, 8, codebooks=2)
        assert perplexity.item() == pytest.approx((4 + 1) / 2, rel=1e-6)
        assert usage.item() == pytest.approx((4 / 8 + 1 / 8) / 2)
