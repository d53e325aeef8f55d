"""A small classifier of a data set, whose features replace Inception's if those are missing.

It is trained once for a data set, always in the same way, and kept in the cache.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vaezoo import Split, Splits, VaezooError
from vaezoo.checkpoint.format import load_into, load_weights, save_weights
from vaezoo.data.loader import BatchLoader
from vaezoo.data.options import Binarize
from vaezoo.errors import RunError
from vaezoo.evaluation.metric import MetricUnavailable
from vaezoo.runtime.device import move_module
from vaezoo_files.cache import cache_folder

VERSION = 1
"""Raised when the network or its training changes: features of two versions do not compare."""
FEATURES = 128
_STEPS, _BATCH, _LR = 1500, 128, 2e-3
_MAX_TESTED = 10_000


class Classifier(nn.Module):
    """Three strided convolutions, a layer of features, and a head for each target.

    counts: how many classes each head has.
    """

    def __init__(self, channels: int, counts: Sequence[int]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for number in (32, 64, 128):
            layers += [nn.Conv2d(channels, number, 3, stride=2, padding=1), nn.ReLU()]
            channels = number
        # Means over four by four places keep positions, at any image size.
        self.body = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(4), nn.Flatten())
        self.features = nn.Linear(channels * 16, FEATURES)
        self.heads = nn.ModuleList(nn.Linear(FEATURES, count) for count in counts)

    def forward(self, x: Tensor) -> Tensor:
        """Features, [n, FEATURES]. x: [n, channels, height, width] in [0, 1]."""
        return F.relu(self.features(self.body(x - 0.5)))

    def layers(self, x: Tensor) -> list[Tensor]:
        """The activations of each convolution, [n, features, rows, columns] each."""
        x, found = x - 0.5, []
        for layer in self.body[:-2]:
            x = layer(x)
            if isinstance(layer, nn.ReLU):
                found.append(x)
        return found

    def logits(self, x: Tensor) -> list[Tensor]:
        """Logits of each head: [n, classes] each."""
        features = self(x)
        return [head(features) for head in self.heads]


@dataclass(frozen=True)
class TrainedClassifier:
    """A classifier, its target (classes or factors), and its accuracy on held-out examples."""

    network: Classifier
    target: str
    accuracy: float


def classifier_name(trained: TrainedClassifier, data_name: str) -> str:
    """The name of a classifier in labels: that of its data, and what it tells apart."""
    kind = "classifier" if trained.target == "classes" else f"{trained.target}-classifier"
    return "-".join(filter(None, (data_name.replace("_", "-"), kind)))


def load_classifier(
    splits: Splits,
    binarize: Binarize,
    device: torch.device,
    on_progress: Callable[[str, int, int], None],
) -> TrainedClassifier:
    """The classifier of a data set: from the cache, or trained now, which takes a minute or two.

    It predicts the factors of variation if they are known, each with a head of its own, else the
    classes. MetricUnavailable if the data has neither.
    """
    spec = splits.spec
    if splits.factor_names:
        target = "factors"
        everything = _targets(splits, splits.train, torch.arange(len(splits.train)))
        counts = [int(column.max()) + 1 for column in everything.T]
    elif spec.class_names:
        target, counts = "classes", [len(spec.class_names)]
    else:
        raise MetricUnavailable(
            "the data has no classes and no known factors to train a classifier on"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Classifier(spec.channels, counts)
    shown = (spec.shape, spec.domain, spec.class_names)
    key = repr((VERSION, splits.fingerprint, shown, binarize, target))
    name = hashlib.sha256(key.encode()).hexdigest()[:16]
    path = cache_folder() / "classifiers" / f"{name}.safetensors"
    accuracy = _read(path, network)
    network = move_module(network, device)
    if accuracy is None:
        train = BatchLoader(splits.train, batch_size=_BATCH, device=device, binarize=binarize)
        test = BatchLoader(splits.test, batch_size=256, device=device, binarize=binarize)
        _train(network, splits, train, on_progress)
        accuracy = _accuracy(network, splits, test)
        _write(path, network, accuracy)
    return TrainedClassifier(network.eval().requires_grad_(False), target, accuracy)


def read_classifier(path: Path, channels: int) -> Classifier:
    """The classifier in a file. RunError if it is missing, damaged, or of other channels."""
    weights = load_weights(path)
    weights.pop("accuracy", None)
    counts = [len(t) for name, t in sorted(weights.items()) if re.match(r"heads\.\d+\.bias", name)]
    with torch.random.fork_rng(devices=[]):
        network = Classifier(channels, counts)
    load_into(network, weights, path)
    return network.eval().requires_grad_(False)


def _targets(splits: Splits, split: Split, index: Tensor) -> Tensor:
    """Factors or classes of examples, int64 [n, heads]; -1 where a label is not known."""
    index = index.to(split.device)
    if splits.factor_names:
        found = split.factors(index)
    else:
        labels = split.get_batch(index)[1]
        found = None if labels is None else labels[:, None].long()
    assert found is not None
    return found


def _train(
    network: Classifier,
    splits: Splits,
    batches: BatchLoader,
    on_progress: Callable[[str, int, int], None],
) -> None:
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(network.parameters(), lr=_LR)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, _STEPS)
    network.train()
    with torch.enable_grad():
        for step in range(_STEPS):
            index = torch.randint(len(batches.split), (_BATCH,), generator=generator)
            logits = network.logits(batches.batch(index).x)
            targets = _targets(splits, batches.split, index).to(batches.device)
            losses = [
                F.cross_entropy(of_head, target, ignore_index=-1)
                for of_head, target in zip(logits, targets.T, strict=True)
            ]
            optimizer.zero_grad()
            torch.stack(losses).sum().backward()
            optimizer.step()
            schedule.step()
            on_progress("training a classifier for its features", step, _STEPS)


@torch.no_grad()
def _accuracy(network: Classifier, splits: Splits, batches: BatchLoader) -> float:
    """On test examples, the mean over heads."""
    network.eval()
    right, known = 0, 0
    for index in torch.arange(min(_MAX_TESTED, len(batches.split))).split(batches.batch_size):
        targets = _targets(splits, batches.split, index).to(batches.device)
        logits = network.logits(batches.batch(index).x)
        right += int((torch.stack([of_head.argmax(1) for of_head in logits], 1) == targets).sum())
        known += int((targets >= 0).sum())
    return right / max(1, known)


def _read(path: Path, network: Classifier) -> float | None:
    """Load the weights from the cache. Returns the accuracy, or None if they are not there."""
    try:
        weights = load_weights(path)
        accuracy = float(weights.pop("accuracy"))
        load_into(network, weights, path)
    except (RunError, KeyError):
        return None
    return accuracy


def save_classifier(path: Path, network: Classifier, accuracy: float) -> None:
    """Write a classifier to a .safetensors file, with its accuracy."""
    state = {**network.state_dict(), "accuracy": torch.tensor(accuracy, dtype=torch.float64)}
    save_weights(path, state)


def _write(path: Path, network: Classifier, accuracy: float) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_classifier(path, network, accuracy)
    except (OSError, VaezooError):
        return  # without a cache it is trained again next time
