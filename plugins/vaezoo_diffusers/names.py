"""The names of the files of a model in the format of diffusers."""

from __future__ import annotations

CONFIG = "config.json"
STEM = "diffusion_pytorch_model"
WEIGHTS = f"{STEM}.safetensors"
