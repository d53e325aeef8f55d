"""Runs of autoencoders that diffusers itself has built and saved."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

import vaezoo
from commands import refused
from diffusers_folders import write_folder
from vaezoo.cli.main import main
from vaezoo.errors import RunError
from vaezoo.runs.run import Run
from vaezoo_diffusers.export import export_folder
from vaezoo_diffusers.importing import import_run
from vaezoo_diffusers.names import CONFIG, WEIGHTS


def diffusers_model(**changes: Any) -> Any:
    """A small AutoencoderKL of diffusers with random weights, norms and biases too."""
    diffusers = pytest.importorskip("diffusers")
    widths = changes.get("block_out_channels", (8, 16))
    levels = changes.pop("levels", ())
    kinds = ["Attn" if n in levels else "" for n in range(len(widths))]
    options = {
        "block_out_channels": widths,
        "norm_num_groups": 4,
        "latent_channels": 3,
        "sample_size": 8,
        **changes,
    }
    torch.manual_seed(0)
    model = diffusers.AutoencoderKL(
        down_block_types=[f"{kind}DownEncoderBlock2D" for kind in kinds],
        up_block_types=[f"{kind}UpDecoderBlock2D" for kind in reversed(kinds)],
        **options,
    ).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model


def same(run: Run, model: Any) -> None:
    """The run computes what the model of diffusers computes."""
    x = torch.rand(2, *run.data_spec.shape)
    with torch.no_grad():
        wanted = model.encode(2 * x - 1).latent_dist
        found = run.encode(x, what=["mean", "std"])
        torch.testing.assert_close(found["mean"], wanted.mean, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(found["std"], wanted.std, atol=1e-5, rtol=1e-5)
        images = (model.decode(wanted.mean).sample / 2 + 0.5).clamp(0, 1)
    torch.testing.assert_close(run.decode(wanted.mean), images, atol=1e-5, rtol=1e-5)


SHAPES: dict[str, dict[str, Any]] = {
    "usual": {"scaling_factor": 0.3, "shift_factor": 0.7},
    "one level, grey": {"block_out_channels": (6,), "norm_num_groups": 3, "in_channels": 1}
    | {"out_channels": 1, "sample_size": (9, 11), "mid_block_add_attention": False},
    "three levels": {"block_out_channels": (4, 8, 12), "layers_per_block": 2, "act_fn": "swish"},
    "no convolutions of width 1": {"use_quant_conv": False, "use_post_quant_conv": False},
    "one of them": {"use_post_quant_conv": False, "latents_mean": [0.0, 1.0, 2.0]}
    | {"latents_std": [1.0, 2.0, 3.0], "force_upcast": False},
    "attention at a level": {"levels": (1,), "latent_channels": 5},
}


@pytest.mark.parametrize("name", SHAPES)
def test_a_model_of_diffusers_is_a_run_and_the_same_bytes_again(name: str, tmp_path: Path) -> None:
    model = diffusers_model(**SHAPES[name])
    model.save_pretrained(tmp_path / "kl")
    run = import_run(tmp_path / "kl", tmp_path / "run")
    same(vaezoo.load_run(tmp_path / "run", "cpu"), model)
    (found,) = export_folder(run, tmp_path / "again")
    assert found.compared_with.startswith("diffusers ")
    assert found.difference < 1e-12
    first, second = tmp_path / "kl", tmp_path / "again"
    assert (first / WEIGHTS).read_bytes() == (second / WEIGHTS).read_bytes()
    saved, written = (json.loads((folder / CONFIG).read_text()) for folder in (first, second))
    assert {k: v for k, v in saved.items() if k != "_diffusers_version"} == written


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_and_shards(dtype: torch.dtype, tmp_path: Path) -> None:
    model = diffusers_model().to(dtype)
    model.save_pretrained(tmp_path / "one", variant="fp16" if dtype == torch.float16 else None)
    model.save_pretrained(tmp_path / "many", max_shard_size="20KB")
    assert len([*(tmp_path / "many").glob("*.safetensors")]) > 3
    single = next((tmp_path / "one").glob("*.safetensors"))
    for name in ("one", "many"):
        run = import_run(tmp_path / name, tmp_path / f"{name}-run")
        assert run.metadata["imported"]["dtype"] == str(dtype).removeprefix("torch.")
        assert all(p.dtype == torch.float32 for p in run.model.parameters())
        same(run, model.float())
        export_folder(run, tmp_path / f"{name}-again")
        assert (tmp_path / f"{name}-again" / WEIGHTS).read_bytes() == single.read_bytes()


def test_the_old_names_of_attention_are_read(tmp_path: Path) -> None:
    """diffusers reads them too."""
    diffusers = pytest.importorskip("diffusers")
    diffusers_model().save_pretrained(tmp_path / "new")
    tensors = load_file(tmp_path / "new" / WEIGHTS)
    for new, old in (("q", "query"), ("k", "key"), ("v", "value"), ("out.0", "proj_attn")):
        for name in [name for name in tensors if f".to_{new}." in name]:
            tensors[name.replace(f"to_{new}", old)] = tensors.pop(name)
    assert any("query" in name for name in tensors)
    save_file(tensors, tmp_path / "new" / WEIGHTS, metadata={"format": "pt"})
    run = import_run(tmp_path / "new", tmp_path / "run")
    same(run, diffusers.AutoencoderKL.from_pretrained(tmp_path / "new"))


def test_a_pipeline_and_what_run_json_says_of_it(
    in_tmp: Path, capsys: pytest.CaptureFixture[str], documented: Callable[[str], list[str]]
) -> None:
    folder = write_folder(in_tmp / "pipeline" / "vae")
    assert main(["import", "pipeline", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {*found} == {*documented("`vaezoo import DIR --json`")}
    assert found["run"] == "runs/autoencoder_kl-folder-001"
    assert (found["shape"], found["latent_shape"]) == ([3, 8, 8], [3, 4, 4])
    record = vaezoo.load_run(found["run"]).metadata
    assert {*record["imported"]} == {*documented("What `imported` holds")}
    assert record["imported"] == found["imported"]
    assert record["imported"]["sha256"] == {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in (CONFIG, WEIGHTS)
    }
    assert record["data"]["fingerprint"] is None
    assert main(["import", "pipeline", "-o", "other"]) == 0
    assert "by --root DIR" in capsys.readouterr().out


def images(folder: Path) -> Path:
    folder.mkdir()
    for seed in range(12):
        levels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(levels).save(folder / f"{seed}.png")
    return folder


def test_a_run_without_data_takes_any_folder_of_images(
    in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = images(in_tmp / "images")
    run = import_run(write_folder(in_tmp / "kl"), in_tmp / "run")
    assert repr(run).endswith("autoencoder_kl on folder, imported")
    assert run.sample(2).shape == (2, 3, 8, 8)
    assert "--root DIR" in refused(capsys, "evaluate", "run")
    found = vaezoo.load_run("run", root=root)
    assert found.evaluate().examples == 3
    assert main(["fit", "run", "--sampler", "gaussian", "--root", str(root)]) == 0
    assert vaezoo.load_run("run", sampler="gaussian").sample(2).isfinite().all()
    said = refused(capsys, "train", "--resume", "run", "--root", root)
    assert "run was imported: train another run from it, by --init-from run" in said
    line = ["--init-from", "run", "--root", str(root), "--steps", "1", "--batch-size", "4"]
    assert main(["train", "--config", "run/config.yaml", *line, "--out", "tuned"]) == 0
    tuned = vaezoo.load_run("tuned")
    assert "imported" not in tuned.metadata
    assert tuned.metadata["init"]["drawn"] == {}
    change = torch.cat([(a - b).flatten() for a, b in zip(*weights(run, tuned), strict=True)])
    assert 0 < change.abs().max() < 1e-3


def weights(*runs: Run) -> list[list[torch.Tensor]]:
    return [[*run.model.state_dict().values()] for run in runs]


def test_a_run_with_data_refuses_other_data(tmp_path: Path) -> None:
    root, folder = images(tmp_path / "images"), write_folder(tmp_path / "kl")
    run = import_run(folder, tmp_path / "run", settings=["data.test_fraction=0.5"], root=root)
    assert len(run.splits.test) == 6
    assert run.evaluate().elbo is not None
    (root / "0.png").unlink()
    with pytest.raises(RunError, match="the data has changed"):
        _ = vaezoo.load_run(tmp_path / "run").splits


def test_importing_leaves_the_random_state_of_the_caller(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "kl")
    before = torch.get_rng_state()
    import_run(folder, tmp_path / "run")
    assert torch.get_rng_state().equal(before)
