"""Runs that were moved, to a machine without their data or without the plugin of their data."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import vaezoo
from commands import refused
from fork_server import ForkServer
from vaezoo.cli.main import main
from vaezoo.errors import DataError, RunError

ROOT = Path(__file__).parents[2]

STRIPES = '''
import torch
from pydantic import Field
from vaezoo import BaseDataset, DataOptions, Splits
from vaezoo.data.base import hash_content, make_splits


class TravelOptions(DataOptions):
    width: int = Field(2, ge=1, description="pixels of a stripe")


class Travel(BaseDataset):
    """Images of stripes, for a test."""

    options: TravelOptions

    def load(self) -> Splits:
        noise = torch.rand(60, 1, 16, 1, generator=torch.Generator().manual_seed(0))
        images = (255 * noise).byte().expand(60, 1, 16, 16).contiguous()
        parts = torch.arange(60).split([40, 10, 10])
        fingerprint = hash_content(images.numpy().tobytes())
        return make_splits(
            self.options, images, None, parts, description="stripes", fingerprint=fingerprint
        )
'''
SMALL = [
    *("--network", "mlp", "--hidden", "8", "--latent-dim", "2", "--batch-size", "8"),
    *("--steps", "3", "--device", "cpu"),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, torch_server: ForkServer) -> Path:
    """A run of a data set in a file, which another process had; it was moved since."""
    folder = tmp_path_factory.mktemp("travel")
    (folder / "travel.py").write_text(STRIPES)
    line = ["train", "vanilla", "--data", f"{folder}/travel.py:Travel", *SMALL]
    path = os.pathsep.join([str(ROOT), str(ROOT / "plugins"), os.environ.get("PYTHONPATH", "")])
    made = torch_server.run(
        [sys.executable, "-m", "vaezoo", *line, "--width", "3", "--out", str(folder / "made")],
        env={**os.environ, "PYTHONPATH": path},
    )
    assert made.returncode == 0, made.stderr
    shutil.copytree(folder / "made", folder / "elsewhere" / "run")
    shutil.rmtree(folder / "made")
    return folder / "elsewhere" / "run"


@pytest.fixture
def unchanged(run: Path) -> Iterator[None]:
    """Reading writes nothing into the folder, which may be read-only."""

    def content() -> dict[str, tuple[int, int]]:
        stats = {str(path): path.stat() for path in [run, *run.rglob("*")]}
        return {name: (stat.st_mtime_ns, stat.st_size) for name, stat in stats.items()}

    before = content()
    yield
    assert content() == before


@pytest.mark.usefixtures("unchanged")
def test_a_run_is_used_without_the_plugin_of_its_data(run: Path, in_tmp: Path) -> None:
    opened = vaezoo.load_run(run, "cpu")
    assert opened.sample(3).shape == (3, 1, 16, 16)
    x = torch.rand(4, 1, 16, 16)
    assert opened.reconstruct(x).shape == x.shape
    assert opened.model.encode(x).mean.shape == (4, 2)
    assert repr(opened).startswith(f"Run {run}: vanilla on travel, 3 steps")
    assert main(["sample", str(run), "-n", "2", "-o", "s.png"]) == 0
    assert main(["export", str(run), "-o", "e.safetensors"]) == 0
    assert main(["report", str(run), "-o", "r.html"]) == 0
    remark = "its latents were not measured: "
    assert remark in Path("r.html").read_text()


@pytest.mark.usefixtures("unchanged")
def test_what_needs_the_data_names_its_plugin(
    run: Path, in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = run.parents[1] / "travel.py"
    for line in (
        ("evaluate", run),
        ("reconstruct", run, 0),
        ("embed", run),
        ("traverse", run),
        ("interpolate", run, 0, 1),
        ("evaluate", run, "--root", in_tmp),
        ("train", "--resume", run),
    ):
        said = refused(capsys, *line)
        assert f"was made with the data 'travel' of plugin '{file}:Travel', which is not" in said
        assert f"vaezoo --plugin {file}:Travel" in said
    with pytest.raises(RunError, match="which is not installed"):
        _ = vaezoo.load_run(run, "cpu").splits
    assert not [*in_tmp.iterdir()]


def test_a_model_of_no_plugin_is_still_refused(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "run"
    shutil.copytree(run, other)
    config = (other / "config.yaml").read_text().replace("name: vanilla", "name: nowhere")
    (other / "config.yaml").write_text(config)
    record = (other / "run.json").read_text().replace('"name": "vanilla"', '"name": "nowhere"')
    (other / "run.json").write_text(record)
    said = refused(capsys, "sample", other, "-o", tmp_path / "s.png")
    assert "was made with the model 'nowhere' of plugin 'vanilla', which is not installed" in said


@pytest.fixture(scope="module")
def moved_data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run, and the new place of its data."""
    folder = tmp_path_factory.mktemp("data")
    noise = np.random.default_rng(0).random((60, 1, 16, 16), dtype=np.float32)
    np.savez(folder / "before.npz", x=(noise * 255).astype(np.uint8))
    line = ["train", "vanilla", "--data", "npz", "--root", str(folder / "before.npz"), *SMALL]
    assert main([*line, "--out", str(folder / "run")]) == 0
    (folder / "new").mkdir()
    (folder / "before.npz").rename(folder / "new" / "after.npz")
    return folder / "run", folder / "new" / "after.npz"


COMMANDS = {
    "evaluate": ((), ()),
    "embed": ((), ("-o", "e.png")),
    "traverse": ((), ("-o", "t.png")),
    "interpolate": ((0, 1), ("-o", "i.png")),
    "reconstruct": ((0, 1), ("-o", "r.png")),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_the_new_place_of_the_data_is_asked_for_and_taken(
    moved_data: tuple[Path, Path], in_tmp: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    run, data = moved_data
    words, out = COMMANDS[command]
    assert "--root" in refused(capsys, command, run, *words, *out)
    line = [command, run, *words, *out, "--root", data]
    assert main([str(word) for word in line]) == 0


def test_the_report_takes_the_new_place_of_the_data(
    moved_data: tuple[Path, Path], in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, data = (str(path) for path in moved_data)
    assert main(["report", run, "-o", "a.html"]) == 0
    assert "its latents were not measured" in capsys.readouterr().out
    assert main(["report", run, "-o", "b.html", "--root", data]) == 0
    assert "were not measured" not in capsys.readouterr().out


def test_python_names_its_own_argument(moved_data: tuple[Path, Path]) -> None:
    run, data = moved_data
    opened = vaezoo.load_run(run, "cpu")
    assert opened.sample(2).shape == (2, 1, 16, 16)
    with pytest.raises(DataError, match=r"(?<!-)\broot\b"):
        opened.evaluate()
    assert vaezoo.load_run(run, "cpu", root=data).evaluate().examples > 0


def test_a_data_set_that_does_not_say_how_gets_the_option_named(
    moved_data: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(self: object) -> None:
        raise DataError("there is nothing at the usual place")

    monkeypatch.setattr("vaezoo_files.npz.NpzDataset.load", gone, raising=True)
    with pytest.raises(DataError, match="nothing at the usual place; if it moved, give root"):
        vaezoo.load_run(moved_data[0], "cpu").evaluate()
