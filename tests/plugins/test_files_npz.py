"""Arrays in .npz files: layouts and values are recognised or refused, never guessed."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from vaezoo.data.base import Splits, load_splits
from vaezoo.data.loader import BatchLoader
from vaezoo.data.spec import DataSpec
from vaezoo.errors import DataError
from vaezoo_files import npz as arrays_module
from vaezoo_files.npz import NpzDataset
from vaezoo_files.options import NpzOptions

Array = NDArray[Any]


def load(path: Path, options: dict[str, Any] | None = None, /, **arrays: Any) -> Splits:
    np.savez(path / "data.npz", **arrays)
    return NpzDataset(NpzOptions(root=path / "data.npz", **(options or {}))).load()


def refused(path: Path, options: dict[str, Any] | None = None, /, **arrays: Any) -> str:
    with pytest.raises(DataError) as caught:
        load(path, options, **arrays)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def everything(splits: Splits) -> tuple[torch.Tensor, torch.Tensor | None]:
    """All examples of a file without test arrays, in no order that matters, with labels."""
    parts = [split.get_batch(torch.arange(len(split))) for split in (splits.train, splits.test)]
    labels = [y for _, y in parts if y is not None]
    return torch.cat([x for x, _ in parts]), torch.cat(labels) if labels else None


def rows(examples: torch.Tensor | Array) -> list[bytes]:
    return sorted(np.ascontiguousarray(example).tobytes() for example in np.asarray(examples))


def levels(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    count=st.integers(2, 9),
    channels=st.integers(1, 4),
    sides=st.tuples(st.integers(5, 9), st.integers(5, 9)),
    layout=st.sampled_from(["hw", "hwc", "chw", "vector"]),
    as_float=st.sampled_from([None, np.float16, np.float32, np.float64]),
    seed=st.integers(0, 99),
)
def test_every_layout_comes_back(
    tmp_path: Path,
    count: int,
    channels: int,
    sides: tuple[int, int],
    layout: str,
    as_float: Any,
    seed: int,
) -> None:
    channels = 1 if layout == "hw" else channels
    images = levels(count, channels, *sides, seed=seed)
    images.flat[:3] = 0, 255, 128
    stored: Array = images if as_float is None else (images / 255).astype(as_float)
    if layout == "hw":
        stored = stored[:, 0]
    elif layout == "hwc":
        stored = stored.transpose(0, 2, 3, 1)
    elif layout == "vector":
        stored, images = stored.reshape(count, -1), images.reshape(count, -1)
    splits = load(tmp_path, images=stored, labels=np.arange(count))
    assert splits.spec.shape == images.shape[1:]
    assert splits.spec.domain == "unit"
    examples, labels = everything(splits)
    assert examples.dtype == torch.uint8
    assert labels is not None
    assert np.array_equal(examples[labels.argsort()].numpy(), images)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    count=st.integers(2, 60),
    share=st.floats(0.01, 0.99),
    validation=st.integers(0, 10),
    seed=st.integers(0, 5),
)
def test_splits_are_disjoint_and_complete(
    tmp_path: Path, count: int, share: float, validation: int, seed: int
) -> None:
    options = {"test_fraction": share, "validation": validation, "split_seed": seed}
    values = np.arange(count, dtype=np.float32)[:, None] + 2
    testing = min(max(1, round(count * share)), count - 1)
    if testing + validation >= count:
        assert "leave any to train on" in refused(tmp_path, options, x=values)
        return
    splits = load(tmp_path, options, x=values)
    assert len(splits.test) == testing
    assert splits.spec.num_examples == len(splits.train) == count - testing - validation
    found = [splits.train, splits.test] + ([splits.validation] if validation else [])
    taken = torch.cat([split.get_batch(torch.arange(len(split)))[0] for split in found])
    assert sorted(taken.flatten().tolist()) == values.flatten().tolist()
    assert load(tmp_path, options, x=values).fingerprint == splits.fingerprint


def test_the_fingerprint_is_of_every_value_every_label_and_the_split(tmp_path: Path) -> None:
    images, labels = levels(20, 5, 5), np.arange(20) % 3
    other_image, other_label = images.copy(), labels.copy()
    other_image[19, 4, 4] ^= 1
    other_label[19] = 0
    found = [
        load(tmp_path, {"split_seed": seed}, images=x, labels=y).fingerprint
        for seed, x, y in (
            (0, images, labels),
            (0, images, labels),
            (0, other_image, labels),
            (0, images, other_label),
            (1, images, labels),
        )
    ]
    assert found[0] == found[1]
    assert len(set(found)) == 4


@pytest.mark.parametrize("name", ["images", "x", "data", "imgs", "x_train", "train_images"])
def test_names(tmp_path: Path, name: str) -> None:
    assert load(tmp_path, **{name: levels(8, 5, 5)}).spec.shape == (1, 5, 5)


def test_arrays_larger_than_the_memory_are_refused_with_their_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrays_module, "available_memory", lambda: 150_000_000)
    np.savez_compressed(tmp_path / "data.npz", images=np.zeros((1000, 320, 320), np.uint8))
    with pytest.raises(DataError, match=r"does not fit in memory: its arrays have 0\.1 GB"):
        NpzDataset(NpzOptions(root=tmp_path / "data.npz")).load()


def test_an_array_without_a_name(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", levels(8, 5, 5))
    options = NpzOptions(root=tmp_path / "data.npz")
    assert NpzDataset(options).load().spec.shape == (1, 5, 5)


def test_test_arrays_as_keras_has_them(tmp_path: Path) -> None:
    train, test = levels(9, 28, 28), levels(4, 28, 28, seed=1)
    options = {"validation": 2}
    splits = load(
        tmp_path,
        options,
        x_train=train,
        y_train=np.arange(9, dtype=np.uint8),
        x_test=test,
        y_test=np.array([[3], [9], [0], [1]], np.uint8),
    )
    images, labels = splits.test.get_batch(torch.arange(4))
    assert np.array_equal(images[:, 0].numpy(), test)
    assert labels is not None
    assert labels.tolist() == [3, 9, 0, 1]
    assert splits.spec.class_names == tuple("0123456789")
    assert (len(splits.train), len(splits.validation)) == (7, 2)
    taken = [s.get_batch(torch.arange(len(s)))[0][:, 0] for s in (splits.train, splits.validation)]
    assert rows(torch.cat(taken)) == rows(train)


def test_the_domain_follows_from_the_values(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).random((6, 5, 5), dtype=np.float32)
    bits = noise > 0.5
    for values, domain, kind in (
        (bits, "binary", torch.uint8),
        (bits.astype(np.uint8), "binary", torch.uint8),
        (bits.astype(np.float64), "binary", torch.uint8),
        (noise, "unit", torch.float32),
        (noise.astype(np.float16), "unit", torch.float32),
        (noise * 2 - 1, "real", torch.float32),
        (noise.astype(np.float64) * 1e6, "real", torch.float32),
        (np.rint(noise * 255).astype(np.int64), "unit", torch.uint8),
        (np.rint(noise * 255).astype(">f4") * np.float32(1 / 255), "unit", torch.uint8),
    ):
        splits = load(tmp_path, x=values)
        examples, _ = everything(splits)
        assert (splits.spec.domain, examples.dtype) == (domain, kind)
        scaled = examples.numpy() / (255 if kind == torch.uint8 else 1)
        if values.dtype == np.int64:
            scaled = scaled * 255
        spread = np.sort(scaled.astype(np.float64), axis=None)
        assert spread == pytest.approx(np.sort(values.astype(np.float64), axis=None), rel=1e-6)


def test_train_and_test_have_one_domain(tmp_path: Path) -> None:
    # Test images of 0 and 1 are not binary if the training images are grey.
    splits = load(tmp_path, x=levels(4, 5, 5), x_test=np.ones((2, 5, 5), np.uint8))
    assert splits.spec.domain == "unit"
    assert splits.test.get_batch(torch.arange(2))[0].max() == 1
    said = refused(tmp_path, x=levels(4, 5, 5), x_test=np.zeros((2, 5, 5), np.float32))
    assert "of one kind" in said


def test_binarize(tmp_path: Path) -> None:
    threshold = {"binarize": "threshold"}
    assert load(tmp_path, threshold, x=levels(4, 5, 5)).spec.domain == "binary"
    noise = np.random.default_rng(0).random((6, 5, 5))
    assert "--binarize" in refused(tmp_path, threshold, x=noise)
    assert "--binarize" in refused(tmp_path, threshold, x=noise * 3)


@pytest.mark.parametrize("domain", ["binary", "unit", "real"])
def test_image_files_are_read_for_data_of_levels_only(tmp_path: Path, domain: Any) -> None:
    pixels = levels(5, 5)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    dataset = NpzDataset(NpzOptions(root=tmp_path / "data.npz"))
    spec = DataSpec(shape=(1, 5, 5), domain=domain)
    if domain == "real":
        with pytest.raises(DataError, match="give the number of a test example"):
            dataset.read_images([tmp_path / "a.png"], spec)
    else:
        read = dataset.read_images([tmp_path / "a.png"], spec)
        assert np.array_equal(read[0, 0].numpy(), pixels)


@pytest.mark.parametrize(("count", "more"), [(10, False), (11, True)])
def test_ten_names_of_other_arrays_are_shown(tmp_path: Path, count: int, more: bool) -> None:
    said = refused(tmp_path, **{f"other{number}": levels(4, 5, 5) for number in range(count)})
    assert "other9" in said
    assert ("other9, ...:" in said) == more


def test_an_unknown_class_stays_unknown(tmp_path: Path) -> None:
    splits = load(tmp_path, x=levels(6, 5, 5), y=[-1, 7, 3, -1, 7, 3])
    _, labels = everything(splits)
    assert labels is not None
    assert sorted(labels.tolist()) == [-1, -1, 0, 0, 1, 1]
    assert splits.spec.class_names == ("3", "7")


def test_classes_may_have_any_numbers_of_64_bits(tmp_path: Path) -> None:
    numbers = np.array([2**63 - 1, 2**62, 5, 5], np.uint64)
    splits = load(tmp_path, x=levels(4, 5, 5), y=numbers)
    assert splits.spec.class_names == ("5", str(2**62), str(2**63 - 1))
    numbers[0] += np.uint64(1)
    assert "class numbers go from 0 up" in refused(tmp_path, x=levels(4, 5, 5), y=numbers)


def test_labels_known_in_part(tmp_path: Path) -> None:
    splits = load(tmp_path, x=levels(4, 5, 5), y=[0, 1, -1, 1], x_test=levels(2, 5, 5))
    _, labels = splits.test.get_batch(torch.arange(2))
    assert labels is not None
    assert labels.tolist() == [-1, -1]
    assert splits.spec.class_names == ("0", "1")


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint64])
def test_classes_are_the_numbers_that_occur(tmp_path: Path, dtype: type) -> None:
    """Of three classes 3, 7 and 9 there are no seven empty ones beside them."""
    y, y_test = np.array([9, 3, 3, 9], dtype), np.array([7, 3], dtype)
    splits = load(tmp_path, x=levels(4, 5, 5), y=y, x_test=levels(2, 5, 5), y_test=y_test)
    assert splits.spec.class_names == ("3", "7", "9")
    found = [split.get_batch(torch.arange(len(split)))[1] for split in (splits.train, splits.test)]
    assert [labels.tolist() for labels in found if labels is not None] == [[2, 0, 0, 2], [1, 0]]


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        (
            {"x": levels(8, 64, 9)},
            "x 8×64×9, taken for 8 grey images of 64×9 pixels (n×H×W, guessed: --layout",
        ),
        (
            {"x": levels(8, 5, 7, 3)},
            "x 8×5×7×3, taken for 8 colour images of 5×7 pixels (n×H×W×C, g",
        ),
        (
            {"x": levels(8, 2, 9)},
            "taken for 8 2-channel signals of 9 values (n×C×L, guessed: --lay",
        ),
        ({"x": levels(8, 9, 1)}, "taken for 8 signals of 9 values (n×L×C, guessed: --layout"),
        ({"x": levels(8, 1, 9, 7, 5)}, "8 volumes of 9×7×5 voxels (n×C×D×H×W, guessed: --lay"),
        ({"data": levels(8, 2, 7, 8) / 3}, "taken for 8 2-channel images of 7×8 pixels"),
        (
            {"x": np.eye(8, 6)},
            "x 8×6, taken for 8 vectors of 6 values, 0 or 1: 6 to train on",
        ),
        ({"x": np.eye(8, 6) / 3, "y": [0, 1] * 4}, "6 values, in [0, 1], in 2 classes: 6 to train"),
        (
            {"x": np.eye(8, 6) * 3.5},
            "6 values, real numbers: 6 to train on, 2 to test, at",
        ),
        ({"x": np.eye(8, 6), "x_test": np.eye(3, 6)}, "x 8×6, x_test 3×6, taken for 11 vectors"),
    ],
)
def test_it_says_what_the_arrays_were_taken_for(
    tmp_path: Path, arrays: dict[str, Any], said: str
) -> None:
    splits = load(tmp_path, **arrays)
    assert said in splits.description
    assert splits.record()["description"] == splits.description


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    shape=st.lists(st.integers(1, 14), min_size=1, max_size=4).map(tuple),
    layout=st.sampled_from(["channels_first", "channels_last", "no_channels"]),
    real=st.booleans(),
)
def test_the_layout_can_be_given(
    tmp_path: Path, shape: tuple[int, ...], layout: str, real: bool
) -> None:
    """Of any rank and size, where no axis or each could be that of the channels."""
    shape = shape if len(shape) < 4 or layout != "no_channels" else shape[1:]
    stored = levels(4, *shape).astype(np.float32) * 1.5 - 7 if real else levels(4, *shape)
    right = {
        "channels_first": lambda x: x,
        "channels_last": lambda x: x.transpose(-1, *range(x.ndim - 1)),
        "no_channels": lambda x: x[None],
    }[layout]
    splits = load(tmp_path, {"layout": layout}, x=stored, x_test=stored)
    assert splits.spec.shape == right(stored[0]).shape
    assert "guessed" not in splits.description
    examples = splits.test.get_batch(torch.arange(4))[0].numpy()
    if stored.max() > 1:  # else they are bits, stored as 0 and 255
        assert all(
            np.array_equal(x, right(given)) for x, given in zip(examples, stored, strict=True)
        )


def test_the_layout_of_test_arrays_is_that_of_the_others(tmp_path: Path) -> None:
    assert load(tmp_path, x=levels(4, 2, 9), x_test=levels(4, 2, 9)).spec.shape == (2, 9)
    said = refused(tmp_path, x=levels(4, 2, 9), x_test=levels(4, 9, 2))
    assert "differ: 2×9 and 9×2" in said


@pytest.mark.parametrize("ndim", [1, 2, 3])
def test_real_values_are_standardised_for_each_channel(tmp_path: Path, ndim: int) -> None:
    generator = np.random.default_rng(0)
    sizes = (5, 6, 7)[:ndim]
    x = generator.normal(size=(40, *sizes, 12)) * np.arange(1, 13) + np.arange(12)
    options = {"layout": "channels_last", "split_seed": 3}
    np.savez(tmp_path / "data.npz", x=x)
    splits = load_splits(NpzDataset(NpzOptions(root=tmp_path / "data.npz", **options)))
    statistics = splits.spec.statistics
    assert statistics is not None
    assert len(statistics.mean) == splits.spec.channels == 12
    train = splits.train.get_batch(torch.arange(30))[0].double().numpy()
    axes = (0, *range(2, ndim + 2))
    assert statistics.mean == pytest.approx(train.mean(axes), rel=1e-5)
    assert statistics.std == pytest.approx(train.std(axes), rel=1e-5)


def test_floats_like_8_bit_levels_are_pointed_out(tmp_path: Path) -> None:
    """Of images only: a table may hold such numbers."""
    x = np.random.default_rng(0).random((8, 5, 5)) * 255
    hint = "taken as real numbers: if they are 8-bit levels, store them as uint8"
    assert [hint in note for note in load(tmp_path, x=x).notes] == [True]
    for other in (x * 2, x - 1, x / 10, x.reshape(8, 25), x.round().astype(np.uint8)):
        assert load(tmp_path, x=other).notes == []


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"pictures": levels(4, 5, 5)}, "holds pictures: the array of the examples must be"),
        ({"x": levels(4, 5, 5), "images": levels(4, 5, 5)}, "holds both images and x"),
        ({"x": levels(4, 5, 5), "labels": [0] * 4, "y": [0] * 4}, "holds both labels and y"),
        ({"x": levels(4, 3, 9, 3)}, "4×3×9×3, and more than one of its ends is at most 4 long, as"),
        ({"x": levels(4, 9, 9, 9)}, "none of its ends"),
        (
            {"x": levels(4, 9, 9, 9)},
            "n×C×H×W (--layout channels_first) or n×H×W×C (--layout channels_last) or n×D×H×W (--l",
        ),
        ({"x": levels(4, 3, 4)}, "n×C×L (--layout channels_first) or n×L×C (--layout channels_la"),
        (
            {"x": levels(2, 5, 5, 5, 5)},
            "n×C×D×H×W (--layout channels_first) or n×D×H×W×C (--layout channels_last)",
        ),
        ({"x": levels(4)}, "x is 4: vectors are [n, values], signals"),
        ({"x": levels(2, 1, 5, 5, 5, 5)}, "images [n, C, H, W] and volumes [n, C, D, H, W]"),
        ({"x": np.uint8(3)}, "x is one number"),
        ({"x": levels(0, 5, 5)}, "is empty"),
        ({"x": levels(5, 0)}, "is empty"),
        ({"x": levels(1, 5, 5)}, "holds one example"),
        ({"x": np.full((4, 5), np.nan)}, "NaN or infinity"),
        ({"x": np.array([[1.0], [np.inf]])}, "NaN or infinity"),
        ({"x": np.array([[1.0], [1e300]])}, "too large"),
        ({"x": np.array([[-1], [7]])}, "whole numbers from -1 to 7"),
        ({"x": np.array([[0], [256]], np.uint16)}, "whole numbers from 0 to 256"),
        ({"x": np.ones((4, 5), np.complex64)}, "complex64"),
        ({"x": np.array([["a"], ["b"]])}, "numbers, or true and false"),
        ({"x": levels(4, 5, 5), "y": [0, 1, 2]}, "4 examples have 3 y"),
        ({"x": levels(4, 5, 5), "y": [0.5] * 4}, "class numbers [n], whole, or texts, not float64"),
        ({"x": levels(4, 5, 5), "y": np.eye(4, dtype=int)}, "class numbers [n]"),
        ({"x": levels(4, 5, 5), "y": [0, 1, 2, -2]}, "go from -2 to 2"),
        ({"x": levels(70_000, 1), "y": np.arange(70_000)}, "70,000 classes are too many"),
        ({"x": levels(4, 5, 5), "x_test": levels(4, 5, 6)}, "differ: 1×5×"),
        ({"x": levels(4, 5, 5), "x_test": levels(2, 5, 5), "y_test": [0]}, "2 examples have 1"),
        ({"x": np.array([[{"a": 1}]], dtype=object)}, "Python objects, which are never loaded"),
        ({"x": levels(4, 5), "y": np.array([None] * 4)}, "Python objects, which are never loaded"),
    ],
)
def test_what_is_refused(tmp_path: Path, arrays: dict[str, Any], said: str) -> None:
    assert said in refused(tmp_path, **arrays)


def test_what_is_no_npz(tmp_path: Path) -> None:
    np.savez(tmp_path / "good.npz", x=levels(40, 5, 5))
    whole = (tmp_path / "good.npz").read_bytes()
    for name, content, said in (
        ("nowhere.npz", None, "is not a file"),
        ("empty.npz", b"", "cannot read"),
        ("text.npz", b"hello", "cannot read"),
        ("cut.npz", whole[:-30], "cannot read"),
        ("flipped.npz", whole[:500] + b"\xff\x00\xff" + whole[503:], "cannot read"),
        ("pickle.npz", pickle.dumps({"x": 1}), "never loaded"),
    ):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=said) as caught:
            NpzDataset(NpzOptions(root=tmp_path / name)).load()
        assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="is not a file"):
        NpzDataset(NpzOptions(root=tmp_path)).load()
    with pytest.raises(DataError, match="needs --root FILE"):
        NpzDataset(NpzOptions()).load()


def test_image_files_for_grey_and_for_real_data(tmp_path: Path) -> None:
    Image.new("L", (9, 7), 200).save(tmp_path / "a.png")
    images = levels(4, 5, 5)
    spec = load(tmp_path, x=images).spec
    dataset = NpzDataset(NpzOptions())
    assert (dataset.read_images([tmp_path / "a.png"], spec) == 200).all()
    real = load(tmp_path, x=images.astype(np.float32) - 7).spec
    with pytest.raises(DataError, match="not 8-bit levels"):
        dataset.read_images([tmp_path / "a.png"], real)


def test_counts_are_taken_as_they_are(tmp_path: Path) -> None:
    counts = np.random.default_rng(0).poisson(3.0, (40, 6))
    counts[0, 0] = 70_000
    for dtype in (np.int64, np.uint32, np.float64):
        splits = load(tmp_path, {"values": "counts"}, x=counts.astype(dtype))
        assert splits.spec.domain == "count"
        assert "counts" in splits.description
        assert not splits.notes
        x, _ = everything(splits)
        assert x.dtype == torch.float32
        assert rows(x) == rows(counts.astype(np.float32))


def test_image_files_have_no_counts(tmp_path: Path) -> None:
    load(tmp_path, x=levels(4, 5, 5))
    spec = DataSpec(shape=(1, 5, 5), domain="count")
    with pytest.raises(DataError, match="counts, not 8-bit levels"):
        NpzDataset(NpzOptions(root=tmp_path / "data.npz")).read_images([], spec)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([[0, 1], [-1, 4]], "whole numbers from 0, and its smallest value is -1"),
        ([[0, 1], [0.5, 4]], "some of its values are not whole"),
        ([[0, 1], [3, 2**24 + 2]], "counts go to 2^24, and its largest is 1.67772e+07"),
        ([[0, 1], [np.nan, 4]], "NaN or infinity"),
        ([["a", "b"]], "numbers, or true and false, are needed"),
    ],
)
def test_what_are_no_counts(tmp_path: Path, values: Any, said: str) -> None:
    assert said in refused(tmp_path, {"values": "counts"}, x=np.array(values))


def test_counts_are_not_binarized(tmp_path: Path) -> None:
    options = {"values": "counts", "binarize": "threshold"}
    assert "--values counts keeps them" in refused(tmp_path, options, x=np.arange(8).reshape(4, 2))


def test_whole_numbers_like_counts_are_pointed_out(tmp_path: Path) -> None:
    low = np.random.default_rng(0).integers(0, 60, (9, 8))
    (note,) = load(tmp_path, x=low).notes
    assert "0 to 59 are taken as 8-bit levels: if they are counts, give --values counts" in note
    assert load(tmp_path, x=low.repeat(4, 1).reshape(9, 4, 8)).notes
    assert not load(tmp_path, x=low / 255).notes
    high = np.concatenate((low, np.full((1, 8), 255)))
    assert not load(tmp_path, x=high).notes
    assert "if they are counts, give --values counts" in refused(tmp_path, x=low + 250)


GUIDE = (Path(__file__).parents[2] / "docs" / "bring_a_dataset.md").read_text()


def test_the_guide_has_the_keys_of_the_arrays() -> None:
    rows = re.findall(r"^\| (t\w+(?: \w+)?|factor names) \| (`.*`) \|$", GUIDE, flags=re.M)
    assert {role: tuple(re.findall(r"`(\w+)`", keys)) for role, keys in rows} == arrays_module.NAMES


@pytest.mark.parametrize(
    ("row", "values", "given", "expected"),
    [
        ("true and false, or only 0 and 1", [0, 1, 1, 0], "auto", [0, 1, 1, 0]),
        ("whole numbers from 0 to 255", [0, 51, 102, 255], "auto", [0, 0.2, 0.4, 1]),
        ("floats in [0, 1]", [0.1, 0.25, 0.7, 1.0], "auto", [0.1, 0.25, 0.7, 1.0]),
        ("whole numbers, with `--values counts`", [0, 3, 7, 2], "counts", [0, 3, 7, 2]),
        ("any numbers, with `--values real`", [3, 5, 3, 5], "real", [-1, 1, -1, 1]),
        ("other floats", [-3.0, 5.0, -3.0, 5.0], "auto", [-1, 1, -1, 1]),
    ],
)
def test_values_are_scaled_as_the_guide_says(
    tmp_path: Path, row: str, values: list[float], given: Any, expected: list[float]
) -> None:
    domain = re.findall(rf"^\| {re.escape(row)} \| (\w+) \|", GUIDE, flags=re.M)
    column = np.tile(np.array(values), 10)[:, None]
    np.savez(tmp_path / "some.npz", x=column, x_test=column)
    splits = load_splits(NpzDataset(NpzOptions(root=tmp_path / "some.npz", values=given)))
    assert [splits.spec.domain] == domain
    loader = BatchLoader(splits.test, batch_size=40, device=torch.device("cpu"), spec=splits.spec)
    x = next(iter(loader.sequential())).x[:4, 0]
    assert x.tolist() == pytest.approx(expected)
