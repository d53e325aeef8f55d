"""Folders in the format of diffusers, made without diffusers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

import vaezoo
from vaezoo_diffusers.autoencoder_kl import AutoencoderKLConfig
from vaezoo_diffusers.names import CONFIG, WEIGHTS
from vaezoo_diffusers.weights import to_theirs

KL_CONFIG: dict[str, Any] = {
    "_class_name": "AutoencoderKL",
    "_diffusers_version": "0.35.0",
    "block_out_channels": [8, 16],
    "down_block_types": ["DownEncoderBlock2D"] * 2,
    "up_block_types": ["UpDecoderBlock2D"] * 2,
    "latent_channels": 3,
    "norm_num_groups": 4,
    "sample_size": 8,
    "scaling_factor": 0.25,
    "shift_factor": 0.5,
}


def kl_tensors() -> dict[str, Tensor]:
    """Random weights for KL_CONFIG, by the names of diffusers."""
    model = vaezoo.create_model(
        "autoencoder_kl",
        (3, 8, 8),
        hidden=(8, 16),
        layers_per_block=1,
        norm_groups=4,
        latent_dim=3,
    )
    generator = torch.Generator().manual_seed(0)
    tensors = to_theirs(model.state_dict(), AutoencoderKLConfig.renamed)
    return {n: 0.2 * torch.randn(t.shape, generator=generator) for n, t in tensors.items()}


def write_folder(
    folder: Path, config: dict[str, Any] | None = None, tensors: dict[str, Tensor] | None = None
) -> Path:
    """Write a folder, by default of KL_CONFIG."""
    folder.mkdir(parents=True)
    (folder / CONFIG).write_text(json.dumps(KL_CONFIG if config is None else config))
    save_file(kl_tensors() if tensors is None else tensors, folder / WEIGHTS)
    return folder
