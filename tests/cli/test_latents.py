"""`vaezoo traverse`, `interpolate`, `embed`, and `sample` by class, as a user types them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import vaezoo
from vaezoo.cli.main import main

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


def refused(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    capsys.readouterr()
    assert main(list(args)) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


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
    assert "nofile.png" in refused(
        capsys, "interpolate", str(run), "5", "nofile.png", "-o", "b.png"
    )
    assert ".webp" in refused(capsys, "interpolate", str(run), "5", "6", "-o", "b.jpeg")


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
