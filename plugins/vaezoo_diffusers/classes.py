"""The classes of diffusers that are models here, by their names and by the parts of a run."""

from __future__ import annotations

from pathlib import Path

from vaezoo.errors import RunError, quoted
from vaezoo.io import read_json
from vaezoo.runs.run import Run

from .autoencoder_dc import AutoencoderDCConfig
from .autoencoder_kl import AutoencoderKLConfig
from .config import ModelConfig
from .vq_model import VQModelConfig

CLASSES: dict[str, type[ModelConfig]] = {
    one.class_name: one for one in (AutoencoderKLConfig, VQModelConfig, AutoencoderDCConfig)
}

_WIRING = "vaezoo.models.base:EncoderDecoderVAE"
"""The class of models that are an encoder, a bottleneck and a decoder, and nothing else."""

_LIKELIHOODS = ("laplace_linear", "gaussian_linear")
"""Those whose mean is (raw + 1) / 2, as diffusers maps the output of a decoder to [0, 1]."""


def read_config(path: Path) -> ModelConfig:
    """Read config.json. RunError, in one line, unless it is of one of CLASSES, and understood."""
    values = read_json(path)
    name = values.get("_class_name")
    if not isinstance(name, str) or name not in CLASSES:
        raise RunError(
            f"{path} is of the class {quoted(name)}, which is none of {', '.join(CLASSES)}"
        )
    return CLASSES[name].parse(values, path)


def describe_run(run: Run) -> ModelConfig:
    """The configuration of diffusers of a run's model.

    RunError, in one line, if no class computes what the model does.
    """
    components = run.config.components
    model, parts = components.model, {kind: spec.name for kind, spec in components.parts.items()}
    if model.target != _WIRING:
        raise RunError(f"no class of diffusers is wired as the model {model.name}")
    networks = list(dict.fromkeys(one.network_name for one in CLASSES.values()))
    fitting = {
        one.bottleneck_name: one for one in CLASSES.values() if one.network_name == parts["network"]
    }
    for kind, fits, advice in (
        ("network", networks, "diffusers has the layers of --network"),
        ("bottleneck", list(fitting), "diffusers has --bottleneck"),
        ("likelihood", _LIKELIHOODS, "its decoder gives the values themselves, as --likelihood"),
    ):
        if parts[kind] not in fits:
            raise RunError(
                f"a run with the {kind} {parts[kind]} is no model of diffusers: {advice} "
                f"{' or '.join(fits)}"
            )
    return fitting[parts["bottleneck"]].of_run(run)
