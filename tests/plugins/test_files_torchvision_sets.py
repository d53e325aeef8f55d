"""The data sets of torchvision: small copies in each layout, written here."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import pickle
import struct
import sys
import urllib.error
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from vaezoo.cli.main import main
from vaezoo.data.base import TensorSplit
from vaezoo.errors import DataError, VaezooError
from vaezoo_files import torchvision_sets
from vaezoo_files.options import EmnistOptions, TorchvisionOptions
from vaezoo_files.torchvision_sets import (
    Cifar10Dataset,
    EmnistDataset,
    FashionMnistDataset,
    KmnistDataset,
    MnistDataset,
    SvhnDataset,
    TorchvisionDataset,
)

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
TRAIN, TEST = 12, 5


def grey(count: int, seed: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, 28, 28), dtype=np.uint8)


def write_idx(path: Path, values: NDArray[np.uint8], zipped: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape)
    content += values.tobytes()
    if zipped:
        path.with_name(path.name + ".gz").write_bytes(gzip.compress(content))
    else:
        path.write_bytes(content)


def write_mnist(
    folder: Path, zipped: bool = False, mark: str = "-", stems: tuple[str, str] = ("train", "t10k")
) -> None:
    for stem, count in zip(stems, (TRAIN, TEST), strict=True):
        labels = np.arange(count, dtype=np.uint8) % 10
        write_idx(folder / f"{stem}-images{mark}idx3-ubyte", grey(count, count), zipped)
        write_idx(folder / f"{stem}-labels{mark}idx1-ubyte", labels, zipped)


def everything(split: Any) -> tuple[torch.Tensor, torch.Tensor]:
    images, labels = split.get_batch(torch.arange(len(split)))
    return images, labels


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize(
    ("dataset", "folder"),
    [
        (MnistDataset, "MNIST/raw"),
        (MnistDataset, "."),
        (MnistDataset, "raw"),
        (FashionMnistDataset, "FashionMNIST/raw"),
        (KmnistDataset, "KMNIST/raw"),
        (KmnistDataset, "kmnist"),
    ],
)
def test_idx_sets_come_back_from_each_layout(
    tmp_path: Path, dataset: type[TorchvisionDataset], folder: str, zipped: bool
) -> None:
    write_mnist(tmp_path / folder, zipped)
    splits = dataset(TorchvisionOptions(root=tmp_path)).load()
    assert splits.spec.shape == (1, 28, 28)
    assert splits.spec.domain == "unit"
    assert splits.spec.num_examples == TRAIN
    assert len(splits.spec.class_names) == 10
    for split, count in ((splits.train, TRAIN), (splits.test, TEST), (splits.validation, TEST)):
        images, labels = everything(split)
        assert np.array_equal(images[:, 0].numpy(), grey(count, count))
        assert labels.tolist() == [i % 10 for i in range(count)]


def test_names_with_a_dot_and_the_usual_places(in_tmp: Path) -> None:
    write_mnist(in_tmp / "data" / "MNIST" / "raw", mark=".")
    assert len(MnistDataset(TorchvisionOptions()).load().train) == TRAIN


def test_files_of_one_name_are_not_guessed_at(in_tmp: Path) -> None:
    # Directly in ./data these files could be of three data sets.
    write_mnist(in_tmp / "data")
    with pytest.raises(DataError, match="kmnist was not found"):
        KmnistDataset(TorchvisionOptions()).load()


def test_the_downloads_folder_of_the_cache(in_tmp: Path) -> None:
    write_mnist(Path(os.environ["VAEZOO_CACHE"]) / "downloads" / "KMNIST" / "raw")
    assert len(KmnistDataset(TorchvisionOptions()).load().train) == TRAIN


def test_validation_is_held_out_of_training(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    splits = MnistDataset(TorchvisionOptions(root=tmp_path, validation=4)).load()
    train, validation = everything(splits.train)[0], everything(splits.validation)[0]
    assert splits.spec.num_examples == len(train) == TRAIN - 4
    rows = {image.numpy().tobytes() for image in torch.cat([train, validation])}
    assert rows == {image.tobytes() for image in grey(TRAIN, TRAIN)}
    again = MnistDataset(TorchvisionOptions(root=tmp_path, validation=4)).load()
    assert torch.equal(everything(again.validation)[0], validation)
    with pytest.raises(DataError, match="leave any to train on"):
        MnistDataset(TorchvisionOptions(root=tmp_path, validation=TRAIN)).load()


def test_binarized_sets_are_binary(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    for how in ("threshold", "dynamic"):
        options = TorchvisionOptions(root=tmp_path, binarize=how)
        assert MnistDataset(options).load().spec.domain == "binary"


def test_resizing_keeps_the_picture(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    steps = np.zeros((TRAIN, 28, 28), np.uint8)
    steps[:, :14] = 200
    write_idx(tmp_path / "train-images-idx3-ubyte", steps)
    splits = MnistDataset(TorchvisionOptions(root=tmp_path, image_size=(56, 14))).load()
    assert splits.spec.shape == (1, 56, 14)
    images = everything(splits.train)[0]
    assert images.dtype == torch.uint8
    assert images.shape == (TRAIN, 1, 56, 14)
    assert (images[:, :, :27] == 200).all()
    assert (images[:, :, 29:] == 0).all()
    # Antialiased: halving noise averages it, so that it keeps its mean and loses its spread.
    half = TorchvisionOptions(root=tmp_path, image_size=(14, 14))
    noise = everything(MnistDataset(half).load().test)[0].float()
    raw = grey(TEST, TEST).astype(np.float32)
    assert noise.mean().item() == pytest.approx(raw.mean(), abs=2)
    assert noise.std().item() < 0.7 * raw.std()


def test_fingerprint_follows_pixels_labels_and_size(tmp_path: Path) -> None:
    def fingerprint(**options: Any) -> str:
        return MnistDataset(TorchvisionOptions(root=tmp_path, **options)).load().fingerprint

    write_mnist(tmp_path)
    first = fingerprint()
    assert fingerprint() == first
    assert fingerprint(image_size=(32, 32)) != first
    labels = np.zeros(TRAIN, np.uint8)
    write_idx(tmp_path / "train-labels-idx1-ubyte", labels)
    assert fingerprint() != first


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    def said(options: TorchvisionOptions) -> str:
        with pytest.raises(DataError) as caught:
            MnistDataset(options).load()
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "--download" in said(TorchvisionOptions(root=tmp_path))
    assert "mnist was not found in" in said(TorchvisionOptions(root=tmp_path))
    assert "not a folder" in said(TorchvisionOptions(root=tmp_path / "nowhere"))
    write_mnist(tmp_path / "MNIST" / "raw")
    (tmp_path / "MNIST" / "raw" / "t10k-labels-idx1-ubyte").unlink()
    assert "has no t10k-labels-idx1-ubyte" in said(TorchvisionOptions(root=tmp_path))


@pytest.mark.parametrize(
    ("name", "site", "place"),
    [
        ("mnist", "s3.amazonaws.com/mnist", "MNIST/raw/train-images-idx3-ubyte"),
        ("fashion_mnist", "zalandoresearch", "FashionMNIST/raw/t10k-labels-idx1-ubyte"),
        ("kmnist", "codh.rois.ac.jp", "KMNIST/raw/t10k-images-idx3-ubyte"),
        ("emnist", "biometrics.nist.gov", "gzip/emnist-balanced-train-images-idx3-ubyte.gz"),
        ("cifar10", "cs.toronto.edu", "cifar-10-batches-py/data_batch_1"),
        ("svhn", "ufldl.stanford.edu", "SVHN/train_32x32.mat"),
        ("celeba", "mmlab.ie.cuhk.edu.hk", "celeba/img_align_celeba/000001.jpg"),
    ],
)
def test_files_to_fetch_by_hand_are_named_and_found_where_they_go(
    in_tmp: Path, capsys: pytest.CaptureFixture[str], name: str, site: str, place: str
) -> None:
    """In the message and by `vaezoo info`; a file that lies there is no longer missing."""
    line = ["train", "vanilla", "--data", name, "--root", str(in_tmp)]
    assert main(line) == 2
    message = capsys.readouterr().err
    assert f"{name} was not found" in message
    folder, _, file = place.rpartition("/")
    for text in (site, file, f"DIR/{folder}"):
        assert text in message
    assert main(["info", name, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["files"] in message
    (in_tmp / folder).mkdir(parents=True)
    (in_tmp / place).write_bytes(b"x")
    assert main(line) == 2
    assert "was not found" not in capsys.readouterr().err


def test_a_data_set_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_mnist(tmp_path)
    options = TorchvisionOptions(root=tmp_path, image_size=(14, 14))
    first = MnistDataset(options).load()

    def refuse(*_: object) -> None:
        raise AssertionError("the files were read again")

    monkeypatch.setattr(torchvision_sets, "read_idx", refuse)
    again = MnistDataset(options).load()
    assert again.fingerprint == first.fingerprint
    for one, other in zip(everything(again.train), everything(first.train), strict=True):
        assert torch.equal(one, other)
    os.utime(tmp_path / "t10k-labels-idx1-ubyte", ns=(1, 1))
    with pytest.raises(DataError, match="read again"):
        MnistDataset(options).load()


def test_what_is_damaged_is_named(tmp_path: Path) -> None:
    write_mnist(tmp_path, zipped=True)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte\.gz is damaged"):
        MnistDataset(TorchvisionOptions(root=tmp_path)).load()
    write_mnist(tmp_path)
    write_idx(tmp_path / "t10k-labels-idx1-ubyte", np.arange(4, dtype=np.uint8))
    with pytest.raises(DataError, match="5 test images have 4 labels"):
        MnistDataset(TorchvisionOptions(root=tmp_path)).load()
    write_idx(tmp_path / "t10k-labels-idx1-ubyte", np.full(5, 77, np.uint8))
    with pytest.raises(DataError, match="labels go from 77 to 77"):
        MnistDataset(TorchvisionOptions(root=tmp_path)).load()
    write_mnist(tmp_path)
    write_idx(tmp_path / "t10k-images-idx3-ubyte", grey(5, 5)[:, :20])
    with pytest.raises(DataError, match=r"\[5, 1, 20, 28\], not \[n, 1, 28, 28\]"):
        MnistDataset(TorchvisionOptions(root=tmp_path)).load()


def idx(*shape: int, kind: int = 8, content: bytes = b"") -> bytes:
    return struct.pack(f">HBB{len(shape)}I", 0, kind, len(shape), *shape) + content


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x89PNG\r\n",
        b"\0\0\x08\x00",
        b"\0\0\x08\xff" + b"\0" * 1020,
        b"\0\0\x08\x03\0\0",
        idx(1, kind=0x0D, content=b"\0" * 4),
        idx(2**32 - 1, 2**32 - 1, 2**32 - 1),
        idx(5, 28, 28, content=bytes(5 * 784 - 1)),
        idx(5, 28, 28, content=bytes(5 * 784 + 1)),
        idx(10_000, 10_000, 10_000, content=bytes(1000)),
        idx(0, 2**32 - 1, 2**32 - 1),
    ],
)
@pytest.mark.parametrize("zipped", [False, True])
def test_what_is_no_idx_file(tmp_path: Path, content: bytes, zipped: bool) -> None:
    write_mnist(tmp_path)
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(gzip.compress(content) if zipped else content)
    with pytest.raises(DataError, match="t10k-images-idx3-ubyte is damaged") as caught:
        MnistDataset(TorchvisionOptions(root=tmp_path)).load()
    assert "\n" not in str(caught.value)


def test_a_flipped_bit_in_a_gz_is_noticed(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    path = tmp_path / "t10k-labels-idx1-ubyte"
    content = bytearray(gzip.compress(path.read_bytes(), compresslevel=0))
    content[-9] ^= 1  # stored, so unpacking succeeds: only the checksum shows it
    path.write_bytes(content)
    with pytest.raises(DataError, match="t10k-labels-idx1-ubyte is damaged"):
        MnistDataset(TorchvisionOptions(root=tmp_path)).load()


def test_a_file_that_unpacks_to_too_much_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torchvision_sets, "available_memory", lambda: 100 << 20)
    write_mnist(tmp_path)
    content = gzip.compress(idx(60_000, 1000, content=bytes(60_000_000)), 1)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(content)
    with pytest.raises(DataError, match=r"train-labels-idx1-ubyte is too large"):
        MnistDataset(TorchvisionOptions(root=tmp_path)).load()


@pytest.mark.parametrize(
    ("part", "classes", "first", "last"),
    [
        ("balanced", 47, "0", "t"),
        ("bymerge", 47, "0", "t"),
        ("byclass", 62, "0", "z"),
        ("letters", 26, "a", "z"),
        ("digits", 10, "0", "9"),
        ("mnist", 10, "0", "9"),
    ],
)
def test_emnist_reads_upright_from_class_0(
    tmp_path: Path, part: str, classes: int, first: str, last: str
) -> None:
    stems = (f"emnist-{part}-train", f"emnist-{part}-test")
    write_mnist(tmp_path / "EMNIST" / "raw", stems=stems)
    offset = 1 if part == "letters" else 0
    labels = np.arange(TRAIN, dtype=np.uint8) % 10 + offset
    labels[-1] = classes - 1 + offset
    write_idx(tmp_path / "EMNIST" / "raw" / f"{stems[0]}-labels-idx1-ubyte", labels)
    write_idx(
        tmp_path / "EMNIST" / "raw" / f"{stems[1]}-labels-idx1-ubyte",
        np.full(TEST, offset, np.uint8),
    )
    splits = EmnistDataset(EmnistOptions(root=tmp_path, part=part)).load()
    images, read = everything(splits.train)
    assert np.array_equal(images[:, 0].numpy(), grey(TRAIN, TRAIN).transpose(0, 2, 1))
    assert read.min() == 0
    assert read.max() == classes - 1
    assert len(splits.spec.class_names) == classes
    assert (splits.spec.class_names[0], splits.spec.class_names[-1]) == (first, last)


def test_fashion_mnist_as_debian_has_it(monkeypatch: pytest.MonkeyPatch, in_tmp: Path) -> None:
    if not DEBIAN.is_dir():
        pytest.skip("Debian's package dataset-fashion-mnist is not installed")
    monkeypatch.setenv("HOME", str(in_tmp))
    splits = FashionMnistDataset(TorchvisionOptions()).load()
    assert (len(splits.train), len(splits.test)) == (60_000, 10_000)
    assert splits.spec.shape == (1, 28, 28)
    assert splits.spec.class_names[0] == "T-shirt/top"
    assert splits.spec.class_names[9] == "Ankle boot"
    images, labels = everything(splits.train)
    assert torch.bincount(labels).tolist() == [6000] * 10
    assert torch.bincount(everything(splits.test)[1]).tolist() == [1000] * 10
    # The mean and the deviation by which this data set is usually normalised.
    assert images.float().mean().item() / 255 == pytest.approx(0.2860, abs=5e-4)
    assert images.float().std().item() / 255 == pytest.approx(0.3530, abs=5e-4)
    # Trousers are narrow and sandals are not: the labels belong to the images.
    trousers, sandals = (images[labels == number].double().sum(dim=(0, 1)) for number in (1, 5))
    assert trousers[:, 8:20].sum() / trousers.sum() > 0.95
    assert sandals[:, 8:20].sum() / sandals.sum() < 0.5
    assert isinstance(splits.train, TensorSplit)


def write_official(folder: Path, contents: dict[str, bytes]) -> list[list[str]]:
    """Write files; the lists of their [name, MD5], as torchvision has them of the official ones."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return [[name, hashlib.md5(content).hexdigest()] for name, content in contents.items()]


def write_svhn(monkeypatch: pytest.MonkeyPatch, folder: Path) -> dict[str, Any]:
    savemat = pytest.importorskip("scipy.io").savemat
    from torchvision.datasets import SVHN

    written, contents = {}, {}
    for part, count in (("train", TRAIN), ("test", TEST)):
        generator = np.random.default_rng(count)
        written[part] = generator.integers(0, 256, (32, 32, 3, count), dtype=np.uint8)
        labels = (np.arange(count, dtype=np.uint8) % 10 + 1).reshape(-1, 1)
        file = io.BytesIO()
        savemat(file, {"X": written[part], "y": labels}, do_compression=True)
        contents[f"{part}_32x32.mat"] = file.getvalue()
    train, test = write_official(folder, contents)
    monkeypatch.setattr(SVHN, "split_list", {"train": ["", *train], "test": ["", *test]})
    return written


@pytest.mark.parametrize("folder", [".", "SVHN"])
def test_svhn_with_its_zeros_labelled_ten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    written = write_svhn(monkeypatch, tmp_path / folder)
    splits = SvhnDataset(TorchvisionOptions(root=tmp_path)).load()
    images, labels = everything(splits.train)
    assert splits.spec.shape == (3, 32, 32)
    assert np.array_equal(images.numpy(), written["train"].transpose(3, 2, 0, 1))
    assert labels.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1, 2]


def test_svhn_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_svhn(monkeypatch, tmp_path)
    path = tmp_path / "test_32x32.mat"
    for content in (path.read_bytes()[:5000], b"not a matlab file", b""):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"test_32x32\.mat is damaged") as caught:
            SvhnDataset(TorchvisionOptions(root=tmp_path)).load()
        assert "\n" not in str(caught.value)


def test_svhn_without_scipy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for part in ("train", "test"):
        (tmp_path / f"{part}_32x32.mat").touch()
    monkeypatch.setitem(sys.modules, "scipy", None)
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    with pytest.raises(VaezooError, match=r"needs the package scipy.*vaezoo\[svhn\]"):
        SvhnDataset(TorchvisionOptions(root=tmp_path)).load()


def cifar_batch(number: int) -> dict[str, Any]:
    generator = np.random.default_rng(number)
    levels = generator.integers(0, 256, (3, 3072), dtype=np.uint8)
    return {"data": levels, "labels": generator.integers(0, 10, 3).tolist()}


def write_cifar(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    from torchvision.datasets import CIFAR10

    names = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
    contents = {name: pickle.dumps(cifar_batch(n)) for n, name in enumerate(names)}
    contents["batches.meta"] = pickle.dumps({"label_names": ["airplane"]})
    *train, test, meta = write_official(folder, contents)
    monkeypatch.setattr(CIFAR10, "train_list", train)
    monkeypatch.setattr(CIFAR10, "test_list", [test])
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": meta[1]})


@pytest.mark.parametrize("folder", ["cifar-10-batches-py", "cifar10/cifar-10-batches-py", "."])
def test_cifar_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str) -> None:
    write_cifar(monkeypatch, tmp_path / folder)
    splits = Cifar10Dataset(TorchvisionOptions(root=tmp_path)).load()
    assert splits.spec.shape == (3, 32, 32)
    assert splits.spec.class_names[3] == "cat"
    batches = [cifar_batch(number) for number in range(6)]
    images, labels = everything(splits.train)
    expected = np.concatenate([batch["data"] for batch in batches[:5]])
    assert np.array_equal(images.reshape(-1, 3072).numpy(), expected)
    assert labels.tolist() == [label for batch in batches[:5] for label in batch["labels"]]
    images, labels = everything(splits.test)
    assert np.array_equal(images.reshape(-1, 3072).numpy(), batches[5]["data"])
    assert labels.tolist() == batches[5]["labels"]


class Malice:
    """Makes a folder when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("name", ["data_batch_1", "data_batch_4", "test_batch", "batches.meta"])
def test_a_pickle_that_is_not_the_official_file_is_never_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Neither by the check here nor by torchvision's own."""
    write_cifar(monkeypatch, tmp_path)
    evil = pickle.dumps({**cifar_batch(0), "more": Malice(tmp_path / "sign")})
    (tmp_path / name).write_bytes(evil)
    with pytest.raises(DataError, match=f"{name} is damaged, or is not the official file"):
        Cifar10Dataset(TorchvisionOptions(root=tmp_path)).load()
    monkeypatch.setattr(torchvision_sets, "_check_md5", lambda *_: None)
    with pytest.raises(DataError, match=r"cifar10 .*corrupted"):
        Cifar10Dataset(TorchvisionOptions(root=tmp_path)).load()
    assert not (tmp_path / "sign").exists()
    pickle.loads(evil)
    assert (tmp_path / "sign").exists()  # it would have worked


def test_a_download_that_breaks_off_leaves_nothing(
    in_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision.datasets import utils

    def break_off(url: str, filename: str, *_: Any) -> None:
        Path(filename).write_bytes(b"\x1f\x8b half of it")
        raise urllib.error.URLError("the network\nwent away")

    monkeypatch.setattr(utils, "_get_redirect_url", lambda url, **_: url)
    monkeypatch.setattr(utils, "_urlretrieve", break_off)
    root = in_tmp / "new"
    with pytest.raises(DataError, match=r"downloaded .*the network went away") as caught:
        MnistDataset(TorchvisionOptions(root=root, download=True)).load()
    assert "\n" not in str(caught.value)
    assert list(in_tmp.iterdir()) == []


def test_a_download_is_found_afterwards(in_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(self: MnistDataset, folder: Path) -> None:
        write_mnist(folder / "MNIST" / "raw")

    monkeypatch.setenv("HOME", str(in_tmp))
    monkeypatch.setattr(MnistDataset, "download", download)
    # Half of an older attempt is there already.
    write_idx(in_tmp / "root/MNIST/raw/train-labels-idx1-ubyte", np.zeros(1, np.uint8))
    splits = MnistDataset(TorchvisionOptions(root=in_tmp / "root", download=True)).load()
    assert len(splits.train) == TRAIN
    assert sorted(path.name for path in (in_tmp / "root").iterdir()) == ["MNIST"]
    assert len(MnistDataset(TorchvisionOptions(download=True)).load().train) == TRAIN
    monkeypatch.undo()
    assert len(MnistDataset(TorchvisionOptions(root=in_tmp / "root")).load().train) == TRAIN
