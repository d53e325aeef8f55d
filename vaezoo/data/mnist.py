"""MNIST and the sets made in its image, read from their idx files."""

from __future__ import annotations

import string
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import torch

from vaezoo.data.idx import read_idx
from vaezoo.data.known import Examples, KnownDataset
from vaezoo.data.options import EmnistOptions
from vaezoo.errors import DataError


class IdxDataset(KnownDataset):
    """A set in four idx files: images and labels, for training and for testing."""

    def files(self) -> Sequence[Sequence[str]]:
        stems = (
            *(f"{self.stem(part)}-images{{}}idx3-ubyte" for part in ("train", "test")),
            *(f"{self.stem(part)}-labels{{}}idx1-ubyte" for part in ("train", "test")),
        )
        # Some archives unpack to names with a dot in the place of the last hyphen.
        return [[stem.format(mark) + end for mark in "-." for end in ("", ".gz")] for stem in stems]

    def stem(self, part: str) -> str:
        """What the names of the files of a part, train or test, begin with."""
        return "train" if part == "train" else "t10k"

    def read(self, files: Sequence[Path]) -> tuple[Examples, Examples]:
        train_images, test_images, train_labels, test_labels = files
        return self._examples(train_images, train_labels), self._examples(test_images, test_labels)

    def _examples(self, images_path: Path, labels_path: Path) -> Examples:
        images, labels = read_idx(images_path), read_idx(labels_path)
        if images.dtype != torch.uint8 or images.ndim != 3 or not images.numel():
            raise DataError(f"{images_path} does not hold 8-bit grey images")
        if labels.ndim != 1:
            raise DataError(f"{labels_path} does not hold one label for each image")
        return Examples(images.unsqueeze(1), labels.long())


class MnistDataset(IdxDataset):
    """70,000 handwritten digits, 28×28 grey. LeCun, Bottou, Bengio & Haffner 1998."""

    name = "mnist"
    folders = ("MNIST/raw", "MNIST", "mnist", "mnist/raw")

    def class_names(self) -> tuple[str, ...]:
        return tuple(string.digits)

    def fetch(self, folder: Path) -> None:
        from torchvision.datasets import MNIST

        MNIST(folder, download=True)


class FashionMnistDataset(IdxDataset):
    """70,000 pieces of clothing, 28×28 grey. Xiao, Rasul & Vollgraf 2017, arXiv:1708.07747."""

    name = "fashion_mnist"
    folders = ("FashionMNIST/raw", "FashionMNIST", "fashion-mnist", "fashion_mnist")
    # Debian's package dataset-fashion-mnist
    system = ("/usr/share/datasets/fashion-mnist",)

    def class_names(self) -> tuple[str, ...]:
        return (
            *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
            *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
        )

    def fetch(self, folder: Path) -> None:
        from torchvision.datasets import FashionMNIST

        FashionMNIST(folder, download=True)


class KmnistDataset(IdxDataset):
    """70,000 handwritten hiragana, 28×28 grey. Clanuwat et al. 2018, arXiv:1812.01718."""

    name = "kmnist"
    folders = ("KMNIST/raw", "KMNIST", "kmnist", "kmnist/raw")

    def class_names(self) -> tuple[str, ...]:
        return ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")

    def fetch(self, folder: Path) -> None:
        from torchvision.datasets import KMNIST

        KMNIST(folder, download=True)


class EmnistDataset(IdxDataset):
    """Handwritten digits and letters, 28×28 grey. Cohen et al. 2017, arXiv:1702.05373.

    The files hold each image with rows and columns swapped; here they read upright. The labels of
    `letters` count from 1 in the files, and from 0 here.
    """

    options: EmnistOptions

    name = "emnist"
    folders = ("EMNIST/raw", "EMNIST", "emnist", "emnist/raw", "gzip", "EMNIST/raw/gzip", ".")

    _lower: ClassVar[str] = string.ascii_lowercase
    _distinct: ClassVar[str] = "abdefghnqrt"
    """Small letters that do not look like their capital, and so are classes of their own."""

    def class_names(self) -> tuple[str, ...]:
        part = self.options.part
        if part in ("digits", "mnist"):
            return tuple(string.digits)
        if part == "letters":
            return tuple(self._lower)
        small = self._lower if part == "byclass" else self._distinct
        return tuple(string.digits + string.ascii_uppercase + small)

    def stem(self, part: str) -> str:
        return f"emnist-{self.options.part}-{part}"

    def read(self, files: Sequence[Path]) -> tuple[Examples, Examples]:
        first = 1 if self.options.part == "letters" else 0
        train, test = (
            Examples(images.transpose(2, 3).contiguous(), labels - first)
            for images, labels in super().read(files)
        )
        return train, test

    def fetch(self, folder: Path) -> None:
        from torchvision.datasets import EMNIST

        EMNIST(folder, split=self.options.part, download=True)
