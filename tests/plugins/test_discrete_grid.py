"""Autoencoders around a grid of codes: any image, the loss of the paper, the bound, runs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import vaezoo
from vaezoo import Batch, DataSpec, EncoderDecoderVAE, StepContext
from vaezoo.errors import DataError, OptionError
from vaezoo.models.distributions import sample_prior
from vaezoo.runs.run import Run
from vaezoo_discrete.bottleneck import QuantizerBottleneck

CONTEXT = StepContext(torch.tensor(0), 100, 64)
SMALL: dict[str, Any] = {
    "hidden": (4, 8),
    "network": "conv",
    "prior_steps": 4,
    "prior_width": 8,
    "prior_layers": 1,
}
BOOK = {"codes": 16, "code_dim": 4}
EACH: dict[str, dict[str, Any]] = {
    "vq_vae": {**SMALL, **BOOK},
    "vq_vae by gradient": {**SMALL, **BOOK, "codebook": "gradient"},
    "fsq": {**SMALL, "levels": (4, 3)},
}
every_kind = pytest.mark.parametrize("kind", list(EACH))


def model(kind: str, shape: tuple[int, ...] = (1, 12, 12), **options: Any) -> EncoderDecoderVAE:
    torch.manual_seed(0)
    data = DataSpec(shape=shape, domain="binary")
    made = vaezoo.create_model(kind.split()[0], data=data, **EACH[kind] | options)
    assert isinstance(made.bottleneck, QuantizerBottleneck)
    return made


def images(n: int = 6, shape: tuple[int, ...] = (1, 12, 12)) -> Tensor:
    return torch.rand(n, *shape, generator=torch.Generator().manual_seed(1)).round()


def lived(kind: str, shape: tuple[int, ...] = (1, 12, 12), **options: Any) -> EncoderDecoderVAE:
    """One whose batch norms and codebook have seen images; in evaluation mode."""
    grid = model(kind, shape, **options)
    for _ in range(20):
        grid(images(20, shape))
    return grid.eval()


def measure(grid: EncoderDecoderVAE, x: Tensor) -> vaezoo.LossOutput:
    assert grid.loss is not None
    output: vaezoo.LossOutput = grid.loss(grid, Batch(x), CONTEXT)
    return output


def shuffle_prior(grid: EncoderDecoderVAE) -> None:
    """A prior that is anything but uniform."""
    for parameter in grid.sampler.network.parameters():
        torch.nn.init.normal_(parameter, std=0.7)


def count_codes(grid: EncoderDecoderVAE) -> int:
    return math.prod(grid.bottleneck.grid)


class TestShapes:
    @pytest.mark.parametrize("network", ["conv", "resnet"])
    @pytest.mark.parametrize(
        "shape", [(1, 28, 28), (3, 32, 32), (1, 8, 8), (3, 9, 31), (1, 13, 11)]
    )
    @pytest.mark.parametrize("kind", ["vq_vae", "fsq"])
    def test_any_image(self, kind: str, shape: tuple[int, ...], network: str) -> None:
        grid, x = model(kind, shape, network=network), images(2, shape)
        rows, columns = -(-shape[1] // 4), -(-shape[2] // 4)
        posterior = grid.encode(x)
        assert grid.latent_shape == (grid.bottleneck.quantizer.code_dim, rows, columns)
        assert posterior.event_shape == grid.latent_shape
        assert posterior.rsample().shape == (2, *grid.latent_shape)
        assert posterior.indices.shape == (2, rows, columns)
        measure(grid, x).loss.backward()
        grid.eval()
        assert grid.reconstruct(x[:1]).shape == (1, *shape)
        assert grid.sample(3).shape == (3, *shape)
        assert grid.sample(3, mean=False).unique().tolist() == [0, 1]

    @pytest.mark.parametrize(
        ("size", "grid"), [(8, 4), (16, 8), (28, 7), (32, 8), (64, 8), (65, 5), (100, 7)]
    )
    def test_levels_by_default_leave_a_small_grid(self, size: int, grid: int) -> None:
        made = model("fsq", (1, size, size), hidden=None)
        assert made.bottleneck.grid == (grid, grid)

    @pytest.mark.parametrize("kind", ["vq_vae", "fsq"])
    def test_vectors_are_refused(self, kind: str) -> None:
        takes = f"model {kind} takes signals, images or volumes"
        with pytest.raises(DataError, match=f"{takes}, and this data is vectors of 5"):
            model(kind, (5,))

    def test_a_network_without_a_grid_is_not_suggested_for_vectors(self) -> None:
        for bottleneck, advice in (("gaussian", ": give network gated_mlp or mlp"), ("vq", "")):
            with pytest.raises(DataError, match=f"vectors of 5 values{advice}$"):
                vaezoo.create_model("vanilla", data=(5,), bottleneck=bottleneck)

    def test_losses_are_for_models_with_what_they_read(self) -> None:
        for loss in ("vq", "codes"):
            said = f"loss {loss} needs a model with grid, which gumbel_vae is not"
            with pytest.raises(OptionError, match=said):
                vaezoo.create_model("gumbel_vae", data=(1, 28, 28), loss=loss)


class TestLoss:
    @every_kind
    def test_terms_are_the_same_at_any_batch_size(
        self, kind: str, assert_terms_per_example: Callable[..., None]
    ) -> None:
        """Another implementation sums the codebook's terms over the batch."""
        grid, x = lived(kind), images(64)
        whole = measure(grid, x)
        of_examples = [name for name, value in whole.terms.items() if value.shape == (64,)]
        assert {"elbo", "rate", "distortion"} <= set(of_examples)
        assert ("commitment" in of_examples) == kind.startswith("vq")
        assert ("codebook" in of_examples) == kind.endswith("gradient")
        assert_terms_per_example(
            lambda part: measure(grid, part), x, of_examples, rtol=1e-5, atol=1e-4
        )

    @pytest.mark.parametrize("commitment", [0.0, 0.25, 2.0])
    @pytest.mark.parametrize("kind", ["vq_vae", "vq_vae by gradient"])
    def test_is_equation_3_by_hand(self, kind: str, commitment: float) -> None:
        grid, x = lived(kind, commitment=commitment), images()
        loss, terms = measure(grid, x)
        features = grid.encoder(x)
        book = grid.bottleneck.quantizer.codebook[grid.encode(x).indices].permute(0, 3, 1, 2)
        distance = (features - book).square().sum((1, 2, 3))
        distortion = -grid.decode(book).log_prob(x)
        rate = count_codes(grid) * math.log(16)
        weight = commitment + (kind != "vq_vae")
        assert torch.allclose(terms["commitment"], distance, rtol=1e-4)
        assert torch.allclose(terms["distortion"], distortion, rtol=1e-4)
        assert torch.allclose(terms["rate"], torch.tensor(rate))
        by_hand = (distortion + weight * distance).mean() + rate
        assert torch.allclose(loss, by_hand, rtol=1e-5)

    def test_each_term_teaches_its_own(self) -> None:
        """The commitment moves the encoder, the codebook's term the codebook, neither the other."""
        grid, x = model("vq_vae by gradient"), images()
        terms = measure(grid, x).terms
        encoder, book = list(grid.encoder.parameters()), [grid.bottleneck.quantizer.codebook]
        decoder = list(grid.decoder.parameters())
        for name, taught in {
            "commitment": encoder,
            "codebook": book,
            "distortion": [*encoder, *decoder],
        }.items():
            everything = [*encoder, *book, *decoder]
            gradients = torch.autograd.grad(
                terms[name].mean(), everything, allow_unused=True, retain_graph=True
            )
            for parameter, gradient in zip(everything, gradients, strict=True):
                expected = any(parameter is other for other in taught)
                assert (gradient is not None) == expected, name

    def test_of_scalar_quantization_is_the_negative_elbo(self) -> None:
        loss, terms = measure(model("fsq"), images())
        assert torch.allclose(loss, -terms["elbo"].mean())
        assert set(terms) == {"elbo", "rate", "distortion", "perplexity", "usage"}

    def test_of_vq_is_the_negative_elbo_where_no_code_is_learned(self) -> None:
        """So `vq_vae --bottleneck fsq` is trained as `fsq` is."""
        pair = [model("fsq", loss=loss) for loss in ("vq", "codes")]
        (loss, terms), (other, _) = (measure(grid, images()) for grid in pair)
        assert loss.equal(other)
        assert torch.allclose(loss, -terms["elbo"].mean())

    @every_kind
    def test_collapse_is_noticed(self, kind: str) -> None:
        grid, x = lived(kind), images()
        assert measure(grid, x).terms["perplexity"] > 1.5
        with torch.no_grad():
            grid.encoder[-1].weight.zero_()
        terms = measure(grid, x).terms
        assert terms["perplexity"].item() == pytest.approx(1, abs=1e-6)
        assert terms["usage"].item() == pytest.approx(1 / grid.bottleneck.quantizer.num_codes)

    @every_kind
    def test_perplexity_and_usage_are_of_the_codes(self, kind: str) -> None:
        grid, x = lived(kind), images()
        share = torch.bincount(grid.encode(x).indices.flatten()) / (6 * count_codes(grid))
        share = share[share > 0]
        terms = measure(grid, x).terms
        perplexity = math.exp(-sum(p * math.log(p) for p in share.tolist()))
        assert terms["perplexity"].item() == pytest.approx(perplexity, rel=1e-5)
        assert terms["usage"].item() == pytest.approx(
            len(share) / grid.bottleneck.quantizer.num_codes
        )

    @every_kind
    def test_asks_nothing_of_the_host(self, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
        grid, x = model(kind), images()
        reads = []
        for name in ("item", "tolist", "__bool__", "__float__", "__int__", "__index__"):
            monkeypatch.setattr(Tensor, name, lambda *args, name=name: reads.append(name))
        measure(grid, x).loss.backward()
        monkeypatch.undo()
        assert reads == []

    @every_kind
    def test_runs_on_meta_tensors(self, kind: str) -> None:
        """Where arithmetic is counted: nothing hangs on a value."""
        grid = model(kind).to("meta")
        measure(grid, images().to("meta")).loss.backward()
        z = grid.eval().sampler.distribution().sample(torch.Size((2,)))
        assert grid.decode(z).sample().shape == (2, 1, 12, 12)

    @every_kind
    def test_in_half_precision(self, kind: str) -> None:
        grid, x = model(kind).eval(), images()
        full = measure(grid, x).terms
        with torch.autocast("cpu", torch.bfloat16):
            half = measure(grid, x)
        half.loss.backward()
        for name in ("distortion", "rate"):
            assert half.terms[name].dtype == torch.float32
            assert torch.allclose(half.terms[name], full[name], rtol=0.1)


class TestBound:
    """Against log p(x) by the sum over all sixteen grids of 2×2 codes out of two."""

    @pytest.mark.parametrize("kind", ["vq_vae", "fsq"])
    @pytest.mark.parametrize("fitted", [False, True])
    def test_reported_elbo_is_below_log_p(self, kind: str, fitted: bool) -> None:
        few: dict[str, Any] = {"levels": (2,)} if kind == "fsq" else {"codes": 2}
        grid, x = lived(kind, (1, 8, 8), **few), images(20, (1, 8, 8))
        with torch.no_grad():
            grid.encoder[-1].weight.mul_(20)
            grid.encoder[-1].bias.sub_(grid.encoder(x).mean((0, 2, 3)))
            if kind == "vq_vae":
                grid.bottleneck.quantizer.codebook.copy_(torch.tensor([[1.0], [-1.0]]).expand(2, 4))
        if fitted:
            shuffle_prior(grid)
        codes = torch.tensor(list(itertools.product(range(2), repeat=4))).view(-1, 2, 2)
        z, prior = grid.bottleneck.quantizer.indices_to_codes(codes), grid.sampling_prior()
        joint = prior.log_prob(z) + torch.stack([grid.decode(z).log_prob(image) for image in x])
        exact = joint.logsumexp(1)
        elbo = measure(grid, x).terms["elbo"]
        assert (elbo < exact).all()
        # It is the term of the sum that the encoder chose.
        chosen = (grid.encode(x).indices.flatten(1) * torch.tensor([8, 4, 2, 1])).sum(1)
        assert len(chosen.unique()) > 1
        assert torch.allclose(elbo, joint[torch.arange(20), chosen], rtol=1e-4)
        weights = grid.log_importance_weights(x, samples=2)
        assert torch.allclose(weights, elbo.expand(2, -1), rtol=1e-4)


class TestPrior:
    @every_kind
    def test_is_uniform_in_training_and_until_it_is_fitted(self, kind: str) -> None:
        grid, x = model(kind), images()
        nats = count_codes(grid) * math.log(grid.bottleneck.quantizer.num_codes)
        grid.eval()
        assert torch.allclose(measure(grid, x).terms["rate"], torch.tensor(nats), rtol=1e-6)
        shuffle_prior(grid)
        assert (measure(grid, x).terms["rate"] - nats).abs().max() > 0.1
        grid.train()
        assert torch.allclose(measure(grid, x).terms["rate"], torch.tensor(nats), rtol=1e-6)

    @every_kind
    def test_is_in_no_phase_of_training(self, kind: str) -> None:
        grid = model(kind)
        assert grid.loss is not None
        (phase,) = grid.loss.phases(grid)
        its = {id(p) for p in grid.sampler.network.parameters()}
        trained = {id(p) for p in phase.parameters}
        assert its
        assert not its & trained
        assert its | trained == {id(p) for p in grid.parameters()}
        measure(grid, images()).loss.backward(inputs=list(phase.parameters))
        assert all(p.grad is not None for p in phase.parameters)

    @every_kind
    def test_is_fitted_to_the_codes_and_moves_nothing_else(self, kind: str) -> None:
        """Of two images their codes say log(2) nats: hardly a surprise."""
        grid = lived(kind, prior_steps=100, prior_width=32).train()
        x = images(2).repeat(40, 1, 1, 1)
        before = {name: value.clone() for name, value in grid.state_dict().items()}
        grid.fit_sampler([Batch(part) for part in x.split(16)])
        assert grid.training
        for name, value in grid.state_dict().items():
            if not name.startswith("sampler."):
                assert value.equal(before[name]), name
        grid.eval()
        uniform = count_codes(grid) * math.log(grid.bottleneck.quantizer.num_codes)
        assert measure(grid, x).terms["rate"].mean() < 0.2 * uniform
        drawn = grid.bottleneck.quantizer.codes_to_indices(
            grid.sampling_prior().sample(torch.Size((40,)))
        )
        own = grid.encode(x[:2]).indices
        known = (drawn[:, None] == own).flatten(2).all(2).any(1)
        assert known.float().mean() > 0.5

    def test_stays_uniform_without_steps(self) -> None:
        grid = model("fsq", prior_steps=0)
        grid.fit_sampler([Batch(images())])
        assert (grid.sampler.network.head.weight == 0).all()

    def test_temperature_of_samples(self) -> None:
        grid = model("fsq").eval()
        shuffle_prior(grid)
        codes = sample_prior(grid.sampling_prior(), 3, temperature=0.0)
        assert codes.equal(codes[:1].expand_as(codes))
        # The decoder's tanh rounds at the end of its vectors in another way.
        coldest = grid.sample(3, temperature=0.0)
        torch.testing.assert_close(coldest, coldest[:1].expand_as(coldest), rtol=0, atol=1e-7)
        assert len(grid.sample(8).unique(dim=0)) > 4


@every_kind
def test_state_goes_through_a_file(kind: str, tmp_path: Path) -> None:
    grid, other = model(kind), model(kind)
    measure(grid, images())  # moves averages
    shuffle_prior(grid)
    save_file(grid.state_dict(), tmp_path / "weights.safetensors")
    other.load_state_dict(load_file(tmp_path / "weights.safetensors"))
    for a, b in zip(
        grid.eval().state_dict().values(), other.eval().state_dict().values(), strict=True
    ):
        assert a.equal(b)
    x = images()
    assert measure(grid, x).terms["rate"].equal(measure(other, x).terms["rate"])
    assert grid.reconstruct(x).equal(other.reconstruct(x))
    draws = []
    for made in (grid, other):
        torch.manual_seed(3)
        draws.append(made.sample(2))
    assert draws[0].equal(draws[1])


@every_kind
def test_overfits_one_batch(kind: str) -> None:
    torch.manual_seed(0)
    grid, x = model(kind, hidden=(16, 32)), images(8)
    assert grid.loss is not None
    (phase,) = grid.loss.phases(grid)
    optimizer = torch.optim.Adam(list(phase.parameters), lr=1e-2)
    first = measure(grid, x).terms["distortion"].mean()
    for _ in range(60):
        output = measure(grid, x)
        output.loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert output.terms["distortion"].mean() < 0.5 * first
    assert output.terms["perplexity"] > 4


@every_kind
def test_run_from_training_to_samples(
    kind: str, tmp_path: Path, assert_resumes: Callable[..., Run]
) -> None:
    """Metrics and pictures of a run; it can be loaded; a stopped run resumes to the same bits."""
    job: dict[str, Any] = {
        **{"data": "sprites", "examples": 60, "test": 12, "image_size": 16, "device": "cpu"},
        **{"batch_size": 16, "epochs": 3, "log_every": 4, **EACH[kind]},
    }
    name = kind.split()[0]
    run = vaezoo.train(name, out=tmp_path / "whole", **job)
    assert {"samples.png", "reconstructions.png"} <= {p.name for p in run.path.iterdir()}
    summary, lines = run.summary, run.metrics
    assert summary["active_units"] is None
    assert summary["notes"]["active_units"] == "its latents are codes"
    assert summary["elbo"] == pytest.approx(-summary["rate"] - summary["distortion"])
    uniform = 16 * math.log(16 if name == "vq_vae" else 12)
    assert 0 < summary["rate"] < uniform - 0.1
    for line in lines:
        assert line["terms"]["rate"] == pytest.approx(uniform, rel=1e-5)
        assert line["terms"]["perplexity"] >= 1
        assert 0 < line["terms"]["usage"] <= 1

    opened = vaezoo.load_run(run.path, "cpu")
    assert opened.evaluate().rate == pytest.approx(summary["rate"])
    assert opened.sample(5, temperature=0.5).shape == (5, 1, 16, 16)

    assert assert_resumes(run, 5, **job).summary["elbo"] == summary["elbo"]
