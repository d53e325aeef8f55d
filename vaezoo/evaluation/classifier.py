"""A small classifier of the data at hand, whose features stand in where there is no Inception.

It is trained once for a data set, by a fixed recipe, and kept in the cache.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vaezoo.data.base import Split, Splits
from vaezoo.data.cache import cache_folder
from vaezoo.data.loader import BatchLoader
from vaezoo.data.options import Binarize
from vaezoo.data.spec import DataSpec
from vaezoo.errors import RunError, VaezooError
from vaezoo.evaluation.metric import MetricUnavailable, OnProgress

RECIPE = 1
"""Raised whenever the network or its training changes: features of two recipes do not compare."""
FEATURES = 128
_STEPS, _BATCH, _LR = 1500, 128, 2e-3
_TESTED = 10_000


class Classifier(nn.Module):
    """Three strided convolutions, a layer of features, and a head for each thing to tell.

    counts: how many classes each head has.
    """

    def __init__(self, channels: int, counts: Sequence[int]) -> None:
        super().__init__()
        wide = (32, 64, 128)
        layers: list[nn.Module] = []
        for number in wide:
            layers += [nn.Conv2d(channels, number, 3, stride=2, padding=1), nn.ReLU()]
            channels = number
        # Means over four by four places: where things are counts, whatever the image's size.
        self.body = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(4), nn.Flatten())
        self.features = nn.Linear(channels * 16, FEATURES)
        self.heads = nn.ModuleList(nn.Linear(FEATURES, count) for count in counts)

    def forward(self, x: Tensor) -> Tensor:
        """Features, [n, FEATURES]. x: [n, channels, height, width] in [0, 1]."""
        return F.relu(self.features(self.body(x - 0.5)))

    def answers(self, x: Tensor) -> list[Tensor]:
        """Logits of each head: [n, classes] each."""
        features = self(x)
        return [head(features) for head in self.heads]


@dataclass(frozen=True)
class TrainedClassifier:
    """A classifier, what it tells apart, and how often it is right on held-out examples."""

    network: Classifier
    target: str
    accuracy: float


def load_classifier(
    splits: Splits, binarize: Binarize, device: torch.device, on_progress: OnProgress
) -> TrainedClassifier:
    """The classifier of a data set: from the cache, or trained now, which takes a minute or two.

    It learns the factors of variation where they are known, each with a head of its own, else the
    classes. MetricUnavailable where there are neither.
    """
    of, targets = _targets(splits)
    counts = _counts(splits, targets)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Classifier(splits.spec.channels, counts)
    path = _path(splits, binarize, of)
    accuracy = _read(path, network)
    network = network.to(device)
    if accuracy is None:
        _train(network, splits, binarize, device, targets, on_progress)
        accuracy = _accuracy(network, splits, binarize, device, targets)
        _write(path, network, accuracy)
    return TrainedClassifier(network.eval().requires_grad_(False), of, accuracy)


Targets = Callable[[Split, Tensor], Tensor]
"""What to tell of examples by index: int64 [n, heads]."""


def _targets(splits: Splits) -> tuple[str, Targets]:
    if splits.factor_names:

        def factors(split: Split, index: Tensor) -> Tensor:
            found = split.factors(index.to(split.device))
            assert found is not None
            return found

        return "factors", factors
    if not splits.spec.class_names:
        raise MetricUnavailable(
            "the data has no classes and no known factors to train a classifier on"
        )

    def labels(split: Split, index: Tensor) -> Tensor:
        found = split.get_batch(index.to(split.device))[1]
        assert found is not None
        return found[:, None].long()

    return "classes", labels


def _counts(splits: Splits, targets: Targets) -> list[int]:
    if not splits.factor_names:
        return [len(splits.spec.class_names)]
    everything = targets(splits.train, torch.arange(len(splits.train)))
    return [int(column.max()) + 1 for column in everything.T]


def _train(
    network: Classifier,
    splits: Splits,
    binarize: Binarize,
    device: torch.device,
    targets: Targets,
    on_progress: OnProgress,
) -> None:
    batches = BatchLoader(splits.train, batch_size=_BATCH, device=device, binarize=binarize)
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(network.parameters(), lr=_LR)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, _STEPS)
    network.train()
    with torch.enable_grad():
        for step in range(_STEPS):
            index = torch.randint(len(splits.train), (_BATCH,), generator=generator)
            loss = _loss(
                network.answers(batches.batch(index).x), targets(splits.train, index).to(device)
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            on_progress("training a classifier for its features", step, _STEPS)


def _loss(answers: list[Tensor], wanted: Tensor) -> Tensor:
    """The sum over heads of their cross-entropy; -1 is a label that is not known."""
    losses = [
        F.cross_entropy(answer, column, ignore_index=-1)
        for answer, column in zip(answers, wanted.T, strict=True)
    ]
    return torch.stack(losses).sum()


@torch.no_grad()
def _accuracy(
    network: Classifier,
    splits: Splits,
    binarize: Binarize,
    device: torch.device,
    targets: Targets,
) -> float:
    """On test examples, the mean over heads."""
    network.eval()
    batches = BatchLoader(splits.test, batch_size=256, device=device, binarize=binarize)
    right, known = 0, 0
    for index in torch.arange(min(_TESTED, len(splits.test))).split(256):
        wanted = targets(splits.test, index).to(device)
        guesses = torch.stack([a.argmax(1) for a in network.answers(batches.batch(index).x)], 1)
        right += int((guesses == wanted).sum())
        known += int((wanted >= 0).sum())
    return right / max(1, known)


def _path(splits: Splits, binarize: Binarize, of: str) -> Path:
    known = (RECIPE, splits.fingerprint, _spec(splits.spec), binarize, of)
    name = hashlib.sha256(repr(known).encode()).hexdigest()[:16]
    return cache_folder() / "classifiers" / f"{name}.safetensors"


def _spec(spec: DataSpec) -> tuple[object, ...]:
    return spec.shape, spec.domain, spec.class_names


def _read(path: Path, network: Classifier) -> float | None:
    """Give the network the weights of the cache; its accuracy, or None if they are not there."""
    from vaezoo.checkpoint.format import load_into, load_weights

    try:
        weights = load_weights(path)
        accuracy = float(weights.pop("accuracy"))
        load_into(network, weights, path)
    except (RunError, KeyError):
        return None
    return accuracy


def _write(path: Path, network: Classifier, accuracy: float) -> None:
    from vaezoo.checkpoint.format import save_weights

    state = {**network.state_dict(), "accuracy": torch.tensor(accuracy, dtype=torch.float64)}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_weights(path, state)
    except (OSError, VaezooError):
        return  # a cache that cannot be written costs time, no number
