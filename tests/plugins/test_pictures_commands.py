"""`vaezoo sample`, `reconstruct`, `traverse`, `interpolate` and `embed`, as a user types them."""

from __future__ import annotations

import io
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import vaezoo
from commands import refused
from vaezoo.checkpoint.format import load_weights, save_weights
from vaezoo.cli.main import main
from vaezoo_report.summary import read_runs

SMALL = {"data": "sprites", "examples": 120, "test": 40, "image_size": 16, "hidden": (8, 8)}


def train(out: Path, model: str, **options: Any) -> Path:
    vaezoo.train(model, out=out, epochs=1, batch_size=16, device="cpu", **{**SMALL, **options})
    return out


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("runs") / "run", "vanilla", latent_dim=4)


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(tmp_path_factory.mktemp("runs") / "run", "cvae", latent_dim=4)


@pytest.fixture(scope="module")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vectors")
    np.savez(folder / "table.npz", x=np.random.default_rng(0).normal(10, 1, (60, 5)))
    return train_on(folder, "table.npz")


@pytest.fixture(scope="module")
def real_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images whose values go from 5,000 to 6,000."""
    folder = tmp_path_factory.mktemp("images")
    x = np.random.default_rng(0).random((60, 8, 8), dtype=np.float32)
    x[:, 0, 0], x[:, 7, 7] = 0, 1
    np.savez(folder / "images.npz", x=5000 + 1000 * x)
    return train_on(folder, "images.npz")


def train_on(folder: Path, name: str) -> Path:
    """Train on an .npz file, as a user types it."""
    line = f"train vanilla --data npz --root {folder / name} --network mlp --hidden 8"
    options = f"--latent-dim 2 --epochs 1 --batch-size 16 --device cpu --out {folder / 'run'}"
    assert main([*line.split(), *options.split()]) == 0
    return folder / "run"


def printed(capsys: pytest.CaptureFixture[str], *args: str) -> dict[str, Any]:
    capsys.readouterr()
    assert main(list(args)) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_a_file_is_read_as_its_data_is(run: Path, tmp_path: Path) -> None:
    """Sprites are black and white: their models never saw a grey."""
    for level, value in ((127, 0.0), (128, 1.0)):
        Image.new("L", (16, 16), level).save(tmp_path / "grey.png")
        assert (vaezoo.load_run(run, "cpu").read_images([tmp_path / "grey.png"]) == value).all()


def test_sample_and_reconstruct_as_json(
    run: Path,
    in_tmp: Path,
    capsys: pytest.CaptureFixture[str],
    documented: Callable[[str], list[str]],
) -> None:
    found = printed(capsys, "sample", str(run), "-n", "3", "-o", "s.png", "--json")
    assert {*found} == {*documented("`vaezoo sample RUN --json`")}
    assert found["samples"] == 3
    Image.new("L", (16, 16), 255).save("white.png")
    found = printed(capsys, "reconstruct", str(run), "white.png", "white.png", "--json")
    assert {*found} == {*documented("`vaezoo reconstruct RUN IMAGES... --json`")}
    assert found["images"] == ["white.png", "white.png"]
    opened = vaezoo.load_run(run, "cpu")
    x = opened.read_images([Path("white.png")])
    error = float((x - opened.reconstruct(x)).square().mean())
    assert found["mse"] == pytest.approx([error, error])


def test_a_run_that_has_not_ended(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(run, tmp_path / "half")
    for name in ("model.safetensors", "summary.json"):
        (tmp_path / "half" / name).unlink()
    error = refused(capsys, "traverse", str(tmp_path / "half"), "-o", str(tmp_path / "t.png"))
    assert "has not ended; to go on: vaezoo train --resume" in error


def test_reconstruct_takes_a_class_or_test_examples_which_have_one(
    labelled: Path, run: Path, in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("L", (16, 16), 255).save("white.png")
    line = ["reconstruct", str(labelled), "white.png"]
    assert "give --class" in refused(capsys, *line)
    opened = vaezoo.load_run(labelled, "cpu")
    x = opened.read_images([Path("white.png")])
    for number, name in enumerate(("square", "ellipse", "heart")):
        found = printed(capsys, *line, "--class", name, "-o", f"{name}.png", "--json")
        error = (x - opened.reconstruct(x, torch.tensor([number]))).square().mean()
        assert found["mse"] == pytest.approx([float(error)])
    found = printed(capsys, "reconstruct", str(labelled), "3", "5", "--json")
    x, y = opened.splits.test.get_batch(torch.tensor([3, 5]))
    expected = (x / 255 - opened.reconstruct(x / 255, y)).square().flatten(1).mean(1)
    assert found["mse"] == pytest.approx(expected.tolist())
    assert "not conditional" in refused(
        capsys, "reconstruct", str(run), "3", "--class", "0", "-o", "b.png"
    )
    assert "40, counted from 0" in refused(capsys, "reconstruct", str(run), "40", "-o", "b.png")


def test_values_of_vectors(vectors: Path, in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sample", str(vectors), "-n", "3"]) == 0
    assert capsys.readouterr().out == "samples.npz: 3 samples; arrays x [3, 5]\n"
    opened = vaezoo.load_run(vectors, "cpu")
    assert torch.equal(torch.tensor(np.load("samples.npz")["x"]), opened.sample(3))
    found = printed(capsys, "sample", str(vectors), "-n", "2", "-o", "s.csv", "--json")
    assert (found["picture"], found["values"]) == (None, "s.csv")
    lines = Path("s.csv").read_text().splitlines()
    assert lines[0] == "x_0,x_1,x_2,x_3,x_4"
    assert torch.equal(
        torch.tensor(np.loadtxt(lines[1:], np.float32, delimiter=",")), opened.sample(2)
    )
    assert main(["reconstruct", str(vectors), "0", "4"]) == 0
    originals = opened.splits.test.get_batch(torch.tensor([0, 4]))[0]
    with np.load("reconstructed.npz") as values:
        assert torch.equal(torch.tensor(values["originals"]), originals)
        torch.testing.assert_close(torch.tensor(values["x"]), opened.reconstruct(originals))


def test_what_cannot_be_written_is_refused_in_one_line(
    vectors: Path, run: Path, in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in (["sample", str(vectors)], ["reconstruct", str(vectors), "0"]):
        assert "ends in .npz or .npy or .csv" in refused(capsys, *command, "-o", "s.png")
        assert main([*command]) == 0
        assert "exists already" in refused(capsys, *command)
    assert "number of a test example" in refused(
        capsys, "reconstruct", str(vectors), "a.png", "-o", "b.npz"
    )
    assert "ends in .png or .npz" in refused(capsys, "sample", str(run), "-o", "s.txt")
    assert "no pictures of vectors" in refused(capsys, "sample", str(vectors), "-o", "folder")
    assert {path.name for path in in_tmp.iterdir()} == {"samples.npz", "reconstructed.npz"}


def test_a_command_names_only_files_that_it_wrote(
    vectors: Path, run: Path, in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In its text and in its JSON."""
    commands = [
        *(("sample", str(path), *rest) for path in (vectors, run) for rest in ((), ("-n", "1"))),
        *(("reconstruct", str(path), "0") for path in (vectors, run)),
        *(("embed", str(path)) for path in (vectors, run)),
        ("traverse", str(run)),
        ("interpolate", str(run), "0", "1"),
        *(("report", str(path)) for path in (vectors, run)),
        *(
            ("export", str(p), "--format", "safetensors", "-o", "w.safetensors")
            for p in (vectors, run)
        ),
    ]
    for command in commands:
        for as_json in ([], ["--json"]):
            before = {path: path.stat().st_mtime_ns for path in in_tmp.iterdir()}
            capsys.readouterr()
            assert main([*command, "--overwrite", *as_json]) == 0
            words = re.findall(
                r"[\w./-]+\.(?:png|npz|csv|html|safetensors)", capsys.readouterr().out
            )
            written = [Path(word) for word in words if not word.startswith(str(vectors.parent))]
            assert written, command
            for path in written:
                assert path.stat().st_mtime_ns != before.get(path.absolute()), command


def test_pictures_of_real_values_have_their_range(
    real_images: Path, in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = printed(capsys, "sample", str(real_images), "--json")
    assert found["value_range"] == [5000, 6000]
    with Image.open(real_images / "reconstructions.png") as picture:
        levels = picture.convert("L").crop((0, 0, 80, 80)).getextrema()
    assert levels == (0, 255)  # the first original has the smallest and the largest value
    for line in (
        ["sample", str(real_images), "--overwrite"],
        ["reconstruct", str(real_images), "0"],
        ["traverse", str(real_images)],
        ["interpolate", str(real_images), "0", "1", "-o", "i.gif"],
    ):
        capsys.readouterr()
        assert main(line) == 0
        assert "black is 5000, white is 6000" in capsys.readouterr().out
    assert main(["report", str(real_images)]) == 0
    assert "In these pictures, black is 5000, white is 6000." in Path("report.html").read_text()
    (summary,) = read_runs([real_images], "cpu")
    for row in summary.traversal:
        darkest, lightest = Image.open(io.BytesIO(row.png)).convert("L").getextrema()
        assert 0 < darkest <= lightest < 255  # hardly trained: it decodes to the mean, a grey


def test_training_says_the_range_of_its_pictures(
    real_images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez(tmp_path / "levels.npz", x=np.linspace(0, 255, 60 * 64).reshape(60, 8, 8))
    capsys.readouterr()
    train_on(tmp_path, "levels.npz")
    out = capsys.readouterr().out
    assert "in pictures, black is 0, white is 255 (if these are 8-bit levels" in out


def test_traverse(
    run: Path,
    in_tmp: Path,
    capsys: pytest.CaptureFixture[str],
    documented: Callable[[str], list[str]],
) -> None:
    found = printed(capsys, "traverse", str(run), "-n", "3", "--steps", "5", "--json")
    assert {*found} == {*documented("`vaezoo traverse RUN --json`")}
    assert {*found["rows"][0]} == {*documented("A row of a traversal")}
    kls = [row["kl"] for row in found["rows"]]
    assert kls == sorted(kls, reverse=True)
    assert all(len(row["values"]) == 5 for row in found["rows"])
    Image.open("traversal.png").verify()
    assert "exists already" in refused(capsys, "traverse", str(run))
    assert (
        main(["traverse", str(run), "--from", "3", "-n", "2", "--steps", "3", "-o", "t.gif"]) == 0
    )
    assert Image.open("t.gif").n_frames == 4  # type: ignore[attr-defined]


def test_interpolate(
    run: Path,
    in_tmp: Path,
    capsys: pytest.CaptureFixture[str],
    documented: Callable[[str], list[str]],
) -> None:
    Image.new("L", (30, 30), 255).save("white.png")
    line = ["interpolate", str(run), "5", "white.png"]
    found = printed(capsys, *line, "--steps", "4", "--json")
    assert {*found} == {*documented("`vaezoo interpolate RUN A B --json`")}
    assert len(found["latents"]) == 4
    assert "40" in refused(capsys, "interpolate", str(run), "5", "40", "-o", "b.png")
    middles = {}
    for method in ("linear", "slerp"):
        more = ["--steps", "3", "--method", method, "--json", "--overwrite"]
        ends_and_middle = printed(capsys, "interpolate", str(run), "5", "6", *more)["latents"]
        a, middle, b = map(torch.tensor, ends_and_middle)
        angle = torch.arccos(torch.dot(a, b) / (a.norm() * b.norm()))
        # sin(angle / 2) / sin(angle), the weight of both ends in the middle of an arc.
        weight = 0.5 if method == "linear" else 0.5 / torch.cos(angle / 2)
        torch.testing.assert_close(middle, weight * (a + b))
        middles[method] = middle
    assert not torch.allclose(middles["linear"], middles["slerp"], rtol=1e-3)
    assert "nofile.png" in refused(
        capsys, "interpolate", str(run), "5", "nofile.png", "-o", "b.png"
    )
    assert ".webp" in refused(capsys, "interpolate", str(run), "5", "6", "-o", "b.jpeg")


@pytest.fixture
def diverged(run: Path, tmp_path: Path) -> Path:
    """Finite weights, so large that no output is."""
    return with_weights(run, tmp_path / "diverged", lambda w: 1e30 * torch.randn(w.shape))


def with_weights(run: Path, out: Path, change: Callable[[Tensor], Tensor]) -> Path:
    shutil.copytree(run, out)
    weights = load_weights(out / "model.safetensors")
    save_weights(
        out / "model.safetensors",
        {name: change(w) if w.is_floating_point() else w for name, w in weights.items()},
    )
    return out


def test_values_that_are_not_finite_are_said_and_are_null_in_json(
    diverged: Path, in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, command in enumerate(
        (
            ["sample", str(diverged), "-n", "3"],
            ["reconstruct", str(diverged), "0", "1"],
            ["traverse", str(diverged)],
            ["interpolate", str(diverged), "0", "1"],
        )
    ):
        assert main([*command, "-o", f"{number}.png"]) == 0
        assert "with values that are not finite" in capsys.readouterr().out
        found = printed(capsys, *command, "-o", f"{number}.png", "--overwrite", "--json")
        if command[0] == "reconstruct":
            assert found["mse"] == [None, None]
    assert "has diverged" in refused(capsys, "embed", str(diverged))
    weights = ["--format", "safetensors", "-o", "w.safetensors"]
    assert "not finite: nothing was written" in refused(capsys, "export", str(diverged), *weights)
    assert not Path("w.safetensors").exists()


def test_a_decoder_that_ignores_all_latents_has_no_traversal(
    run: Path, tmp_path: Path, in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    deaf = with_weights(run, tmp_path / "deaf", torch.zeros_like)
    assert "no latent dimension changes" in refused(capsys, "traverse", str(deaf))


def test_embed(
    run: Path,
    in_tmp: Path,
    capsys: pytest.CaptureFixture[str],
    documented: Callable[[str], list[str]],
) -> None:
    found = printed(capsys, "embed", str(run), "-n", "30", "--by", "orientation", "--json")
    assert {*found} == {*documented("`vaezoo embed RUN --json`")}
    assert len(found["points"]) == len(found["values"]) == len(found["examples"]) == 30
    Image.open("map.png").verify()
    assert "did you mean" in refused(capsys, "embed", str(run), "--by", "orient", "-o", "b.png")


def test_a_class_by_number_or_name(
    labelled: Path, run: Path, in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for out, name in (("a.png", "2"), ("b.png", "heart"), ("c.png", "square")):
        line = ["sample", str(labelled), "-n", "4", "--class", name, "-o", out]
        assert main([*line, "--temperature", "0.5"]) == 0
    assert main(["sample", str(labelled), "-n", "5", "-o", "all.npz"]) == 0
    assert main(["sample", str(labelled), "-n", "2", "-o", "h.npz", "--class", "heart"]) == 0
    with np.load("all.npz") as every, np.load("h.npz") as heart:
        assert every["y"].tolist() == [0, 1, 2, 0, 1]
        assert heart["y"].tolist() == [2, 2]
        assert heart["x"].shape == (2, 1, 16, 16)
    a, b, c = (Path(name).read_bytes() for name in ("a.png", "b.png", "c.png"))
    assert a == b != c
    line = ["sample", str(labelled), "-o", "d.png", "--class"]
    assert "did you mean 'heart'" in refused(capsys, *line, "hart")
    assert "from 0 to 2" in refused(capsys, *line, "3")
    assert "not conditional" in refused(capsys, "sample", str(run), "-o", "d.png", "--class", "1")


def test_conditional_models_say_what_they_need(
    labelled: Path, in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "give --class" in refused(capsys, "traverse", str(labelled))
    assert main(["traverse", str(labelled), "--class", "heart", "-n", "2"]) == 0
    assert main(["traverse", str(labelled), "--from", "1", "-n", "2", "-o", "b.png"]) == 0
    assert main(["interpolate", str(labelled), "0", "1", "--class", "0"]) == 0
    assert main(["embed", str(labelled)]) == 0


def test_codes_are_refused_in_one_line(
    tmp_path: Path, in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train(tmp_path / "codes", "vq_vae", prior_steps=0)
    assert "codes" in refused(capsys, "traverse", str(run))
    assert "codes" in refused(capsys, "interpolate", str(run), "1", "2")
    assert main(["embed", str(run)]) == 0


class TestOutputs:
    """The same examples, whatever the ending."""

    def test_sample(self, labelled: Path, in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
        for out in ("s.npz", "s.npy", "s.csv", "s"):
            found = printed(capsys, "sample", str(labelled), "-n", "4", "-o", out, "--json")
            assert out in (found["values"], found["folder"])
            assert found["picture"] is None
        with np.load("s.npz") as arrays:
            x, y = arrays["x"], arrays["y"]
        assert np.load("s.npy").tobytes() == x.tobytes()
        header, *rows = Path("s.csv").read_text().splitlines()
        assert header.split(",")[:2] == ["y", "x_0"]
        table = np.loadtxt(rows, np.float32, delimiter=",")
        assert (table[:, 0] == y).all()
        assert (table[:, 1:] == x.reshape(4, -1)).all()
        assert sorted(path.name for path in Path("s").iterdir()) == [
            f"{n:04}.png" for n in range(4)
        ]
        for number in range(4):
            with Image.open(f"s/{number:04}.png") as image:
                assert (image.mode, image.size) == ("L", (16, 16))
                assert (np.asarray(image) == (x[number, 0] * 255).round()).all()

    def test_colours(self, in_tmp: Path) -> None:
        np.savez("c.npz", x=np.random.default_rng(0).random((60, 3, 8, 8)).astype(np.float32))
        run = train_on(in_tmp, "c.npz")
        assert main(["sample", str(run), "-n", "2", "-o", "s"]) == 0
        assert main(["sample", str(run), "-n", "2", "-o", "s.npy"]) == 0
        with Image.open("s/0001.png") as image:
            assert image.mode == "RGB"

    def test_reconstruct(self, run: Path, in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
        line = ["reconstruct", str(run), "0", "3"]
        mse = printed(capsys, *line, "--json")["mse"]
        for out in ("r.csv", "r.npy", "r"):
            assert main([*line, "-o", out]) == 0
        opened = vaezoo.load_run(run, "cpu")
        x = opened.splits.test.get_batch(torch.tensor([0, 3]))[0] / 255
        assert (np.load("r.npy") == opened.reconstruct(x).numpy()).all()
        header, *rows = Path("r.csv").read_text().splitlines()
        assert header.split(",")[:3] == ["image", "mse", "x_0"]
        assert [float(row.split(",")[1]) for row in rows] == pytest.approx(mse)
        assert len([*Path("r").iterdir()]) == 2

    def test_traverse_and_interpolate(
        self, run: Path, in_tmp: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        line = ["traverse", str(run), "-n", "2", "--steps", "3", "-o"]
        for out in ("t.npz", "t.csv", "t"):
            rows = printed(capsys, *line, out, "--json")["rows"]
        with np.load("t.npz") as arrays:
            assert arrays["x"].shape == (2, 3, 1, 16, 16)
            assert arrays["latents"].tolist() == [row["number"] for row in rows]
            np.testing.assert_allclose(arrays["values"], [row["values"] for row in rows], rtol=1e-6)
            flat = arrays["x"].reshape(6, -1)
        table = np.loadtxt("t.csv", np.float32, delimiter=",", skiprows=1)
        assert (table[:, 2:] == flat).all()
        assert table[:, 0].tolist() == [row["number"] for row in rows for _ in range(3)]
        assert len([*Path("t").iterdir()]) == 6
        line = ["interpolate", str(run), "0", "1", "--steps", "4", "-o"]
        for out in ("i.npz", "i.csv", "i"):
            latents = printed(capsys, *line, out, "--json")["latents"]
        with np.load("i.npz") as arrays:
            np.testing.assert_allclose(arrays["latents"], latents, rtol=1e-6)
            assert arrays["x"].shape == (4, 1, 16, 16)
        assert len([*Path("i").iterdir()]) == 4

    def test_a_folder_keeps_what_is_not_ours(
        self, run: Path, in_tmp: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        line = ["sample", str(run), "-o", "s", "-n"]
        assert main([*line, "3"]) == 0
        assert "has files already" in refused(capsys, *line, "2")
        assert main([*line, "2", "--overwrite"]) == 0
        assert len([*Path("s").iterdir()]) == 2
        Path("s/notes.txt").write_text("mine")
        assert "other files, such as notes.txt" in refused(capsys, *line, "1", "--overwrite")
        assert len([*Path("s").iterdir()]) == 3
        Path("f").write_text("a file")
        assert "exists already" in refused(capsys, "sample", str(run), "-o", "f")
        assert Path("f").read_text() == "a file"
