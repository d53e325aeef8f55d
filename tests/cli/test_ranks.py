"""A run on data of each rank, through every command that reads a run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import vaezoo
from vaezoo.cli.main import main

SHAPES = {"vectors": (5,), "signals": (2, 21), "images": (12, 9, 8), "volumes": (1, 8, 9, 10)}
COUNT = 40


@pytest.fixture(scope="module", params=[*SHAPES])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    shape = SHAPES[request.param]
    generator = np.random.default_rng(0)
    values = generator.normal(size=(COUNT, *shape)).cumsum(-1)
    # Channels differ in their units; unit data has one range.
    x = 1 / (1 + np.exp(-values)) if request.param == "volumes" else values * 10 + 100
    np.savez(folder / "data.npz", x=x.astype(np.float32))
    network = "mlp" if len(shape) == 1 else "conv"
    line = ["train", "vanilla", "--data", "npz", "--root", folder / "data.npz", "--steps", 2]
    line += ["--layout", "channels_first", "--network", network, "--hidden", "8,8"]
    line += ["--latent-dim", 2, "--batch-size", 8, "--device", "cpu", "--out", folder / "run"]
    assert main([*map(str, line)]) == 0
    return folder / "run"


def shape_of(run: Path) -> tuple[int, ...]:
    return vaezoo.load_run(run).data_spec.shape


def said(capsys: pytest.CaptureFixture[str], *line: object) -> dict[str, Any]:
    capsys.readouterr()
    assert main([*map(str, line), "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_pictures_of_training(run: Path) -> None:
    drawn = len(shape_of(run)) > 1
    for name in ("samples.png", "reconstructions.png"):
        assert (run / name).exists() == drawn


@pytest.mark.parametrize("command", ["sample", "reconstruct"])
def test_values_and_a_picture(
    run: Path, command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shape = shape_of(run)
    which = ["-n", 3] if command == "sample" else [0, 1, 4]
    said(capsys, command, run, *which, "-o", tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz") as values:
        assert values["x"].shape == (3, *shape)
    line = [*map(str, (command, run, *which, "-o", tmp_path / "a.png"))]
    if len(shape) == 1:
        assert main(line) == 2
        error = capsys.readouterr().err
        assert "there are no pictures of vectors of 5 values: give a name that ends in" in error
        return
    assert main(line) == 0
    legend = capsys.readouterr().out
    assert ("channels 1, 2 and 3 of 12" in legend) == (len(shape) == 3)
    assert ("slices 1, 3, 4, 5, 7, 8 of 8" in legend) == (len(shape) == 4)
    with Image.open(tmp_path / "a.png") as picture:
        assert min(picture.size) > 8


@pytest.mark.parametrize("command", ["traverse", "interpolate"])
def test_latents(
    run: Path, command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = [command, run, *((0, 1) if command == "interpolate" else ("-n", 2)), "--steps", 3]
    if len(shape_of(run)) == 1:
        found = said(capsys, *line, "-o", tmp_path / "a.npz")
        assert found["values"] == str(tmp_path / "a.npz")
        with np.load(tmp_path / "a.npz") as values:
            assert values["x"].shape[-2:] == (3, 5)
        return
    said(capsys, *line, "-o", tmp_path / "a.png")
    animation = [*map(str, (*line, "-o", tmp_path / "a.gif"))]
    assert main(animation) == (2 if len(shape_of(run)) == 2 else 0)


def test_metrics_report_and_embedding(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = said(capsys, "evaluate", run, "--metric", "mse,ssim")
    assert found["mse"] > 0
    if len(shape_of(run)) != 3:
        assert "not images" in found["notes"]["ssim"]
    assert main(["report", str(run), "-o", str(tmp_path / "r.html")]) == 0
    page = (tmp_path / "r.html").read_text()
    assert ("no traversals" in page) == (len(shape_of(run)) == 1)
    assert main(["embed", str(run), "-n", "9", "-o", str(tmp_path / "map.png")]) == 0


def test_export(run: Path, tmp_path: Path) -> None:
    line = ["export", run, "--format", "torch-export", "-o", tmp_path / "model.pt2"]
    assert main([*map(str, line)]) == 0
    (decoder,) = tmp_path.glob("*decoder*")
    shape = shape_of(run)
    program = torch.export.load(decoder).module()
    z = torch.randn(3, 2)
    (x,) = program(z)
    opened = vaezoo.load_run(run, "cpu")
    with torch.no_grad():
        right = opened._standardizer.inverse(opened.model.decode(z).mean)
    assert x.shape == (3, *shape)
    assert torch.allclose(x, right, rtol=1e-4, atol=1e-3)


def test_the_run_is_complete_without_its_data(run: Path, tmp_path: Path) -> None:
    copied = tmp_path / "copied"
    shutil.copytree(run, copied)
    assert vaezoo.load_run(copied).sample(2).shape == (2, *shape_of(run))
