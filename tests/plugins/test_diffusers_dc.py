"""AutoencoderDC of diffusers as a run of dc_ae, and back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import vaezoo
from small_jobs import SMALL_JOB
from vaezoo.errors import RunError
from vaezoo_diffusers.autoencoder_dc import AutoencoderDCConfig
from vaezoo_diffusers.classes import describe_run
from vaezoo_diffusers.export import export_folder
from vaezoo_diffusers.importing import import_run
from vaezoo_diffusers.names import CONFIG, WEIGHTS

BLOCKS = ["ResBlock", "ResBlock", "EfficientViTBlock"]
SMALL: dict[str, Any] = {
    "latent_channels": 4,
    "attention_head_dim": 4,
    "encoder_block_types": BLOCKS,
    "decoder_block_types": BLOCKS,
    "encoder_block_out_channels": [4, 8, 16],
    "decoder_block_out_channels": [4, 8, 16],
    "encoder_layers_per_block": [0, 1, 2],
    "decoder_layers_per_block": [0, 2, 1],
    "encoder_qkv_multiscales": [[], [], [5]],
    "decoder_qkv_multiscales": [[], [], [5]],
}
NORMS = {
    "decoder_norm_types": ["batch_norm", "batch_norm", "rms_norm"],
    "decoder_act_fns": ["relu", "relu", "silu"],
    "downsample_block_type": "Conv",
    "upsample_block_type": "interpolate",
    "scaling_factor": 0.4,
}


@pytest.mark.parametrize("changes", [{}, NORMS])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_an_autoencoder_dc_is_a_run_and_the_same_bytes_again(
    changes: dict[str, Any], dtype: torch.dtype, tmp_path: Path
) -> None:
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    model = diffusers.AutoencoderDC(**SMALL, **changes).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    for name, buffer in model.named_buffers():
        if name.endswith("running_var"):
            buffer.uniform_(0.5, 2.0)
    model.to(dtype).save_pretrained(tmp_path / "dc")
    run = import_run(tmp_path / "dc", tmp_path / "run", settings=["data.image_size=16"])
    x = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        z = model.float().encode(2 * x - 1).latent
        images = (model.decode(z).sample / 2 + 0.5).clamp(0, 1)
    torch.testing.assert_close(run.encode(x), z, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(run.decode(z), images, atol=1e-5, rtol=1e-5)
    (found,) = export_folder(run, tmp_path / "again")
    assert found.difference < 1e-5
    first, second = tmp_path / "dc", tmp_path / "again"
    assert (first / WEIGHTS).read_bytes() == (second / WEIGHTS).read_bytes()
    again, saved = ({**json.loads((folder / CONFIG).read_text())} for folder in (second, first))
    assert again["scaling_factor"] == saved["scaling_factor"]
    for name in ("norm_types", "act_fns"):  # one value for all levels, or one for each
        value = saved[f"decoder_{name}"]
        wanted = [value] * 3 if isinstance(value, str) else value
        assert again[f"decoder_{name}"] == wanted


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"decoder_block_out_channels": [4, 8, 8]}, "encoder and decoder have other widths"),
        ({"decoder_block_types": "ResBlock"}, "encoder and decoder have other widths or blocks"),
        ({"encoder_layers_per_block": [1, 1]}, "2 encoder_layers_per_block, and 3 levels"),
        ({"encoder_out_shortcut": False}, "encoder_out_shortcut or decoder_in_shortcut is false"),
        ({"latent_channels": 5}, "a shortcut from 16 to 5 channels has no equal parts"),
        ({"decoder_norm_types": "batch_norm"}, "a ResBlock with batch_norm and silu is unknown"),
        ({**NORMS, "decoder_norm_types": "batch_norm"}, "EfficientViTBlock with batch_norm and"),
        ({"decoder_qkv_multiscales": [[], [], [3]]}, "qkv_multiscales differ between levels"),
        ({"decoder_conv_act_fn": "silu"}, "decoder_conv_act_fn: "),
        ({"encoder_block_types": "Block"}, "encoder_block_types"),
    ],
)
def test_another_structure_is_refused(changes: dict[str, Any], message: str) -> None:
    AutoencoderDCConfig.parse(SMALL, "config.json")
    with pytest.raises(RunError, match=f"config.json: .*{message}") as raised:
        AutoencoderDCConfig.parse({**SMALL, **changes}, "config.json")
    assert "\n" not in str(raised.value)


def test_diffusers_loads_a_trained_dc_ae(tmp_path: Path) -> None:
    diffusers = pytest.importorskip("diffusers")
    job = {**SMALL_JOB, "hidden": (4, 8), "sampler": "none", "head_dim": 4}
    run = vaezoo.train("dc_ae", out=tmp_path / "run", batch_norm_levels=(0,), **job)
    assert describe_run(run).class_name == "AutoencoderDC"
    export_folder(run, tmp_path / "dc")
    model = diffusers.AutoencoderDC.from_pretrained(tmp_path / "dc").eval()
    x = torch.rand(3, 1, 16, 16)
    with torch.no_grad():
        z = model.encode(2 * x - 1).latent
        images = (model.decode(z).sample / 2 + 0.5).clamp(0, 1)
    torch.testing.assert_close(run.encode(x), z, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(run.reconstruct(x), images, atol=1e-5, rtol=1e-5)
