"""rFID and iFID: which images they compare, and with which."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from vaezoo import BaseVAE, DataSpec, Options, TensorSplit
from vaezoo.data.loader import BatchLoader
from vaezoo.evaluation.evaluate import evaluate, select_metrics
from vaezoo.evaluation.latents import interpolate
from vaezoo.evaluation.metric import EvalContext, MetricResult
from vaezoo.models.distributions import Delta
from vaezoo_fidelity import metrics as samples
from vaezoo_fidelity.distances import frechet_distance
from vaezoo_fidelity.reconstructions import middle, nearest_others

CPU = torch.device("cpu")
COUNT = 150


def dots() -> TensorSplit:
    images = torch.randint(256, (COUNT, 1, 2, 3), generator=torch.manual_seed(0)).to(torch.uint8)
    return TensorSplit(images, torch.zeros(COUNT, dtype=torch.int64))


class Halver(BaseVAE):
    """The latent is the image, and the reconstruction that times a factor."""

    def __init__(self, factor: float, domain: str = "unit") -> None:
        super().__init__(Options(), DataSpec(shape=(1, 2, 3), domain=domain))  # type: ignore[arg-type]
        self.latent_shape, self.factor = (1, 2, 3), factor

    def encode(self, x: Tensor, y: Tensor | None = None) -> Distribution:
        return Delta(x, 3)

    def decode(self, z: Tensor, y: Tensor | None = None) -> Distribution:
        if self.data.domain == "binary":
            bits = torch.distributions.Bernoulli(self.factor * z)
            return torch.distributions.Independent(bits, 3)
        return Delta(self.factor * z, 3)


@pytest.fixture(autouse=True)
def _flat(monkeypatch: pytest.MonkeyPatch) -> None:
    """Features are the pixels."""
    monkeypatch.setattr(samples, "MIN_EXAMPLES", 100)
    monkeypatch.setattr(samples, "_select_network", lambda _: (nn.Flatten(), "flat", "by hand"))


def measured(model: BaseVAE, *names: str) -> dict[str, MetricResult]:
    batches = BatchLoader(dots(), batch_size=40, device=CPU)
    context = EvalContext(model, frozenset({"deterministic"}), batches, data_name="dots")
    return dict(evaluate(context, select_metrics(list(names))).metrics)


def pixels() -> Tensor:
    return dots().images.flatten(1).double() / 255


def test_rfid_of_perfect_and_of_dark_reconstructions() -> None:
    assert measured(Halver(1.0), "rfid")["rfid"].value == pytest.approx(0, abs=1e-9)
    found = measured(Halver(0.5), "rfid")["rfid"]
    x = pixels()
    # Gaussians of moments (m, S) and (m/2, S/4): |m/2|² + tr S / 4.
    expected = (x.mean(0) / 2).square().sum() + x.var(0).sum() / 4
    assert found.value == pytest.approx(expected.item(), rel=1e-4)
    assert (found.label, found.network, found.examples) == ("rfid[flat]", "flat", COUNT)
    assert found.direction == "lower"


def test_rfid_sees_what_is_shown() -> None:
    """Values above 1 are clamped, as pictures are."""
    found = measured(Halver(3.0), "rfid")["rfid"].value
    expected = frechet_distance(pixels(), (3 * pixels()).clamp(0, 1))
    assert found == pytest.approx(expected, rel=1e-4)


def test_rfid_of_binary_data_compares_binary_images() -> None:
    """Means are grey; the draws at the same pixel vary by p (1 - p) more."""
    found = measured(Halver(0.9, "binary"), "rfid")["rfid"].value
    grey = frechet_distance(pixels(), 0.9 * pixels())
    assert found is not None
    assert found > 2 * grey


def test_ifid_by_hand() -> None:
    found = measured(Halver(1.0), "ifid")["ifid"]
    x = pixels().float().view(-1, 1, 1, 2, 3)
    between = []
    for number, image in enumerate(x):
        distances = [((image - other) ** 2).sum().item() for other in x]
        distances[number] = float("inf")
        other = x[distances.index(min(distances))]
        between.append(interpolate(image, other, 3)[1].flatten())
    expected = frechet_distance(pixels(), torch.stack(between).clamp(0, 1))
    assert found.value == pytest.approx(expected, rel=1e-4)
    assert found.label == "ifid[flat]"
    assert found.value > 0


def test_ifid_needs_continuous_latents() -> None:
    batches = BatchLoader(dots(), batch_size=40, device=CPU)
    context = EvalContext(Halver(1.0), frozenset({"discrete"}), batches)
    found = evaluate(context, select_metrics(["ifid"])).metrics["ifid"]
    assert found.value is None


def test_the_nearest_other_point() -> None:
    points = torch.tensor([[0.0], [1.0], [1.5], [10.0], [10.0]])
    assert nearest_others(points).tolist() == [1, 2, 1, 4, 3]


def test_the_middle_of_the_arc() -> None:
    torch.manual_seed(0)
    a, b = torch.randn(4, 2, 3), torch.randn(4, 2, 3)
    for x, y, found in zip(a, b, middle(a, b), strict=True):
        torch.testing.assert_close(found, interpolate(x[None], y[None], 3)[1])
    same_length = (
        b / b.flatten(1).norm(dim=1).view(-1, 1, 1) * a.flatten(1).norm(dim=1).view(-1, 1, 1)
    )
    lengths = middle(a, same_length).flatten(1).norm(dim=1)
    torch.testing.assert_close(lengths, a.flatten(1).norm(dim=1))
    torch.testing.assert_close(middle(a, a), a)
    assert middle(a, -a).abs().max() < 1e-5
    assert middle(a, torch.zeros_like(a)).equal(a / 2)
