"""Tests of the reference plugin: image sizes, the tutorial's loss up to a factor, learning."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

import vaezoo
from vaezoo import BaseVAE, Batch, DataSpec, StepContext
from vaezoo.errors import DataError, OptionError

KLD_WEIGHT = 0.00025


class Tutorial(nn.Module):
    """The tutorial's network and loss from their description; images and outputs in [-1, 1].

    Its convolutions have biases before batch norm, as a tutorial's do; vanilla's have none, and
    whatever they are here, loss and gradients are the same.
    """

    def __init__(self, channels: int, size: int, hidden: tuple[int, ...], latent: int) -> None:
        super().__init__()
        down = [
            nn.Sequential(nn.Conv2d(a, b, 3, 2, 1), nn.BatchNorm2d(b), nn.LeakyReLU())
            for a, b in itertools.pairwise((channels, *hidden))
        ]
        self.smallest = (hidden[-1], size >> len(hidden), size >> len(hidden))
        self.encoder = nn.Sequential(*down, nn.Flatten())
        self.mean = nn.Linear(math.prod(self.smallest), latent)
        self.logvar = nn.Linear(math.prod(self.smallest), latent)
        up = [
            nn.Sequential(
                nn.ConvTranspose2d(a, b, 3, 2, 1, output_padding=1),
                nn.BatchNorm2d(b),
                nn.LeakyReLU(),
            )
            for a, b in itertools.pairwise((*reversed(hidden), hidden[0]))
        ]
        self.start = nn.Linear(latent, math.prod(self.smallest))
        self.decoder = nn.Sequential(*up, nn.Conv2d(hidden[0], channels, 3, padding=1), nn.Tanh())

    def take_weights(self, model: BaseVAE) -> None:
        """Copy the weights of vanilla, in the same order; its two heads are one layer."""
        *body, heads, bias = model.get_submodule("encoder").parameters()
        theirs = [
            *body,
            *heads.chunk(2),
            *bias.chunk(2),
            *model.get_submodule("decoder").parameters(),
        ]
        with torch.no_grad():
            for mine, other in zip(self.shared(), theirs, strict=True):
                mine.copy_(other)

    def shared(self) -> list[nn.Parameter]:
        """The parameters that vanilla has too."""
        heads = (self.mean.weight, self.logvar.weight, self.mean.bias, self.logvar.bias)
        return [
            *_without_biases_before_batch_norm(self.encoder),
            *heads,
            *self.start.parameters(),
            *_without_biases_before_batch_norm(self.decoder),
        ]

    def loss(self, x: Tensor, noise: Tensor, beta: float) -> Tensor:
        features = self.encoder(x)
        mean, logvar = self.mean(features), self.logvar(features)
        z = mean + noise * torch.exp(0.5 * logvar)
        decoded = self.decoder(self.start(z).view(-1, *self.smallest))
        kl = (-0.5 * (1 + logvar - mean**2 - logvar.exp()).sum(1)).mean()
        return F.mse_loss(decoded, x) + beta * KLD_WEIGHT * kl


def _without_biases_before_batch_norm(body: nn.Sequential) -> Iterator[nn.Parameter]:
    for part in body:
        biases = [part[0].bias] if isinstance(part, nn.Sequential) else []
        yield from (p for p in part.parameters() if not any(p is bias for bias in biases))


def flat_gradient(parameters: Iterable[nn.Parameter], loss: Tensor) -> Tensor:
    grads = torch.autograd.grad(loss, [p for p in parameters if p.requires_grad])
    return torch.cat([grad.flatten() for grad in grads])


@pytest.mark.parametrize("beta", [1.0, 4.0])
@pytest.mark.parametrize(("channels", "size"), [(3, 32), (1, 16), (3, 64)])
def test_the_tutorials_loss_is_ours_times_a_factor_plus_a_constant(
    beta: float, channels: int, size: int
) -> None:
    hidden, latent = (6, 8), 5
    values = channels * size * size
    scale = math.sqrt(KLD_WEIGHT * values / 8)
    model = vaezoo.create_model(
        "vanilla",
        (channels, size, size),
        hidden=hidden,
        latent_dim=latent,
        likelihood="gaussian",
        scale=scale,
        beta=beta,
    ).double()
    # Options become float32 parameters; here the last digits count.
    model.get_submodule("likelihood").log_scale.fill_(math.log(scale))
    tutorial = Tutorial(channels, size, hidden, latent).double()
    tutorial.take_weights(model)
    assert model.loss is not None
    constant = values * math.log(scale * math.sqrt(2 * math.pi))
    for seed in range(2):
        x = torch.rand(4, channels, size, size, dtype=torch.float64)
        torch.manual_seed(seed)
        noise = torch.randn(4, latent, dtype=torch.float64)
        theirs = tutorial.loss(2 * x - 1, noise, beta)
        torch.manual_seed(seed)
        ours = model.loss(model, Batch(x), StepContext(torch.tensor(0), 1, 4)).loss
        torch.testing.assert_close(ours, theirs / KLD_WEIGHT + constant, rtol=1e-9, atol=1e-6)
        a, b = flat_gradient(model.parameters(), ours), flat_gradient(tutorial.shared(), theirs)
        torch.testing.assert_close(a.norm(), b.norm() / KLD_WEIGHT, rtol=1e-7, atol=0)
        # The heads stand in another order there, so lengths of parts are compared, not the whole.
        torch.testing.assert_close(a.abs().sort()[0], b.abs().sort()[0] / KLD_WEIGHT)


@settings(max_examples=25)
@given(
    height=st.integers(8, 40),
    width=st.integers(8, 40),
    channels=st.integers(1, 4),
    hidden=st.lists(st.integers(1, 9), min_size=1, max_size=6),
    network=st.sampled_from(["conv", "resnet", "mlp", "gated_mlp"]),
    batch=st.integers(2, 3),
)
def test_any_image_and_any_network(
    height: int, width: int, channels: int, hidden: list[int], network: str, batch: int
) -> None:
    model = vaezoo.create_model(
        "vanilla", (channels, height, width), hidden=hidden, network=network, latent_dim=3
    )
    x = torch.rand(batch, channels, height, width)
    output = model(x)
    assert output.z.shape == (batch, 3)
    assert output.likelihood.mean.shape == x.shape
    assert output.likelihood.log_prob(x).shape == (batch,)
    assert model.sample(2).shape == (2, channels, height, width)
    assert hidden == list(hidden)  # a caller's list is left as it was


def test_vectors_take_a_dense_network() -> None:
    with pytest.raises(DataError, match="give network gated_mlp or mlp"):
        vaezoo.create_model("vanilla", (7,))
    model = vaezoo.create_model("vanilla", DataSpec(shape=(7,), domain="real"), network="mlp")
    assert model.eval().sample(3).shape == (3, 7)


@pytest.mark.parametrize(
    ("shape", "said"), [((3, 7, 64), "8×8 or more, not 7×64"), ((3, 64, 4), "8×8 or more")]
)
def test_too_small_is_told_before_anything_is_built(shape: tuple[int, ...], said: str) -> None:
    with pytest.raises(DataError, match=said):
        vaezoo.create_model("vanilla", shape)


@pytest.mark.parametrize("wrong", [{"latent_dim": 0}, {"hidden": ()}, {"logvar_range": (2, -6)}])
def test_options_that_make_no_model(wrong: dict[str, Any]) -> None:
    with pytest.raises(OptionError):
        vaezoo.create_model("vanilla", (1, 16, 16), **wrong)


def test_log_variance_is_kept_in_its_range() -> None:
    model = vaezoo.create_model(
        "vanilla", (1, 16, 16), hidden=(4,), latent_dim=3, logvar_range=(-6, 2)
    ).eval()
    x = 1e4 * torch.randn(8, 1, 16, 16)
    scale = model.encode(x).stddev
    assert scale.min() >= math.exp(-3) * (1 - 1e-6)
    assert scale.max() <= math.exp(1) * (1 + 1e-6)
    assert scale.min() < math.exp(-2.9)
    assert scale.max() > math.exp(0.9)


def test_it_overfits_a_batch() -> None:
    torch.manual_seed(0)
    model = vaezoo.create_model("vanilla", (1, 16, 16), hidden=(16, 32), latent_dim=8)
    loss = model.loss
    assert loss is not None
    (phase,) = loss.phases(model)
    x = (torch.rand(8, 1, 16, 16) > 0.5).float()
    optimizer = torch.optim.Adam(phase.parameters, lr=5e-3)
    errors = []
    for step in range(200):
        output = phase.loss_fn(model, Batch(x), StepContext(torch.tensor(step), 200, 8))
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
        if step in (0, 199):
            with torch.no_grad():
                errors.append(float((model(x).likelihood.mean - x).square().mean()))
    assert errors[1] < 0.2 * errors[0]
