"""Arrays, tensors, torch Datasets and Splits that are given from Python."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file
from torch.utils.data import Dataset, IterableDataset, Subset, TensorDataset

import vaezoo
from vaezoo import Splits, VaezooError
from vaezoo.plugins.registry import registry

Array = NDArray[Any]

TINY: dict[str, Any] = {
    **{"network": "mlp", "hidden": (8,), "latent_dim": 2},
    **{"batch_size": 8, "steps": 3, "device": "cpu"},
}


def levels(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def contents(splits: Splits) -> list[Any]:
    """Examples, labels and factors of each split."""
    found: list[Any] = []
    for split in (splits.train, splits.validation, splits.test):
        index = torch.arange(len(split))
        x, y = split.get_batch(index)
        factors = split.factors(index)
        found += [
            x.tolist(),
            y if y is None else y.tolist(),
            factors is not None and factors.tolist(),
        ]
    return found


def refused(work: Callable[[], object]) -> str:
    with pytest.raises(VaezooError) as caught:
        work()
    assert "\n" not in str(caught.value)
    return str(caught.value)


DTYPES = ("bool", "uint8", "int16", "int64", "float16", "float32", "float64", ">f4")


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    shape=st.tuples(st.integers(4, 12), st.integers(5, 9)).flatmap(
        lambda s: st.sampled_from([s, (*s, 7), (*s, 7, 3), (s[0], 2, s[1]), (s[0], 1, s[1], 6, 5)])
    ),
    dtype=st.sampled_from(DTYPES),
    scale=st.sampled_from([1, 255, -3]),
    options=st.fixed_dictionaries(
        {},
        optional={
            "test_fraction": st.floats(0.1, 0.5),
            "split_seed": st.integers(0, 9),
            "validation": st.integers(0, 1),
            "standardize": st.sampled_from(["auto", "off"]),
        },
    ),
    labels=st.sampled_from([None, "int", "text", "bool"]),
    with_factors=st.booleans(),
    fortran=st.booleans(),
    seed=st.integers(0, 99),
)
def test_an_array_is_the_same_data_as_its_file(
    tmp_path: Path,
    shape: tuple[int, ...],
    dtype: str,
    scale: int,
    options: dict[str, Any],
    labels: str | None,
    with_factors: bool,
    fortran: bool,
    seed: int,
) -> None:
    generator = np.random.default_rng(seed)
    if scale < 0 and np.dtype(dtype).kind in "uib":
        scale = 255
    x = (generator.random(shape) * scale).astype(dtype)
    x = np.asfortranarray(x) if fortran else x
    numbers = generator.integers(0, 3, len(x))
    named = {"int": numbers, "text": np.array(["c", "a", "b"])[numbers], "bool": numbers > 0}
    y = {} if labels is None else {"labels": named[labels]}
    factors = {
        "factors": generator.integers(3, 6, (len(x), 2)),
        "factor_names": ["size", "hue"],
    }
    more = {**y, **(factors if with_factors else {})}
    np.savez(tmp_path / "x.npz", x=x, **more)
    from_file = vaezoo.load_data("npz", root=tmp_path / "x.npz", **options)
    for form in (x, torch.tensor(x.astype(x.dtype.newbyteorder("=")))):
        from_python = vaezoo.load_data(form, **more, **options)
        assert from_python.fingerprint == from_file.fingerprint
        assert from_python.spec == from_file.spec
        assert from_python.factor_names == from_file.factor_names
        assert from_python.notes == from_file.notes
        assert contents(from_python) == contents(from_file)


def test_training_on_an_array_is_that_on_its_file_bit_for_bit(tmp_path: Path) -> None:
    x, y = np.random.default_rng(0).normal(size=(40, 5)), list("abcd") * 10
    np.savez(tmp_path / "x.npz", x=x, y=y)
    runs = [
        vaezoo.train("vanilla", data="npz", root=tmp_path / "x.npz", out=tmp_path / "a", **TINY),
        vaezoo.train("vanilla", data=x, labels=y, out=tmp_path / "b", **TINY),
        vaezoo.train("vanilla", data=torch.tensor(x), labels=y, out=tmp_path / "c", **TINY),
    ]
    first, *others = [load_file(run.folder.weights) for run in runs]
    for weights in others:
        assert weights.keys() == first.keys()
        assert all(weights[name].equal(first[name]) for name in first)
    assert len({run.summary["elbo"] for run in runs}) == 1
    kept = [run.metadata["data"] for run in runs]
    assert [data["given"] for data in kept] == [None, "numpy.ndarray", "torch.Tensor"]
    assert kept[0]["spec"] == kept[1]["spec"]


def test_a_run_is_given_its_data_again(tmp_path: Path) -> None:
    x, y = np.random.default_rng(0).normal(size=(40, 5)), np.arange(40) % 3
    trained = vaezoo.train("vanilla", data=x, labels=y, out=tmp_path / "run", **TINY)
    expected = trained.evaluate(metrics="mse").metrics["mse"].value
    again = vaezoo.load_run(tmp_path / "run", data=torch.tensor(x), labels=list(y))
    assert again.evaluate(metrics="mse").metrics["mse"].value == expected
    without = vaezoo.load_run(tmp_path / "run")
    assert without.sample(2).shape == without.reconstruct(x[:2]).shape == (2, 5)
    said = refused(lambda: without.evaluate())
    assert f"give it again, by vaezoo.load_run('{tmp_path / 'run'}', data=...)" in said
    assert "('numpy.ndarray')" in said
    for data, labels in ((x + 1, y), (x, None), (x, y[::-1])):
        run = vaezoo.load_run(tmp_path / "run", data=data, labels=labels)
        assert "has changed since" in refused(lambda run=run: run.evaluate())
    assert "not of type list" in refused(lambda: vaezoo.load_run(tmp_path / "run", data=[[1.0]]))


def test_the_data_of_a_run_by_name_is_not_given_as_an_object(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(40, 5))
    np.savez(tmp_path / "x.npz", x=x)
    vaezoo.train("vanilla", data="npz", root=tmp_path / "x.npz", out=tmp_path / "a", **TINY)
    said = refused(lambda: vaezoo.load_run(tmp_path / "a", data=x))
    assert said == "data: numpy.ndarray is for data set arrays, not data set npz"


def test_a_run_goes_on_where_it_is_given_the_data_again(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(40, 5))
    options = {"data": x, **TINY, "schedule": "constant"}
    whole = vaezoo.train("vanilla", out=tmp_path / "whole", **{**options, "steps": 6})
    part = vaezoo.train("vanilla", out=tmp_path / "part", **options)
    same = vaezoo.train("vanilla", out=part.path, auto_resume=True, **options)
    assert (same.summary, same.evaluate().metrics) == (part.summary, part.evaluate().metrics)
    longer = {**options, "steps": 6}
    changed = {**longer, "data": x + 1}
    said = refused(lambda: vaezoo.train("vanilla", out=part.path, auto_resume=True, **changed))
    assert "the data has changed" in said
    vaezoo.train("vanilla", out=part.path, auto_resume=True, **longer)
    weights = [load_file(run.folder.weights) for run in (whole, part)]
    assert all(weights[0][name].equal(weights[1][name]) for name in weights[0])


class Pictures(Dataset[Any]):
    classes = ("cat", "dog", "emu")

    def __init__(self, images: Array, transform: Callable[[Any], Any] = lambda x: x) -> None:
        self.images, self.transform = images, transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, number: int) -> tuple[Any, int]:
        return self.transform(Image.fromarray(self.images[number])), number % 2


@pytest.mark.parametrize("shape", [(9, 8, 7), (9, 8, 7, 3), (9, 3, 8, 3), (9, 3, 4)])
def test_pictures_of_a_dataset_are_channels_last(shape: tuple[int, ...]) -> None:
    """Also where an array of this shape could have its channels elsewhere."""
    images = levels(*shape)
    splits = vaezoo.load_data(Pictures(images), test_fraction=0.3)
    expected = images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)
    order = torch.cat([splits.train.index, splits.test.index]).numpy()  # type: ignore[attr-defined]
    found = [split.get_batch(torch.arange(len(split))) for split in (splits.train, splits.test)]
    assert np.array_equal(np.concatenate([x for x, _ in found]), expected[order])
    assert np.concatenate([y for _, y in found]).tolist() == (order % 2).tolist()
    assert splits.spec.class_names == ("cat", "dog", "emu")
    part = vaezoo.load_data(Subset(Pictures(images), range(5)))
    assert part.spec.class_names == ("cat", "dog", "emu")


def test_items_of_a_dataset() -> None:
    x, y = torch.randn(12, 3, 6, 6), torch.arange(12) % 4
    expected = vaezoo.load_data(x, labels=y)
    pairs = vaezoo.load_data(TensorDataset(x, y))
    assert pairs.fingerprint == expected.fingerprint
    assert pairs.spec == expected.spec
    alone = vaezoo.load_data(x).fingerprint
    assert vaezoo.load_data(TensorDataset(x)).fingerprint == alone
    assert vaezoo.load_data(TensorDataset(x), labels=y).fingerprint == expected.fingerprint


class Items(Dataset[Any]):
    def __init__(self, *items: Any) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, number: int) -> Any:
        return self.items[number]


class Noise(Items):
    def __getitem__(self, number: int) -> Any:
        return torch.rand(3)


class Endless(IterableDataset[Any]):
    def __iter__(self) -> Any:
        return iter([torch.zeros(3)])


class NoLength(Dataset[Any]):
    def __getitem__(self, number: int) -> Any:
        return torch.zeros(3)


X = np.random.default_rng(0).normal(size=(6, 3))
ONE = torch.zeros(2, 5, 5)


@pytest.mark.parametrize(
    ("data", "options", "said"),
    [
        (X[:, :0], {}, "data is empty (6×0)"),
        (X[:1], {}, "the data holds one example: two are needed"),
        (X[0], {}, "data is 3: vectors are [n, values]"),
        (X * np.nan, {}, "data holds NaN or infinity"),
        (X.astype(object), {}, "data is an array of objects (float): give numbers of one type"),
        (np.array([X, None], object), {}, "array of objects (ndarray and NoneType)"),
        (X + 1j, {}, "data is of complex128"),
        (X.astype(str), {}, "data is of <U32: numbers, or true and false, are needed"),
        (np.ma.masked_array(X, X > 0), {}, "data has masked values"),
        (np.rint(X * 500).astype(int), {}, "if they are counts, give values counts"),
        (np.rint(X), {"values": "counts"}, "data: values counts takes whole numbers from 0"),
        (torch.tensor(X).to_sparse(), {}, "sparse tensor: give data.to_dense()"),
        (torch.empty(4, 3, device="meta"), {}, "data: this Tensor makes no array"),
        (
            np.zeros((4, 3, 9, 3)),
            {},
            "n×C×H×W (layout channels_first) or n×H×W×C (lay",
        ),
        (X, {"labels": [0, 1]}, "6 examples have 2 labels"),
        (X, {"labels": ["a"] * 5 + [None]}, "labels is an array of objects (str and NoneType)"),
        (X, {"labels": [1, "a"] * 3}, "labels is an array of objects (int and str)"),
        (X, {"labels": X[:, 0]}, "labels must be class numbers [n], whole, or texts, not float64"),
        (X, {"labels": np.eye(6, dtype=int)}, "labels must be class numbers [n]"),
        (X, {"labels": "species"}, "labels must be class numbers [n]"),
        (X, {"labels": {}}, "labels is an array of objects (dict)"),
        (X, {"factors": X}, "factors must be whole numbers or texts: numpy.digitize"),
        (X, {"factors": np.zeros((5, 2), int)}, "6 examples have 5 factors"),
        (X, {"factors": np.zeros((6, 2, 2), int)}, "factors must be [n, factors]"),
        (X, {"factors": np.zeros((6, 2), int), "factor_names": ["a"]}, "2 factors need 2 factor_n"),
        (X, {"factor_names": ["a"]}, "there are factor_names and no factors"),
        (Endless(), {}, "data is an IterableDataset: give a Dataset with a length"),
        (NoLength(), {}, "data: NoLength has no length: define __len__"),
        (Items(), {}, "the Dataset has 0 items: two are needed"),
        (Items(5, 6), {}, "item 0 is a int, not a tensor, an array or an image"),
        (Items({"x": ONE}, {"x": ONE}), {}, "item 0 is a dict, not a tensor"),
        (Items((ONE, 1, 2), ONE), {}, "item 0 has 3 parts: give x or (x, y)"),
        (Items(ONE, ONE[:1]), {}, "item 0 is float32 of 2×5×5, and item 1 float32 of 1×5×5: make"),
        (Items(ONE, ONE.byte()), {}, "and item 1 uint8 of 2×5×5"),
        (Items(*[Image.new("P", (5, 5))] * 2), {}, "item 0 is an image of mode P: convert it"),
        (Items((ONE, 1), (ONE, 0.5)), {}, "labels must be class numbers [n], whole, or texts"),
        (Items((ONE, 1), ONE), {}, "labels is an array of objects (int and NoneType)"),
        (Items((ONE, 1), (ONE, 0)), {"labels": [0, 1]}, "items of the Dataset have labels already"),
        (Noise(1, 2, 3), {}, "item 0 is another one when it is read again"),
    ],
)
def test_what_is_refused(data: Any, options: dict[str, Any], said: str) -> None:
    found = refused(lambda: vaezoo.load_data(data, **options))
    assert said in found
    assert "--" not in found


def test_splits_are_used_as_they_are(tmp_path: Path) -> None:
    own = vaezoo.load_data("sprites", examples=60, test=12, image_size=16)
    assert vaezoo.load_data(own) == own
    bare = replace(own, fingerprint="")
    found = vaezoo.load_data(bare)
    assert re.fullmatch("[0-9a-f]{64}", found.fingerprint)
    assert found.fingerprint == vaezoo.load_data(bare).fingerprint
    other = replace(bare, test=own.train)
    assert vaezoo.load_data(other).fingerprint != found.fingerprint
    run = vaezoo.train("vanilla", data=own, out=tmp_path / "run", **TINY)
    assert run.splits.factor_names == own.factor_names
    for options, said in (
        ({"split_seed": 3}, "split_seed does nothing: Splits are read and split already"),
        ({"labels": [1]}, "Splits have labels and factors of their own"),
    ):
        assert said in refused(lambda options=options: vaezoo.load_data(own, **options))
    grey = vaezoo.load_data(levels(9, 5, 5))
    assert vaezoo.load_data(grey, binarize="dynamic").spec.domain == "binary"
    real = vaezoo.load_data(X)
    assert "binarize takes 8-bit" in refused(lambda: vaezoo.load_data(real, binarize="dynamic"))


def test_classes_are_numbered_as_by_a_label_encoder() -> None:
    preprocessing = pytest.importorskip("sklearn.preprocessing")
    generator = np.random.default_rng(0)
    for names in (["b", "a", "ä", "B"], [9, 3, -1 + 3, 2**40], [True, False]):
        labels = np.array(names)[generator.integers(0, len(names), 50)]
        splits = vaezoo.load_data(generator.normal(size=(50, 3)), labels=labels.tolist())
        encoder = preprocessing.LabelEncoder().fit(labels)
        assert splits.spec.class_names == tuple(map(str, encoder.classes_))
        index = splits.train.index.numpy()  # type: ignore[attr-defined]
        _, y = splits.train.get_batch(torch.arange(len(index)))
        assert y is not None
        assert y.tolist() == encoder.transform(labels)[index].tolist()


def test_factors_are_numbered_in_the_order_of_their_values() -> None:
    generator = np.random.default_rng(0)
    columns = [np.array(v)[generator.integers(0, 3, 30)] for v in ([7, -2, 5], [10, 9, 100])]
    splits = vaezoo.load_data(generator.normal(size=(30, 3)), factors=np.stack(columns, 1))
    assert splits.factor_names == ("factor 0", "factor 1")
    index = splits.test.index  # type: ignore[attr-defined]
    found = splits.test.factors(torch.arange(len(splits.test)))
    assert found is not None
    ranks = [{v: i for i, v in enumerate(sorted(set(column.tolist())))} for column in columns]
    pairs = zip(ranks, columns, strict=True)
    expected = [[rank[v] for v in column[index].tolist()] for rank, column in pairs]
    assert found.T.tolist() == expected


def test_factors_of_an_array_have_scores(tmp_path: Path) -> None:
    """Factors that are the data itself are found by linear latents."""
    generator = np.random.default_rng(0)
    factors = generator.integers(0, 4, (4400, 2))
    x = np.eye(2, 6)[0] * factors[:, :1] + np.eye(2, 6)[1] * factors[:, 1:] + 2.5
    options = {**TINY, "steps": 300, "lr": 0.01, "hidden": (16,), "batch_size": 64}
    names = ["width", "height"]
    run = vaezoo.train(
        "vanilla", data=x, factors=factors, factor_names=names, out=tmp_path / "run", **options
    )
    scores = run.evaluate(metrics=["mig", "factor_vae_score"], repeats=2).metrics
    assert scores["factor_vae_score"].value is not None
    assert scores["factor_vae_score"].value > 0.6
    assert run.metadata["data"]["factor_names"] == names


def test_the_nearest_class_decides_which_data_set_reads_an_object(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Own(np.ndarray):
        pass

    known = registry()
    arrays = known.reader_of(np.zeros(3))
    assert known.reader_of(np.zeros(3).view(Own)) == arrays
    name = f"{Own.__module__}.{Own.__qualname__}"
    other = replace(arrays, name="own", accepts=(name,))
    monkeypatch.setitem(known._specs, ("dataset", "own"), other)
    assert known.reader_of(np.zeros(3).view(Own)) == other
    assert known.reader_of(np.zeros(3)) == arrays
    both = replace(arrays, name="both", accepts=(name,))
    monkeypatch.setitem(known._specs, ("dataset", "both"), both)
    said = refused(lambda: known.reader_of(np.zeros(3).view(Own)))
    assert "is accepted by the data sets both and own" in said


def test_the_command_line_says_that_arrays_come_from_python(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from vaezoo.cli.main import main

    run = vaezoo.train("vanilla", data=X, out=tmp_path / "run", **{**TINY, "batch_size": 2})
    for line, said in (
        (["train", "vanilla", "--data", "arrays"], "give --data npz --root FILE"),
        (["evaluate", str(run.path)], "vaezoo.load_run("),
        (["train", "--resume", str(run.path), "--steps", "9"], "auto_resume=True) to go on"),
    ):
        assert main(line) == 2
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1


def test_a_single_array_in_a_file(tmp_path: Path) -> None:
    x = levels(9, 5, 5)
    np.save(tmp_path / "x.npy", x)
    found = vaezoo.load_data("npz", root=tmp_path / "x.npy")
    assert found.fingerprint == vaezoo.load_data(x).fingerprint
    assert "the array 9×5×5, taken for 9 grey images" in found.description
    np.save(tmp_path / "o.npy", np.array([{}]))
    said = refused(lambda: vaezoo.load_data("npz", root=tmp_path / "o.npy"))
    assert "Python objects, which are never loaded" in said
