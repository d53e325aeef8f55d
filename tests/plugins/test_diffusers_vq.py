"""VQModel of diffusers as a run of vqgan, and back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import vaezoo
from small_jobs import SMALL_JOB
from vaezoo.cli.main import main
from vaezoo.runs.run import Run
from vaezoo_diffusers.classes import describe_run
from vaezoo_diffusers.export import export_folder
from vaezoo_diffusers.importing import import_run
from vaezoo_diffusers.names import CONFIG, WEIGHTS
from vaezoo_diffusers.scaling import scaling_factor


def vq_model(**changes: Any) -> Any:
    """A small VQModel of diffusers with random weights, whose codes are as far as its features."""
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    options: dict[str, Any] = {"block_out_channels": (8, 16), "norm_num_groups": 4, **changes}
    levels = len(options["block_out_channels"])
    model = diffusers.VQModel(
        down_block_types=["DownEncoderBlock2D"] * levels,
        up_block_types=["UpDecoderBlock2D"] * levels,
        sample_size=16,
        **options,
    ).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model


def same(run: Run, model: Any) -> None:
    x = torch.rand(3, *run.data_spec.shape)
    with torch.no_grad():
        features = model.encode(2 * x - 1).latents
        indices = model.quantize(features)[2][2]
        images = (model.decode(features).sample / 2 + 0.5).clamp(0, 1)
        torch.testing.assert_close(run.model.encoder(x), features, atol=1e-5, rtol=1e-5)
    assert len(indices.unique()) > 4
    assert run.encode(x, what="indices").flatten().equal(indices)
    torch.testing.assert_close(run.reconstruct(x), images, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "changes",
    [
        {"num_vq_embeddings": 40, "scaling_factor": 0.5},
        {"block_out_channels": (4, 8, 8), "latent_channels": 6, "vq_embed_dim": 6}
        | {"mid_block_add_attention": False, "lookup_from_codebook": True, "layers_per_block": 2},
        {"latent_channels": 6, "vq_embed_dim": 4},
    ],
)
def test_a_vq_model_is_a_run_and_the_same_bytes_again(
    changes: dict[str, Any], tmp_path: Path
) -> None:
    model = vq_model(**changes)
    model.save_pretrained(tmp_path / "vq")
    same(import_run(tmp_path / "vq", tmp_path / "run"), model)
    (found,) = export_folder(vaezoo.load_run(tmp_path / "run", "cpu"), tmp_path / "again")
    assert found.difference < 1e-12
    first, second = tmp_path / "vq", tmp_path / "again"
    assert (first / WEIGHTS).read_bytes() == (second / WEIGHTS).read_bytes()
    saved, written = (json.loads((folder / CONFIG).read_text()) for folder in (first, second))
    del saved["_diffusers_version"]
    width = saved["vq_embed_dim"]
    assert written == {
        **saved,
        "vq_embed_dim": None if width == saved["latent_channels"] else width,
    }


def test_training_goes_on_from_the_imported_codes(
    in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No code is replaced at the first step, as those of a new codebook are."""
    vq_model(in_channels=1, out_channels=1).save_pretrained("vq")
    data = ["--set", "data.examples=60", "--set", "data.test=20"]
    assert main(["import", "vq", "-o", "run", "--data", "sprites", *data]) == 0
    run = vaezoo.load_run("run")
    assert run.evaluate().mse is not None
    line = ["--init-from", "run", "--steps", "1", "--batch-size", "8", "--out", "tuned"]
    assert main(["train", "--config", "run/config.yaml", *line]) == 0
    before, after = (one.model.codebook.codes for one in (run, vaezoo.load_run("tuned")))
    assert 0 < (before - after).abs().max() < 1e-3


def test_diffusers_loads_a_trained_vqgan(tmp_path: Path) -> None:
    diffusers = pytest.importorskip("diffusers")
    job = {key: value for key, value in SMALL_JOB.items() if key != "latent_dim"}
    small = {"layers_per_block": 1, "norm_groups": 4, "codes": 16, "code_dim": 4}
    run = vaezoo.train("vqgan", out=tmp_path / "run", prior_steps=1, **job, **small)
    (found,) = export_folder(run, tmp_path / "vq")
    assert not any(name.startswith("sampler") for name in found.outputs)
    model = diffusers.VQModel.from_pretrained(tmp_path / "vq").eval()
    x = torch.rand(3, 1, 16, 16)
    with torch.no_grad():
        images = (model(2 * x - 1).sample / 2 + 0.5).clamp(0, 1)
        torch.testing.assert_close(run.reconstruct(x), images, atol=1e-5, rtol=1e-5)
        levels = run.splits.train.get_batch(torch.arange(96))[0]
        features = model.encode(levels / 127.5 - 1).latents
    scale = model.config.scaling_factor
    assert scale == pytest.approx(scaling_factor(run, describe_run(run)))
    assert scale * features.std() == pytest.approx(1.0, rel=0.05)
