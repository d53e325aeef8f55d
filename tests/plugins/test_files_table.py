"""Tables: the same data from .csv, .parquet and DataFrames; missing and odd values are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.torch import load_file

import vaezoo
from vaezoo import Splits, VaezooError
from vaezoo_files.table_files import MISSING, CsvTable

Array = NDArray[Any]

TINY: dict[str, Any] = {
    **{"network": "mlp", "hidden": (8,), "latent_dim": 2},
    **{"batch_size": 8, "steps": 3, "device": "cpu"},
}

TEXT = """age,height,smoker,city,grade,species
31,1.75,True,Rome,2,ant
28,1.62,False,Paris,1,bee
45,1.80,True,Rome,3,ant
39,1.71,False,Ulm,2,bee
52,1.68,False,Paris,1,ant
19,1.90,True,Rome,3,ant
"""


def write(folder: Path, text: str = TEXT, name: str = "some.csv", encoding: str = "utf-8") -> Path:
    (folder / name).write_bytes(text.encode(encoding))
    return folder / name


def read(path: Path, **options: Any) -> Splits:
    return vaezoo.load_data("table", root=path, **options)


def rows(splits: Splits) -> Array:
    """All examples in the order of the table."""
    parts: list[Any] = [splits.train, splits.test]
    found = np.concatenate([split.images[split.index].numpy() for split in parts])
    return found[np.concatenate([split.index.numpy() for split in parts]).argsort()]


def refused(work: Callable[[], object]) -> str:
    with pytest.raises(VaezooError) as caught:
        work()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_columns_are_numbers_bools_and_categories(tmp_path: Path) -> None:
    splits = read(write(tmp_path))
    cities = ("city=Paris", "city=Rome", "city=Ulm")
    species = ("species=ant", "species=bee")
    assert splits.column_names == ("age", "height", "smoker", *cities, "grade", *species)
    assert splits.spec.domain == "real"
    assert rows(splits)[3] == pytest.approx([39, 1.71, 0, 0, 0, 1, 2, 0, 1])
    assert splits.notes[0] == (
        "columns taken for numbers: age, height, grade; true or false: smoker; "
        "one-hot: city (3), species (2)"
    )
    assert splits.record()["column_names"] == list(splits.column_names)


def test_labels_factors_and_categorical_numbers(tmp_path: Path) -> None:
    options = {"label_column": "species", "factor_columns": ("grade", "city")}
    splits = read(write(tmp_path), **options)
    assert splits.column_names == ("age", "height", "smoker")
    assert splits.spec.class_names == ("ant", "bee")
    assert splits.factor_names == ("grade", "city")
    order = splits.train.index  # type: ignore[attr-defined]
    everything = torch.arange(len(order))
    _, y = splits.train.get_batch(everything)
    factors = splits.train.factors(everything)
    assert y is not None
    assert factors is not None
    assert y.tolist() == [[0, 1, 0, 1, 0, 0][i] for i in order]
    expected = [[1, 1], [0, 0], [2, 1], [1, 2], [0, 0], [2, 1]]
    assert factors.tolist() == [expected[i] for i in order]
    grades = read(write(tmp_path), columns="age,grade", categorical="grade")
    assert grades.column_names == ("age", "grade=1", "grade=2", "grade=3")
    chosen = read(write(tmp_path), columns=("height", "age"), label_column="grade")
    assert chosen.column_names == ("height", "age")
    assert chosen.spec.class_names == ("1", "2", "3")
    assert read(write(tmp_path), label_column="smoker").spec.class_names == ("False", "True")


NAMES = st.text("abcdefgh", min_size=1, max_size=4)
COLUMN = st.sampled_from(["float", "int", "bool", "text"])


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    columns=st.dictionaries(NAMES, COLUMN, min_size=1, max_size=5),
    count=st.integers(4, 30),
    delimiter=st.sampled_from(",;\t|"),
    seed=st.integers(0, 99),
)
def test_a_file_is_the_same_data_as_its_data_frame(
    tmp_path: Path, columns: dict[str, str], count: int, delimiter: str, seed: int
) -> None:
    pandas = pytest.importorskip("pandas")
    polars = pytest.importorskip("polars")
    generator = np.random.default_rng(seed)
    texts = np.array(["x y", 'say "a,b;c|d"', "ü"])
    make = {
        "float": lambda: generator.normal(size=count) * 100,
        "int": lambda: generator.integers(-50, 50, count),
        "bool": lambda: generator.random(count) > 0.5,
        "text": lambda: texts[generator.integers(0, 3, count)],
    }
    frame = pandas.DataFrame({name: make[kind]() for name, kind in columns.items()})
    frame.to_csv(tmp_path / "x.csv", index=False, sep=delimiter)
    # With one column nothing shows what the delimiter is.
    found = [read(tmp_path / "x.csv", **({"delimiter": delimiter} if len(columns) == 1 else {}))]
    frame.to_parquet(tmp_path / "x.parquet")
    found += [read(tmp_path / "x.parquet")]
    frames = [frame, frame.convert_dtypes(), polars.from_pandas(frame)]
    found += [vaezoo.load_data(data) for data in frames]
    assert len({splits.fingerprint for splits in found}) == 1
    assert len({splits.column_names for splits in found}) == 1
    assert all(splits.spec == found[0].spec for splits in found)


def test_one_hot_columns_and_statistics_are_those_of_pandas_and_sklearn() -> None:
    pandas = pytest.importorskip("pandas")
    compose = pytest.importorskip("sklearn.compose")
    preprocessing = pytest.importorskip("sklearn.preprocessing")
    generator = np.random.default_rng(0)
    frame = pandas.DataFrame(
        {
            "size": generator.normal(3, 20, 80),
            "color": generator.choice(["red", "blue", "Green"], 80),
            "flag": generator.random(80) > 0.8,
            "same": 7.0,
        }
    )
    splits = vaezoo.load_data(frame)
    dummies = pandas.get_dummies(frame, columns=["color"], prefix_sep="=")
    assert {*splits.column_names} == {*dummies.columns}
    assert np.array_equal(rows(splits), dummies[[*splits.column_names]].to_numpy(np.float32))

    transform = compose.ColumnTransformer(
        [
            ("size", preprocessing.StandardScaler(), ["size"]),
            ("color", preprocessing.OneHotEncoder(sparse_output=False), ["color"]),
            ("flag", "passthrough", ["flag"]),
            ("same", preprocessing.StandardScaler(), ["same"]),
        ]
    )
    train = splits.train.index.numpy()  # type: ignore[attr-defined]
    scaled = transform.fit(frame.iloc[train]).transform(frame)
    statistics = splits.spec.statistics
    assert statistics is not None
    ours = (rows(splits) - statistics.mean) / statistics.std
    assert ours == pytest.approx(scaled.astype(float), abs=1e-5)
    off = vaezoo.load_data(frame, standardize="off").spec.statistics
    assert off is not None
    assert ({*off.mean}, {*off.std}) == ({0.0}, {1.0})
    assert any("column same has the same value in every row" in note for note in splits.notes)


def test_missing_cells_are_those_of_pandas(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    parsers = pytest.importorskip("pandas._libs.parsers")
    assert MISSING == parsers.STR_NA_VALUES
    for cell in ("", "NA", "null"):
        path = write(tmp_path, TEXT.replace("1.80", cell))
        said = refused(lambda path=path: read(path))
        shown = f" ({cell!r})" if cell else ""
        assert f"some.csv: column height has no value in line 4{shown}: fill it in" in said
        assert read(path, columns="age").column_names == ("age",)
        frame = pandas.read_csv(path)
        said = refused(lambda frame=frame: vaezoo.load_data(frame))
        assert "column height has no value in row 2 (counted from 0)" in said
        frame.to_parquet(tmp_path / "m.parquet")
        said = refused(lambda: read(tmp_path / "m.parquet"))
        assert "m.parquet: column height has no value in row 2" in said


@pytest.mark.parametrize(
    ("text", "options", "said"),
    [
        (TEXT.replace("1.80", "1,80"), {}, "line 4 has 7 cells, and the first line names 6 colu"),
        (TEXT.replace("1.80", "tall"), {}, "column height holds numbers, but 'tall' in line 4"),
        (TEXT.replace("1.80", "1_80"), {}, "column height holds numbers, but '1_80' in line 4"),
        (TEXT.replace("1.80", "inf"), {}, "column height holds infinity"),
        (TEXT.replace("1.80", "1e300"), {}, "column height is too large for 32-bit floats"),
        (TEXT.replace("age,height", "age,age"), {}, "two columns have the name 'age'"),
        (TEXT, {"columns": "agee"}, "there is no column 'agee'; did you mean 'age'?"),
        (TEXT, {"label_column": "zzz"}, "label_column: there is no column 'zzz' (it has age, hei"),
        (TEXT, {"categorical": "zzz"}, "categorical: there is no column 'zzz'"),
        (TEXT, {"label_column": "height"}, "column height holds numbers that are not whole"),
        (TEXT, {"factor_columns": "height"}, "column height holds numbers that are not whole"),
        (TEXT, {"columns": "age,grade", "label_column": "grade"}, "grade is the label: leave it"),
        (TEXT, {"columns": "age,grade", "factor_columns": "grade"}, "grade is a factor: leave it"),
        (TEXT, {"values": "counts", "columns": "height"}, "counts takes whole numbers from 0"),
        (TEXT, {"encoding": "klingon"}, "encoding klingon: there is no such encoding"),
        (TEXT, {"delimiter": ";;"}, "delimiter: string should have at most 1 character"),
        ("1,2\n3,4\n", {}, "its first line holds numbers, not the names of the columns"),
        ("a,b\n", {}, "it has no rows below the names"),
        ("", {}, "the table has no columns with a name"),
        ("a\n1.5\n", {}, "holds one example: two are needed"),
        ("a\n" + "\n".join(f"x{n}" for n in range(101)), {}, "column a has 101 different texts, s"),
        ('a,b\n1,"2\n', {}, "cannot read"),
        ("a,b\n1," + "2" * 140_000, {}, "cannot read"),
    ],
)
def test_what_is_refused(tmp_path: Path, text: str, options: dict[str, Any], said: str) -> None:
    found = refused(lambda: read(write(tmp_path, text), **options))
    assert said in found
    assert "--" not in found


def test_frames_that_are_refused(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"a": [1.5, 2.5, 3.5], "b": list("xyx")})
    for data, options, said in (
        (frame.assign(t=pandas.Timestamp("2020")), {}, "column t is of datetime64"),
        (frame.assign(o=[1, "a", 2]), {}, "column o holds int and str, first in row 1"),
        (frame.assign(o=[{}] * 3), {}, "column o holds objects of type dict"),
        (frame.rename(columns={"b": "a"}), {}, "two columns have the name 'a'"),
        (frame[:0], {}, "the table has no rows"),
        (frame, {"labels": [0, 1]}, "3 examples have 2 labels"),
        (frame, {"labels": [0, 1, 0], "label_column": "b"}, "labels and label_column are given"),
        (frame, {"root": tmp_path}, "root is given, and a DataFrame"),
    ):
        assert said in refused(lambda d=data, o=options: vaezoo.load_data(d, **o))


def test_files_that_are_no_tables(tmp_path: Path) -> None:
    for name, said in (
        ("a.xlsx", "ends in .csv, .tsv, .txt or .parquet"),
        ("nowhere.csv", "is not a file"),
    ):
        assert said in refused(lambda name=name: read(tmp_path / name))
    assert "table needs root FILE" in refused(lambda: vaezoo.load_data("table"))


def test_a_file_that_is_no_parquet(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    path = write(tmp_path, "PAR1", "a.parquet")
    assert "a.parquet as parquet" in refused(lambda: read(path))


def test_encodings_and_line_ends(tmp_path: Path) -> None:
    text = TEXT.replace("Ulm", "Köln")
    expected = read(write(tmp_path, text)).fingerprint
    for encoding in ("utf-8-sig", "utf-16", "latin-1"):
        path = write(tmp_path, text, encoding=encoding)
        options = {} if encoding == "utf-8-sig" else {"encoding": encoding}
        assert read(path, **options).fingerprint == expected
    assert "give encoding, as latin-1" in refused(lambda: read(path))
    assert read(write(tmp_path, text.replace("\n", "\r\n"))).fingerprint == expected
    assert read(write(tmp_path, text.replace(",", "\t"), "some.tsv")).fingerprint == expected
    assert read(write(tmp_path, text.replace(",", " , ") + "\n\n")).fingerprint == expected


def test_row_numbers_of_pandas_are_left_out_and_said(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.read_csv(write(tmp_path))
    frame.to_csv(tmp_path / "numbered.csv")
    splits = read(tmp_path / "numbered.csv")
    assert splits.fingerprint == vaezoo.load_data(frame).fingerprint
    assert "left out a column without a name" in splits.notes[1]


def test_many_lines_are_parsed_in_parts(tmp_path: Path) -> None:
    """A column may become text after many numbers, and texts of all parts have one order."""
    count = 20_000
    lines = [f"{number},{'yzx'[number * 3 // count]},{number % 7}" for number in range(count)]
    path = write(tmp_path, "\n".join(["n,t,k", *lines]))
    table = CsvTable(path, "", "utf-8").read(["n", "t", "k"], ())
    assert table["n"].values.tolist() == [*range(count)]
    texts = table["t"]
    assert texts.categories is not None
    assert texts.categories.tolist() == ["x", "y", "z"]
    assert texts.categories[texts.values].tolist() == ["yzx"[n * 3 // count] for n in range(count)]
    late = write(tmp_path, "\n".join(["n,t,k", *lines, "1,x,?"]))
    assert f"column k holds numbers, but '?' in line {count + 2}" in refused(lambda: read(late))
    mixed = CsvTable(late, "", "utf-8").read(["k"], ["k"])["k"]
    assert mixed.categories is not None
    assert mixed.categories.tolist() == ["0", "1", "2", "3", "4", "5", "6", "?"]


def test_a_table_of_bits_is_binary_and_one_of_counts_has_counts(tmp_path: Path) -> None:
    bits = read(write(tmp_path, "a,b,c\ntrue,x,0\nfalse,y,1\ntrue,x,1\n"))
    assert bits.spec.domain == "binary"
    assert bits.spec.statistics is None
    assert rows(bits).tolist() == [[255, 255, 0, 0], [0, 0, 255, 255], [255, 255, 0, 255]]
    counts = read(write(tmp_path, "a,b\n3,0\n0,900\n1,2\n"), values="counts")
    assert counts.spec.domain == "count"
    small = read(write(tmp_path, "a,b\n0.5,0.25\n0,0.75\n1,0\n"))
    assert small.spec.domain == "real"


def test_numbers_whose_digits_are_lost_are_pointed_out(tmp_path: Path) -> None:
    times = "\n".join(str(1_700_000_000 + 10 * n) for n in range(20))
    (_, note) = read(write(tmp_path, f"t\n{times}\n")).notes
    assert note == "column t: 32-bit floats keep few of its digits: subtract its mean"


def test_a_run_on_a_data_frame_is_the_run_on_its_file(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    path = write(tmp_path, TEXT + TEXT.partition("\n")[2] * 4)
    options = {**TINY, "label_column": "species", "factor_columns": ("city",)}
    frame = pandas.read_csv(path)
    runs = [
        vaezoo.train("vanilla", data="table", root=path, out=tmp_path / "a", **options),
        vaezoo.train("vanilla", data=frame, out=tmp_path / "b", **options),
    ]
    first, second = (load_file(run.folder.weights) for run in runs)
    assert all(first[name].equal(second[name]) for name in first)
    assert runs[0].metadata["data"]["column_names"] == [*runs[1].splits.column_names]
    assert "given from Python" in refused(lambda: vaezoo.load_run(tmp_path / "b").evaluate())
    again = vaezoo.load_run(tmp_path / "b", data=frame).evaluate().metrics
    assert again["elbo"].value == runs[0].evaluate().metrics["elbo"].value
