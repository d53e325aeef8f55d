"""`vaezoo export RUN --format diffusers`: the model of a run as a folder that diffusers loads."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from vaezoo.errors import RunError, VaezooError
from vaezoo.io import write_json
from vaezoo.runs.run import Run
from vaezoo_export.export import Exported
from vaezoo_export.formats import replaced_folder

from .classes import CLASSES, describe_run
from .config import ModelConfig
from .names import CONFIG, WEIGHTS
from .peer import compare
from .scaling import scaling_factor


def export_folder(run: Run, path: Path) -> list[Exported]:
    """Write config.json and the weights, and compare them with the model before they are kept.

    RunError, in one line, if no class of diffusers computes what the model does; nothing is
    written then.
    """
    config = describe_run(run)
    model = run.model
    imported = run.metadata.get("imported")
    notes: list[str] = []
    if imported:
        config, dtype = _as_imported(config, imported, run)
    else:
        config, dtype = _with_scale(config, run, notes), torch.float32
    tensors = config.weights_of(model.state_dict())
    floats = {name: tensor for name, tensor in tensors.items() if tensor.is_floating_point()}
    if all(tensor.to(dtype).to(tensor.dtype).equal(tensor) for tensor in floats.values()):
        tensors |= {name: tensor.to(dtype) for name, tensor in floats.items()}
    with replaced_folder(path, (CONFIG, WEIGHTS)) as folder:
        _save(tensors, folder / WEIGHTS)
        write_json(folder / CONFIG, config.to_dict())
        difference, other = compare(model, config, folder)
    return [Exported(path, None, {}, sorted(tensors), difference, other, tuple(notes))]


def _save(tensors: dict[str, Tensor], path: Path) -> None:
    save_file(
        {name: tensor.contiguous() for name, tensor in tensors.items()},
        path,
        metadata={"format": "pt"},  # as diffusers does: the same weights are the same bytes
    )


def _as_imported(
    config: ModelConfig, imported: object, run: Run
) -> tuple[ModelConfig, torch.dtype]:
    """With what the imported folder had beside the model, and the dtype of its weights."""
    where = f"{run.folder.metadata}: imported"
    values = imported if isinstance(imported, dict) else {}
    saved, name = values.get("config"), values.get("class")
    if not isinstance(saved, dict) or not isinstance(name, str) or name not in CLASSES:
        raise RunError(f"{where}: it does not say what was imported")
    found = CLASSES[name].parse(saved, where)
    if name != config.class_name:
        raise RunError(f"{where}: it was a {name}, and this model is a {config.class_name}")
    kept = {field: getattr(found, field) for field in config.kept}
    dtypes = {"float16": torch.float16, "bfloat16": torch.bfloat16}
    return config.model_copy(update=kept), dtypes.get(str(values.get("dtype")), torch.float32)


def _with_scale(config: ModelConfig, run: Run, notes: list[str]) -> ModelConfig:
    """With the scaling factor of the run's latents; 1 if its data cannot be read, which is said."""
    try:
        scale = scaling_factor(run, config)
        notes.append(f"scaling_factor {scale:.5g}: 1 / std of the latents of training examples")
    except VaezooError as error:
        scale = 1.0
        notes.append(f"scaling_factor 1, for the data of the run cannot be read: {error}")
    return config.model_copy(update={"scaling_factor": scale})
