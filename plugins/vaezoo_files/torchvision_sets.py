"""MNIST, Fashion-MNIST, KMNIST, EMNIST, CIFAR-10 and SVHN, read and downloaded by torchvision.

torchvision is imported only if a data set is not in the cache: the import takes seconds.
"""

from __future__ import annotations

import gzip
import os
import string
import tempfile
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from vaezoo import BaseDataset, Splits, VaezooError
from vaezoo.data.base import (
    hash_content,
    hash_examples,
    make_splits,
    random_split,
)
from vaezoo.data.options import SPLIT_SEED
from vaezoo.errors import DataError
from vaezoo.io import open_regular, require_extra
from vaezoo.runtime.memory import available_memory

from .cache import CachedImages, cached_images
from .locator import DatasetLocator, IncompleteError
from .options import EmnistOptions, TorchvisionOptions

VERSION = 1
"""The version of reading and resizing: images cached by another version are not used."""

MAX_FILE_BYTES = 1 << 30
"""The largest official file has 547 MB, unpacked."""


class Examples(NamedTuple):
    """images: uint8 [n, channels, height, width]. labels: int64 [n], from 0."""

    images: Tensor
    labels: Tensor


class TorchvisionDataset(BaseDataset):
    """A data set of torchvision, with its official training and test splits.

    `options.validation` examples are held out of the official training split.
    """

    options: TorchvisionOptions

    name: ClassVar[str]
    torchvision_name: ClassVar[str]
    shape: ClassVar[tuple[int, int, int]] = (1, 28, 28)
    class_names: Sequence[str] = string.digits
    num_images: int = 70_000
    """Of training and testing together."""

    folders: ClassVar[tuple[str, ...]]
    """Where the files lie below a folder such as ./data, in torchvision's layout and others."""

    system: ClassVar[tuple[str, ...]] = ()
    """Folders in which packages of the operating system put the files."""

    @abstractmethod
    def files(self) -> Sequence[Sequence[str]]:
        """The files of the set; for each, the names that it may have."""

    @abstractmethod
    def read(self, files: Sequence[Path]) -> tuple[Examples, Examples]:
        """Read the official training and test examples. It may raise anything for damaged files."""

    def download(self, folder: Path) -> None:
        """Download the set into an empty folder. It may raise anything."""
        import torchvision.datasets

        getattr(torchvision.datasets, self.torchvision_name)(folder, download=True)

    def load(self) -> Splits:
        options = self.options
        locator = DatasetLocator(self.name, self.folders, self._recognise, self.system)
        cached = self._cached(locator.locate(options.root, options.download, self.download))
        classes = np.frombuffer(bytes.fromhex(cached.info["labels"]), np.uint8)
        count, total = cached.info["train"], len(classes)
        train, validation, _ = random_split(count, 0, options.validation, SPLIT_SEED)
        description = f"official: {len(train):,} to train on, {total - count:,} to test"
        if len(validation):
            description += f"; {len(validation):,} held out of training by seed {SPLIT_SEED}"
        size = b"" if options.image_size is None else repr(options.image_size).encode()
        return make_splits(
            options,
            cached.images,
            torch.from_numpy(classes.astype(np.int64)),
            (train, validation, torch.arange(count, total)),
            class_names=self.class_names,
            description=description,
            fingerprint=hash_content(bytes.fromhex(cached.info["content"]), size),
        )

    def _recognise(self, folder: Path) -> list[Path] | None:
        found, missing = [], []
        for names in self.files():
            paths = [folder / name for name in names if os.path.isfile(folder / name)]
            found += paths[:1]
            if not paths:
                missing.append(" or ".join(names[:2]))
        if found and missing:
            raise IncompleteError(f"{folder} has no {missing[0]}")
        return found or None

    def _cached(self, files: Sequence[Path]) -> CachedImages:
        """The training images, then the test images, resized; read by torchvision once."""
        size = self.options.image_size or self.shape[1:]

        def build(append: Callable[[NDArray[np.uint8]], None]) -> dict[str, Any]:
            official = self._read_checked(files)
            for examples in official:
                for piece in resized(examples.images, size):
                    append(piece.numpy())
            labels = torch.cat([examples.labels for examples in official])
            return {
                "train": len(official[0].images),
                "labels": bytes(labels.tolist()).hex(),
                "content": b"".join(hash_examples(*examples) for examples in official).hex(),
            }

        states = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
        key = f"{self.name} {VERSION} {states}"
        return cached_images(key, (self.shape[0], *size), self.num_images, build)

    def _read_checked(self, files: Sequence[Path]) -> tuple[Examples, Examples]:
        try:
            official = self.read(files)
        except VaezooError:
            raise
        except Exception as error:  # torchvision and SciPy raise errors of any kind
            raise DataError(f"{self.name} in {files[0].parent} {_damaged(error)}") from None
        for kind, (images, labels) in zip(("training", "test"), official, strict=True):
            if images.shape[1:] != self.shape or not len(images):
                raise DataError(
                    f"{self.name}: the {kind} images are {list(images.shape)}, not "
                    f"[n, {', '.join(map(str, self.shape))}]: these files are of another set"
                )
            if len(images) != len(labels):
                raise DataError(
                    f"{self.name}: {len(images)} {kind} images have {len(labels)} labels"
                )
            low, high, count = int(labels.min()), int(labels.max()), len(self.class_names)
            if low < 0 or high >= count:
                raise DataError(
                    f"{self.name}: {kind} labels go from {low} to {high}, where classes go from 0 "
                    f"to {count - 1}: these files are of another set, or damaged"
                )
        if sum(len(examples.images) for examples in official) > self.num_images:
            raise DataError(f"{self.name} has {self.num_images:,} images: these are of another set")
        return official


def _damaged(error: Exception) -> str:
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return f"is damaged ({reason}): fetch it again"


class MnistDataset(TorchvisionDataset):
    """70,000 handwritten digits, 28×28 grey. LeCun, Bottou, Bengio & Haffner 1998."""

    name = "mnist"
    torchvision_name = "MNIST"
    folders: ClassVar[tuple[str, ...]] = ("MNIST/raw", "MNIST", "mnist", "mnist/raw")

    def files(self) -> Sequence[Sequence[str]]:
        # Some archives unpack to names with a dot in the place of the last hyphen.
        return [
            [f"{stem}-{kind}{mark}{end}" for mark in "-." for end in (f"{form}", f"{form}.gz")]
            for kind, form in (("images", "idx3-ubyte"), ("labels", "idx1-ubyte"))
            for stem in self.stems()
        ]

    def stems(self) -> tuple[str, str]:
        """What the names of the training files and of the test files begin with."""
        return "train", "t10k"

    def read(self, files: Sequence[Path]) -> tuple[Examples, Examples]:
        from torchvision.datasets.mnist import read_image_file, read_label_file

        train_images, test_images = (read_idx(path, read_image_file) for path in files[:2])
        train_labels, test_labels = (read_idx(path, read_label_file) for path in files[2:])
        return (
            Examples(train_images.unsqueeze(1), train_labels),
            Examples(test_images.unsqueeze(1), test_labels),
        )


class FashionMnistDataset(MnistDataset):
    """70,000 pieces of clothing, 28×28 grey. Xiao, Rasul & Vollgraf 2017, arXiv:1708.07747."""

    name = "fashion_mnist"
    torchvision_name = "FashionMNIST"
    folders = ("FashionMNIST/raw", "FashionMNIST", "fashion-mnist", "fashion_mnist")
    # Debian's package dataset-fashion-mnist
    system = ("/usr/share/datasets/fashion-mnist",)
    class_names = (
        *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
        *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    )


class KmnistDataset(MnistDataset):
    """70,000 handwritten hiragana, 28×28 grey. Clanuwat et al. 2018, arXiv:1812.01718."""

    name = "kmnist"
    torchvision_name = "KMNIST"
    folders = ("KMNIST/raw", "KMNIST", "kmnist", "kmnist/raw")
    class_names = ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")


_DISTINCT = "abdefghnqrt"
"""Small letters that do not look like their capital, and so are classes of their own."""

_MERGED = string.digits + string.ascii_uppercase + _DISTINCT
_EMNIST: dict[str, tuple[str, int]] = {
    "balanced": (_MERGED, 131_600),
    "byclass": (string.digits + string.ascii_uppercase + string.ascii_lowercase, 814_255),
    "bymerge": (_MERGED, 814_255),
    "digits": (string.digits, 280_000),
    "letters": (string.ascii_lowercase, 145_600),
    "mnist": (string.digits, 70_000),
}
"""The classes and the number of images of each part."""


class EmnistDataset(MnistDataset):
    """Handwritten digits and letters, 28×28 grey. Cohen et al. 2017, arXiv:1702.05373.

    The files hold each image with rows and columns exchanged; here they are upright. The labels of
    `letters` count from 1 in the files, and from 0 here.
    """

    options: EmnistOptions

    name = "emnist"
    torchvision_name = "EMNIST"
    folders = ("EMNIST/raw", "EMNIST", "emnist", "emnist/raw", "gzip", "EMNIST/raw/gzip", ".")

    def __init__(self, options: EmnistOptions) -> None:
        super().__init__(options)
        self.class_names, self.num_images = _EMNIST[options.part]

    def stems(self) -> tuple[str, str]:
        return f"emnist-{self.options.part}-train", f"emnist-{self.options.part}-test"

    def read(self, files: Sequence[Path]) -> tuple[Examples, Examples]:
        first = 1 if self.options.part == "letters" else 0
        train, test = (
            Examples(images.transpose(2, 3), labels - first)
            for images, labels in super().read(files)
        )
        return train, test

    def download(self, folder: Path) -> None:
        from torchvision.datasets import EMNIST

        EMNIST(folder, split=self.options.part, download=True)


class Cifar10Dataset(TorchvisionDataset):
    """60,000 photographs in ten classes, 32×32 colour. Krizhevsky 2009, Learning Multiple Layers
    of Features from Tiny Images (technical report, University of Toronto)."""

    name = "cifar10"
    torchvision_name = "CIFAR10"
    shape = (3, 32, 32)
    num_images = 60_000
    folders = tuple(f"{parent}cifar-10-batches-py" for parent in ("", "cifar10/", "CIFAR10/"))
    class_names = (
        *("airplane", "automobile", "bird", "cat", "deer"),
        *("dog", "frog", "horse", "ship", "truck"),
    )

    def files(self) -> Sequence[Sequence[str]]:
        batches = [f"data_batch_{number}" for number in range(1, 6)]
        return [[name] for name in (*batches, "test_batch", "batches.meta")]

    def read(self, files: Sequence[Path]) -> tuple[Examples, Examples]:
        from torchvision.datasets import CIFAR10

        folder = files[0].parent
        meta = CIFAR10.meta
        _check_md5(
            folder, [*CIFAR10.train_list, *CIFAR10.test_list, [meta["filename"], meta["md5"]]]
        )
        # torchvision checks the MD5 of all files too, before it unpickles the first.
        reader = type("CIFAR10", (CIFAR10,), {"base_folder": ""})
        train, test = reader(folder, train=True), reader(folder, train=False)
        return (
            Examples(torch.from_numpy(train.data).permute(0, 3, 1, 2), torch.tensor(train.targets)),
            Examples(torch.from_numpy(test.data).permute(0, 3, 1, 2), torch.tensor(test.targets)),
        )

    def download(self, folder: Path) -> None:
        super().download(folder)
        (folder / "cifar-10-python.tar.gz").unlink()


class SvhnDataset(TorchvisionDataset):
    """99,289 house numbers, cut out around one digit, 32×32 colour. Netzer et al. 2011, Reading
    Digits in Natural Images with Unsupervised Feature Learning.

    The files give the digit 0 the label 10; here it is 0. The `extra` images are not used.
    """

    name = "svhn"
    shape = (3, 32, 32)
    num_images = 99_289
    folders = ("SVHN", "svhn", ".")

    def files(self) -> Sequence[Sequence[str]]:
        return [["train_32x32.mat"], ["test_32x32.mat"]]

    def read(self, files: Sequence[Path]) -> tuple[Examples, Examples]:
        require_extra("scipy.io", "the data set svhn", "svhn")
        from torchvision.datasets import SVHN

        folder = files[0].parent
        _check_md5(folder, [SVHN.split_list[part][1:] for part in ("train", "test")])
        train, test = SVHN(folder, split="train"), SVHN(folder, split="test")
        return (
            Examples(torch.from_numpy(train.data), torch.from_numpy(train.labels)),
            Examples(torch.from_numpy(test.data), torch.from_numpy(test.labels)),
        )

    def download(self, folder: Path) -> None:
        require_extra("scipy.io", "the data set svhn", "svhn")
        from torchvision.datasets import SVHN

        for part in ("train", "test"):
            SVHN(folder, split=part, download=True)


def _check_md5(folder: Path, checksums: Sequence[Sequence[str]]) -> None:
    """DataError for the first file, (name, MD5), that is not the official one."""
    from torchvision.datasets.utils import check_integrity

    for name, md5 in checksums:
        if not check_integrity(folder / name, md5):
            raise DataError(
                f"{folder / name} is damaged, or is not the official file (its MD5 is another): "
                "fetch it again"
            )


def read_idx(path: Path, read: Callable[[str], Tensor]) -> Tensor:
    """Read an idx file, plain or compressed by gzip, by a function of torchvision."""
    limit = min(MAX_FILE_BYTES, available_memory() // 4)
    try:
        with tempfile.TemporaryDirectory() as scratch, open_regular(path) as file:
            plain, compressed = path, file.read(2) == b"\x1f\x8b"
            file.seek(0)
            if compressed:
                plain = Path(scratch) / "idx"
                with gzip.open(file) as content, plain.open("wb") as target:
                    while target.tell() <= limit and (piece := content.read(1 << 20)):
                        target.write(piece)
            if plain.stat().st_size > limit:
                raise DataError(f"{path} is too large: more than {limit:,} bytes when unpacked")
            return read(str(plain))
    except DataError:
        raise
    except Exception as error:  # gzip, zlib and torchvision raise errors of any kind
        if isinstance(error, OSError) and error.errno:
            raise DataError(f"cannot read {path}: {error.strerror}") from None
        raise DataError(f"{path} {_damaged(error)}") from None


def resized(images: Tensor, size: tuple[int, ...]) -> Iterator[Tensor]:
    """Resize images, stretched, bilinear and antialiased, to size (height, width), in pieces.

    images: uint8 [n, channels, h, w]. Values are rounded to the nearest whole number.
    """
    for piece in torch.split(images, 1024):
        if piece.shape[2:] == size:
            yield piece
            continue
        values = functional.interpolate(piece.float(), size, mode="bilinear", antialias=True)
        yield values.round_().clamp_(0, 255).to(torch.uint8)
