"""The prior over codes: a distribution, causal, uniform until it is fitted, better afterwards."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import vaezoo
from vaezoo.errors import OptionError
from vaezoo_discrete.distributions import CodePrior
from vaezoo_discrete.fsq import ScalarQuantizer
from vaezoo_discrete.losses import code_usage
from vaezoo_discrete.quantizer import Quantizer
from vaezoo_discrete.transformer import CodeTransformer
from vaezoo_discrete.vq import VectorQuantizer
from vaezoo_samplers.fitting import warmup_cosine

CODES, LENGTH = 3, 4
CLASSES: dict[str, Any] = {
    "image_size": 16,
    "examples": 120,
    "test": 30,
    "hidden": (8, 8),
    "steps": 3,
}


def random_network(codes: int = CODES, length: int = LENGTH, layers: int = 2) -> CodeTransformer:
    """One whose every weight matters."""
    torch.manual_seed(0)
    network = CodeTransformer(codes, (length,), 8, layers)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.7)
    return network


def every_sequence() -> Tensor:
    return torch.tensor(list(itertools.product(range(CODES), repeat=LENGTH)))


def counting_up(n: int = 64) -> Tensor:
    """Sequences that are sure after their first code: log(5) nats each."""
    first = torch.randint(5, (n, 1), generator=torch.Generator().manual_seed(1))
    return (first + torch.arange(6)) % 5


class TestNetwork:
    def test_probabilities_of_all_sequences_add_up_to_one(self) -> None:
        log_p = random_network().log_prob(every_sequence())
        assert log_p.exp().sum().item() == pytest.approx(1, abs=1e-5)
        assert log_p.std() > 0.3

    @pytest.mark.parametrize("position", range(LENGTH))
    def test_later_codes_never_change_an_earlier_logit(self, position: int) -> None:
        network = random_network(length=6, layers=3)
        codes = torch.randint(CODES, (5, 6), generator=torch.Generator().manual_seed(1))
        other = codes.clone()
        other[:, position] = (other[:, position] + 1) % CODES
        before, after = network(codes), network(other)
        # The logits of a position are for its own code, which they have not seen either.
        assert torch.allclose(before[:, : position + 1], after[:, : position + 1], atol=1e-6)
        changed = (before - after).abs().amax((0, 2))[position + 1 :]
        assert (changed > 1e-3).all()

    def test_is_exactly_uniform_until_it_is_fitted(self) -> None:
        network = CodeTransformer(CODES, (LENGTH,), 8, 2)
        expected = torch.full((CODES**LENGTH,), -LENGTH * math.log(CODES))
        assert torch.allclose(network.log_prob(every_sequence()), expected, rtol=1e-6)

    def test_samples_follow_its_probabilities(self) -> None:
        network, n = random_network(), 40_000
        drawn = network.sample(n)
        weights = torch.tensor([CODES**i for i in reversed(range(LENGTH))])
        counts = torch.bincount((drawn * weights).sum(1), minlength=CODES**LENGTH)
        expected = network.log_prob(every_sequence()).exp()
        error = 5 * (expected / n).sqrt()
        assert ((counts / n - expected).abs() < error).all()

    def test_coldest_samples_are_the_likeliest_step_by_step(self) -> None:
        """What the cache gives one by one is what the whole network says."""
        network = random_network(length=7, layers=3)
        codes = torch.zeros(1, 7, dtype=torch.int64)
        for position in range(7):
            codes[:, position] = network(codes)[:, position].argmax(1)
        assert network.sample(3, temperature=0.0).equal(codes.expand(3, -1))

    def test_temperature_flattens(self) -> None:
        network = random_network()
        nats = [-network.log_prob(network.sample(4000, t)).mean() for t in (0.3, 1.0, 100.0)]
        assert nats[0] < nats[1] - 0.1 < nats[2] - 0.2

    @pytest.mark.parametrize("logits", [1, 13, 100, 1 << 24])
    def test_log_prob_is_the_same_in_parts(
        self, monkeypatch: pytest.MonkeyPatch, logits: int
    ) -> None:
        network = random_network()
        whole = network.log_prob(every_sequence())
        monkeypatch.setattr("vaezoo_discrete.transformer._MAX_LOGITS", logits)
        with torch.no_grad():
            assert torch.allclose(network.log_prob(every_sequence()), whole, atol=1e-6)

    def test_log_prob_holds_no_more_logits_than_it_may(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        network, held = random_network(), []
        monkeypatch.setattr("vaezoo_discrete.transformer._MAX_LOGITS", 100)
        network.register_forward_hook(lambda _, args, logits: held.append(logits.numel()))
        with torch.no_grad():
            network.log_prob(every_sequence())
        assert sum(held) == CODES * LENGTH * CODES**LENGTH
        assert max(held) == 96  # eight sequences of 12 logits

    @pytest.mark.parametrize("width", [1, 6, 8])
    def test_any_width(self, width: int) -> None:
        assert CodeTransformer(CODES, (LENGTH,), width, 1).sample(2).shape == (2, LENGTH)


class TestSeveralCodebooks:
    """Two codebooks of three codes, at one position and at three: c1 c2 c2 c2."""

    def network(self) -> CodeTransformer:
        torch.manual_seed(0)
        network = CodeTransformer(CODES, (1, 3), 8, 2)
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.7)
        return network

    def test_probabilities_of_all_sequences_add_up_to_one(self) -> None:
        log_p = self.network().log_prob(every_sequence())
        assert log_p.exp().sum().item() == pytest.approx(1, abs=1e-5)

    def test_samples_follow_its_probabilities(self) -> None:
        network, n = self.network(), 40_000
        weights = torch.tensor([CODES**i for i in reversed(range(LENGTH))])
        counts = torch.bincount((network.sample(n) * weights).sum(1), minlength=CODES**LENGTH)
        expected = network.log_prob(every_sequence()).exp()
        assert ((counts / n - expected).abs() < 5 * (expected / n).sqrt()).all()

    @pytest.mark.parametrize("layer", ["embedding", "head"])
    def test_equal_indices_of_two_codebooks_are_different_codes(self, layer: str) -> None:
        """What belongs to the second codebook changes nothing of the first."""
        network = self.network()
        before = network(every_sequence())
        with torch.no_grad():
            network.get_submodule(layer).weight[CODES:] += torch.randn(CODES, 8)
        changed = (network(every_sequence()) - before).abs().amax((0, 2)) > 1e-4
        # An index is embedded at the position after it: the second code at the third.
        assert changed.tolist() == (
            [False, False, True, True] if layer == "embedding" else [False, True, True, True]
        )

    def test_is_exactly_uniform_until_it_is_fitted(self) -> None:
        network = CodeTransformer(CODES, (1, 3), 8, 2)
        expected = torch.full((CODES**LENGTH,), -LENGTH * math.log(CODES))
        assert torch.allclose(network.log_prob(every_sequence()), expected, rtol=1e-6)


class TestFit:
    def test_the_learning_rate_warms_up_over_a_twentieth_and_falls_as_a_cosine_to_nothing(
        self,
    ) -> None:
        factor = warmup_cosine(200, 0.05)
        assert [factor(step) for step in range(9)] == pytest.approx([k / 10 for k in range(1, 10)])
        assert [factor(step) for step in (50, 100, 150, 200)] == pytest.approx(
            [(1 + math.cos(math.pi * part)) / 2 for part in (1 / 4, 1 / 2, 3 / 4, 1)]
        )
        assert [warmup_cosine(10, 0.05)(step) for step in (0, 5)] == pytest.approx([1.0, 0.5])

    def test_beats_uniform_on_structured_codes(self) -> None:
        """Nearly all that can be known of them: their first code alone is a surprise."""
        torch.manual_seed(0)
        network = CodeTransformer(5, (6,), 16, 1)
        codes = counting_up()
        assert -network.log_prob(codes).mean() > 6 * math.log(5) - 1e-4
        network.fit(codes.int(), 150)
        assert -network.log_prob(codes).mean() < math.log(5) + 0.3
        drawn = network.sample(200)
        assert ((drawn.diff(dim=1) % 5) == 1).float().mean() > 0.95
        assert len(drawn[:, 0].unique()) == 5

    def test_follows_torchs_generator(self) -> None:
        weights = []
        for seed in (1, 1, 2):
            network = random_network(5, 6)
            torch.manual_seed(seed)
            network.fit(counting_up(), 3)
            weights.append(network.head.weight)
        assert weights[0].equal(weights[1])
        assert not weights[0].equal(weights[2])

    def test_asks_for_gradients_only_meanwhile(self) -> None:
        network = random_network(5, 6)
        with torch.no_grad():
            network.fit(counting_up(), 2)
        assert not any(p.requires_grad or p.grad is not None for p in network.parameters())


class TestPrior:
    """Over vectors on a grid of 2×2, of 2·2 codes."""

    quantizer = ScalarQuantizer((2, 2))

    def prior(self, uniform: bool = False) -> CodePrior:
        network = None if uniform else random_network(codes=4)
        return CodePrior(self.quantizer, (2, 2), torch.zeros(()), network)

    def every_grid(self) -> Tensor:
        return torch.tensor(list(itertools.product(range(4), repeat=4))).view(-1, 2, 2)

    @pytest.mark.parametrize("uniform", [True, False])
    def test_probabilities_of_all_latents_add_up_to_one(self, uniform: bool) -> None:
        prior = self.prior(uniform=uniform)
        log_p = prior.log_prob(self.quantizer.indices_to_codes(self.every_grid()))
        assert log_p.shape == (256,)
        assert log_p.exp().sum().item() == pytest.approx(1, abs=1e-5)
        assert log_p.equal(prior.log_prob_indices(self.every_grid()))

    @pytest.mark.parametrize("uniform", [True, False])
    def test_shapes(self, uniform: bool) -> None:
        prior = self.prior(uniform=uniform)
        assert prior.event_shape == (2, 2, 2)
        assert prior.batch_shape == ()
        assert prior.sample().shape == (2, 2, 2)
        z = prior.sample(torch.Size((5, 3)))
        assert z.shape == (5, 3, 2, 2, 2)
        log_p = prior.log_prob(z)
        assert log_p.shape == (5, 3)
        assert log_p[4, 2].item() == pytest.approx(prior.log_prob(z[4, 2]).item(), abs=1e-5)

    def test_uniform_samples_and_nats(self) -> None:
        prior = self.prior(uniform=True)
        z = prior.sample(torch.Size((4000,)))
        share = torch.bincount(self.quantizer.codes_to_indices(z).flatten()) / 16_000
        assert torch.allclose(share, torch.full((4,), 0.25), atol=0.02)
        assert torch.allclose(prior.log_prob(z), torch.tensor(-4 * math.log(4)))

    @pytest.mark.parametrize("uniform", [True, False])
    def test_samples_hold_no_graph_of_a_learned_codebook(self, uniform: bool) -> None:
        quantizer = VectorQuantizer(4, 2, ema=False)
        network = None if uniform else random_network(codes=4)
        prior = CodePrior(quantizer, (2, 2), torch.zeros(()), network)
        assert quantizer.codebook.requires_grad
        assert not prior.sample(torch.Size((3,))).requires_grad

    def test_positions_are_read_row_by_row(self) -> None:
        prior, grid = self.prior(), torch.tensor([[0, 1], [2, 3]])
        assert prior.network is not None
        flat = prior.network.log_prob(torch.tensor([[0, 1, 2, 3]]))
        assert prior.log_prob_indices(grid).item() == pytest.approx(flat.item(), abs=1e-6)


@pytest.mark.parametrize("missing", ["forward", "indices_to_codes", "codes_to_indices"])
def test_a_quantizer_needs_both_directions_and_a_forward_pass(missing: str) -> None:
    methods = {"forward", "indices_to_codes", "codes_to_indices"} - {missing}
    part = type("Part", (Quantizer,), dict.fromkeys(methods, lambda self, x: x))
    with pytest.raises(TypeError, match=missing):
        part()


class TestUsage:
    def test_of_even_use(self) -> None:
        perplexity, usage = code_usage(torch.arange(12).view(3, 2, 2) % 6, 6)
        assert perplexity.item() == pytest.approx(6, rel=1e-6)
        assert usage == 1

    def test_of_half_the_codes(self) -> None:
        perplexity, usage = code_usage(torch.arange(12).view(3, 2, 2) % 6, 12)
        assert perplexity.item() == pytest.approx(6, rel=1e-6)
        assert usage == 0.5

    def test_of_collapse(self) -> None:
        perplexity, usage = code_usage(torch.full((4, 7, 7), 3), 512)
        assert perplexity == 1
        assert usage == 1 / 512

    def test_of_uneven_use(self) -> None:
        """exp of 3/4·log(4/3) + 1/4·log(4)."""
        perplexity, _ = code_usage(torch.tensor([[[0, 0], [0, 1]]]), 9)
        assert perplexity.item() == pytest.approx(4 / 3**0.75, rel=1e-6)


@pytest.fixture(scope="module")
def network() -> CodeTransformer:
    """Fitted to codes that their class determines."""
    torch.manual_seed(0)
    network = CodeTransformer(CODES, (LENGTH,), 16, 1, num_classes=CODES)
    y = torch.arange(CODES).repeat(100)
    network.fit(y[:, None].expand(-1, LENGTH), 150, y, 0.2)
    return network


class TestClasses:
    """Codes that their class determines: class c has the code c at every position."""

    def test_samples_are_of_their_class(self, network: CodeTransformer) -> None:
        y = torch.arange(CODES).repeat(20)
        found = network.sample(len(y), y=y)
        assert float((found == y[:, None]).float().mean()) > 0.95

    def test_probabilities_given_a_class(self, network: CodeTransformer) -> None:
        sequences = every_sequence()
        for number in range(CODES):
            y = torch.full((len(sequences),), number)
            p = network.log_prob(sequences, y).exp()
            assert float(p.sum()) == pytest.approx(1, abs=1e-4)
            assert float(p[(sequences == number).all(1)]) > 0.8

    def test_without_a_class_it_is_the_marginal(self, network: CodeTransformer) -> None:
        sequences = every_sequence()
        p = network.log_prob(sequences).exp()
        unknown = torch.full((len(sequences),), -1)
        assert p.equal(network.log_prob(sequences, unknown).exp())
        for number in range(CODES):
            assert float(p[(sequences == number).all(1)]) == pytest.approx(1 / 3, abs=0.12)

    def test_the_prior_has_a_batch_of_classes(self, network: CodeTransformer) -> None:
        quantizer = VectorQuantizer(CODES, 2)
        y = torch.arange(CODES)
        prior = CodePrior(quantizer, (2, 2), torch.zeros(()), network, y=y)
        assert prior.batch_shape == (CODES,)
        z = prior.sample()
        assert z.shape == (CODES, 2, 2, 2)
        assert prior.sample(torch.Size((5,))).shape == (5, CODES, 2, 2, 2)
        assert prior.with_temperature(0.0).batch_shape == (CODES,)
        indices = y[:, None, None].expand(-1, 2, 2)
        expected = network.log_prob(indices.flatten(1), y)
        torch.testing.assert_close(prior.log_prob_indices(indices), expected)
        repeated = prior.log_prob_indices(indices.expand(5, -1, -1, -1))
        torch.testing.assert_close(repeated, expected.expand(5, -1))


def test_a_run_draws_codes_of_a_class(tmp_path: Path) -> None:
    run = vaezoo.train("vq_vae", out=tmp_path / "run", sampler="none", **CLASSES)
    fitted = run.fit_sampler("autoregressive", prior_steps=3, conditional=True)
    assert fitted.sample(3, label=1).shape == fitted.sample(3).shape
    with pytest.raises(OptionError, match="not conditional"):
        run.fit_sampler("autoregressive", prior_steps=3, overwrite=True).sample(2, label=1)
    assert vaezoo.load_run(run.path).evaluate(metrics="elbo").elbo is not None
