"""All built-in models, parts, losses and data sets pass vaezoo.testing; the registry lists them."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from vaezoo import GivenData
from vaezoo.plugins.registry import registry
from vaezoo.plugins.sources import import_file
from vaezoo.plugins.specs import PARTS, Kind, Spec
from vaezoo.testing import check_dataset, parametrize_with_checks

Options = dict[str, Any]

torchvision_sets: Any = import_file(str(Path(__file__).parent / "test_files_torchvision_sets.py"))


def ours(kind: Kind) -> list[Spec]:
    known = registry()
    return [s for s in known.specs(kind) if known.plugin(s).distribution == "vaezoo"]


@parametrize_with_checks(*(spec for kind in PARTS for spec in ours(kind)))
def test_parts(check: Callable[[], None]) -> None:
    check()


@parametrize_with_checks(*ours("model"), *ours("loss"))
def test_models_and_losses(check: Callable[[], None]) -> None:
    check()


@pytest.mark.parametrize("spec", ours("dataset"), ids=lambda spec: spec.name)
def test_datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: Spec) -> None:
    if spec.name in OFFICIAL:
        OFFICIAL[spec.name](monkeypatch, tmp_path)
        options: Options = {"root": tmp_path}
    else:
        options = SMALL[spec.name](tmp_path) if spec.name in SMALL else {}
    check_dataset(spec, options=options, given=GIVEN.get(spec.name))


def noise(*shape: int) -> NDArray[np.uint8]:
    return np.random.default_rng(shape[0]).integers(0, 256, shape, dtype=np.uint8)


def sprites(folder: Path) -> Options:
    return {"examples": 200, "test": 40, "image_size": 16}


def npz(folder: Path) -> Options:
    np.savez(folder / "some.npz", images=noise(60, 12, 12), labels=np.arange(60) % 3)
    return {"root": folder / "some.npz"}


def table(folder: Path) -> Options:
    lines = [f"{number},{number % 3},{'xy'[number % 2]}" for number in range(60)]
    (folder / "some.csv").write_text("\n".join(["a,b,c", *lines]))
    return {"root": folder / "some.csv", "label_column": "b"}


def images(folder: Path) -> Options:
    for number, levels in enumerate(noise(40, 20, 24, 3)):
        path = folder / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(levels).save(path)
    return {"root": folder, "image_size": 16}


def idx(train: str, test: str) -> Callable[[Path], Options]:
    def write(folder: Path) -> Options:
        for stem, count in ((train, 40), (test, 20)):
            labels = (np.arange(count) % 10).astype(np.uint8)
            for what, values in (("images-idx3", noise(count, 28, 28)), ("labels-idx1", labels)):
                head = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape)
                (folder / f"{stem}-{what}-ubyte").write_bytes(head + values.tobytes())
        return {"root": folder}

    return write


def celeba(folder: Path) -> Options:
    (folder / "img_align_celeba").mkdir()
    for number, levels in enumerate(noise(40, 218, 178, 3), 1):
        Image.fromarray(levels).save(folder / "img_align_celeba" / f"{number:06}.jpg")
    roles = [f"{number:06}.jpg {number // 30 * 2}" for number in range(1, 41)]
    (folder / "list_eval_partition.txt").write_text("\n".join(roles) + "\n")
    return {"root": folder, "image_size": 16}


SMALL: dict[str, Callable[[Path], Options]] = {
    "sprites": sprites,
    "npz": npz,
    "table": table,
    "folder": images,
    "mnist": idx("train", "t10k"),
    "fashion_mnist": idx("train", "t10k"),
    "kmnist": idx("train", "t10k"),
    "emnist": idx("emnist-balanced-train", "emnist-balanced-test"),
    "celeba": celeba,
}
"""Functions that write a small copy of each data set, and return the options to read it."""

GIVEN: dict[str, GivenData] = {
    "arrays": GivenData(noise(60, 12, 12), labels=list("abc") * 20),
}
"""What data sets that read no files are given."""

OFFICIAL: dict[str, Callable[[pytest.MonkeyPatch, Path], object]] = {
    "cifar10": torchvision_sets.write_cifar,
    "svhn": torchvision_sets.write_svhn,
}
"""Functions that write small files, and let torchvision take their MD5 for the official one."""
