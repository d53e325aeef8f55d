"""Runs that diffusers loads, with the same outputs."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import vaezoo
from commands import refused
from diffusers_folders import write_folder
from small_jobs import SMALL_JOB
from vaezoo import DataSpec
from vaezoo.cli.main import main
from vaezoo.config import build_config, resolve_components, split_by_section
from vaezoo.errors import RunError
from vaezoo.runs.run import Run
from vaezoo_diffusers import export, peer
from vaezoo_diffusers.classes import describe_run
from vaezoo_diffusers.importing import import_run
from vaezoo_diffusers.names import CONFIG, WEIGHTS
from vaezoo_diffusers.scaling import scaling_factor

SMALL = {**SMALL_JOB, "hidden": (8, 16), "layers_per_block": 1, "norm_groups": 4}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    out = tmp_path_factory.mktemp("r") / "run"
    return vaezoo.train(
        "autoencoder_kl", out=out, **{**SMALL, "hidden": (8, 16, 8), "learn_scale": True}
    )


def test_diffusers_loads_a_trained_run(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    diffusers = pytest.importorskip("diffusers")
    monkeypatch.chdir(tmp_path)
    line = ["export", str(run.path), "--format", "diffusers", "-o", "kl"]
    assert main(line) == 0
    said = capsys.readouterr().out
    assert "agrees with diffusers" in said
    assert "1 / std of the latents of training examples" in said
    model = diffusers.AutoencoderKL.from_pretrained("kl").eval()
    assert model.config.scaling_factor == pytest.approx(scaling_factor(run, describe_run(run)))
    assert (model.config.sample_size, model.config.latent_channels) == (16, 4)
    x, z = torch.rand(3, 1, 16, 16), torch.randn(3, 4, 4, 4)
    with torch.no_grad():
        wanted = run.model.encode(x)
        found = model.encode(2 * x - 1).latent_dist
        torch.testing.assert_close(found.mean, wanted.mean, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(found.std, wanted.stddev, atol=1e-5, rtol=1e-5)
        image = (model.decode(z).sample + 1) / 2
        torch.testing.assert_close(image.clamp(0, 1), run.decode(z), atol=1e-5, rtol=1e-5)
    assert "kl exists already" in refused(capsys, *line)
    assert main([*line, "--overwrite"]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"kl"}
    assert {path.name for path in (tmp_path / "kl").iterdir()} == {CONFIG, WEIGHTS}


def test_the_scaling_factor_gives_latents_of_variance_one(run: Run) -> None:
    z = run.encode(what="sample", split="train")
    assert scaling_factor(run, describe_run(run)) * z.std() == pytest.approx(1.0, rel=0.03)


def test_without_its_data_the_scaling_factor_is_one_and_said(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = vaezoo.load_run(run.path, "cpu")
    again.metadata["data"]["fingerprint"] = "another"
    (found,) = export.export_folder(again, tmp_path / "kl")
    assert (
        "scaling_factor 1, for the data of the run cannot be read: the data has" in found.notes[0]
    )
    assert json.loads((tmp_path / "kl" / CONFIG).read_text())["scaling_factor"] == 1.0


def test_without_diffusers_the_file_is_compared_with_pytorch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    run = import_run(write_folder(tmp_path / "kl"), tmp_path / "run")
    (found,) = export.export_folder(run, tmp_path / "again")
    assert (found.compared_with, found.difference) == ("PyTorch", 0.0)
    first, second = (load_file(tmp_path / name / WEIGHTS) for name in ("kl", "again"))
    assert first.keys() == second.keys()
    assert all(first[name].equal(second[name]) for name in first)
    config = json.loads((tmp_path / "again" / CONFIG).read_text())
    assert (config["scaling_factor"], config["shift_factor"]) == (0.25, 0.5)


@pytest.mark.parametrize("with_diffusers", [True, False])
def test_what_differs_is_not_kept(
    with_diffusers: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if with_diffusers:
        pytest.importorskip("diffusers")
    else:
        monkeypatch.setitem(sys.modules, "diffusers", None)
    run = import_run(write_folder(tmp_path / "kl"), tmp_path / "run")
    before = sorted(path.name for path in tmp_path.iterdir())

    whole = export._save

    def save(tensors: dict[str, torch.Tensor], path: Path) -> None:
        whole(tensors | {"quant_conv.bias": tensors["quant_conv.bias"] + 1e-3}, path)

    monkeypatch.setattr(export, "_save", save)
    with pytest.raises(RunError, match=r"differs from that of the run by 0\.00.*nothing was writt"):
        export.export_folder(run, tmp_path / "again")
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_a_constant_of_a_norm_is_told_from_rounding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("diffusers")
    run = import_run(write_folder(tmp_path / "kl"), tmp_path / "run")
    norms = [module for module in run.model.modules() if isinstance(module, nn.GroupNorm)]
    norms[-1].eps = 2e-6
    with pytest.raises(RunError, match=r"differs from that of the run by \d"):
        export.export_folder(run, tmp_path / "again")


def test_what_diffusers_cannot_load_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("diffusers")
    run = import_run(write_folder(tmp_path / "kl"), tmp_path / "run")
    monkeypatch.setattr(export, "_save", lambda tensors, path: path.touch())
    with pytest.raises(RunError, match="diffusers cannot load what would be written"):
        export.export_folder(run, tmp_path / "again")
    assert not (tmp_path / "again").exists()


def configured(model: str, **options: Any) -> Any:
    """What `describe_run` reads of a run, without one."""
    names = {kind: options.pop(kind, None) for kind in ("network", "bottleneck", "likelihood")}
    components = resolve_components({"model": model, "data": "sprites", **names}, {})
    config = build_config(components, {}, split_by_section(components, options))
    return SimpleNamespace(config=config, data_spec=DataSpec(shape=(3, 16, 8)))


GRID = {"network": "ldm", "likelihood": "laplace_linear", "latent_grid": True}
WIDE = {"hidden": (8, 8), "norm_groups": 4, "logvar_range": (-30, 20)}


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ("vanilla", {}, "with the network conv is no model of diffusers: .* --network ldm"),
        (
            "autoencoder_kl",
            {"likelihood": "laplace"},
            "likelihood laplace .* --likelihood laplace_",
        ),
        ("autoencoder_kl", {"bottleneck": "laplace"}, "bottleneck laplace .* --bottleneck gauss"),
        ("autoencoder_kl", {"latent_grid": False}, "is one vector.*: train with --latent-grid"),
        ("autoencoder_kl", {"quant_width": 6}, "train without --quant-width"),
        ("vanilla", GRID, r"to -30,20, and this run to -20,20: train with --logvar-range=-30,20"),
        ("vamp_prior", GRID, "no class of diffusers is wired as the model vamp_prior"),
        ("vqgan", {"cosine": True}, "compares codes by their distance: train with --no-cosine"),
        ("vqgan", {"quant_conv": False}, "train with --quant-conv --post-quant-conv"),
        ("vqgan", {"bottleneck": "fsq"}, "bottleneck fsq .* --bottleneck gaussian or vq"),
        ("cvae", {"network": "ldm"}, "no class of diffusers is wired as the model cvae"),
    ],
)
def test_another_model_is_refused(model: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(RunError, match=message):
        describe_run(configured(model, **options))


def test_any_model_with_the_same_parts_fits() -> None:
    found = describe_run(configured("vanilla", **GRID, **WIDE, latent_dim=7)).to_dict()
    assert found == describe_run(configured("autoencoder_kl", **WIDE, latent_dim=7)).to_dict()
    assert found["sample_size"] == [16, 8]
    assert found["latent_channels"] == 7


@pytest.mark.parametrize("imported", [3, {"class": "AutoencoderKL"}, {"class": [], "config": {}}])
def test_a_damaged_record_of_the_import_is_one_line(imported: Any, tmp_path: Path) -> None:
    run = import_run(write_folder(tmp_path / "kl"), tmp_path / "run")
    run.metadata["imported"] = imported
    with pytest.raises(RunError, match=r"run\.json: imported: it does not say what was imported"):
        export.export_folder(run, tmp_path / "again")


def test_the_tolerance_is_relative_above_one() -> None:
    ours = torch.tensor([100.0, 0.0])
    assert peer._difference(ours, ours + 0.1) == pytest.approx(1e-3, rel=1e-4)
    assert peer._difference(ours, ours * torch.nan) == torch.inf
