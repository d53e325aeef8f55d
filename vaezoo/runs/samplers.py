"""Samplers that are fitted to a finished run and kept in its folder: their files, and options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from vaezoo.checkpoint.folder import RunFolder
from vaezoo.checkpoint.format import file_digest, load_into, load_weights, save_weights
from vaezoo.config import NO_PART, Components, find_conflict, title
from vaezoo.errors import OptionError, RunError, VaezooError, nearest, quoted
from vaezoo.io import cannot_write, read_json, write_json
from vaezoo.models.base import BaseVAE
from vaezoo.models.sampler import Sampler
from vaezoo.options import Options, parse, to_dict
from vaezoo.plugins.registry import registry
from vaezoo.plugins.specs import SamplerSpec
from vaezoo.runs.build import build_sampler, load_class

SAMPLER_FORMAT = 1


@dataclass(frozen=True)
class SavedSampler:
    """A sampler of a run: NAME.json with its options and checksums, NAME.safetensors with weights.

    record: the content of NAME.json.
    """

    spec: SamplerSpec
    options: Options
    record: Mapping[str, Any]
    weights: Path

    def build(self, model: BaseVAE) -> Sampler:
        """The fitted sampler, on the device of the model, in evaluation mode."""
        sampler = build_sampler(self.spec, self.options, model)
        load_into(sampler, load_weights(self.weights), self.weights)
        return sampler.to(model.device).eval()


def list_samplers(folder: RunFolder) -> list[str]:
    """The names of the samplers that were fitted to a run after its training."""
    return sorted(path.stem for path in folder.samplers.glob("*.json"))


def resolve_sampler(name: str, components: Components) -> SamplerSpec:
    """The spec of a sampler; OptionError unless it takes the latents of the run's model."""
    spec = cast(SamplerSpec, registry().resolve("sampler", name))
    parts = {**components.parts, "sampler": spec}
    if conflict := find_conflict(replace(components, parts=parts)):
        raise OptionError(conflict)
    return spec


def save_sampler(
    folder: RunFolder,
    spec: SamplerSpec,
    options: Options,
    sampler: Sampler,
    record: Mapping[str, Any],
) -> None:
    """Write a fitted sampler. The JSON file comes last: with it, the sampler is there."""
    plugin = registry().plugin(spec)
    path, weights = _files(folder, spec.name)
    try:
        folder.samplers.mkdir(exist_ok=True)
    except OSError as error:
        raise cannot_write(folder.samplers, error) from error
    save_weights(weights, sampler.state_dict())
    values = {
        "format": SAMPLER_FORMAT,
        "name": spec.name,
        "options": to_dict(options),
        "plugin": plugin.name,
        "distribution": plugin.distribution,
        "version": plugin.version,
        "model_sha256": file_digest(folder.weights),
        "weights_sha256": file_digest(weights),
        **record,
    }
    write_json(path, values)


def check_new(folder: RunFolder, spec: SamplerSpec) -> None:
    """RunError if the run has a fitted sampler of this name."""
    if _files(folder, spec.name)[0].exists():
        raise RunError(f"{folder.path} has a sampler {spec.name} already: --overwrite fits it anew")


def find_sampler(
    folder: RunFolder, components: Components, name: str, options: Mapping[str, Any]
) -> SavedSampler | None:
    """A sampler of a run by its name; None for that of the run's own training.

    options: those of `Sampler.sampling_options`, in place of the saved ones.

    RunError if there is none, if it is damaged, or if the model has changed since it was fitted.
    """
    spec, own = resolve_sampler(name, components), components.parts.get("sampler")
    path, weights = _files(folder, spec.name)
    if not path.exists():
        if own is not None and own.name == spec.name:
            if options:
                raise OptionError(f"{title(spec)} is part of the run: its options are those of it")
            return None
        there = [*list_samplers(folder), *([own.name] if own else []), NO_PART]
        raise RunError(
            f"{folder.path} has no sampler {quoted(spec.name)}, it has {', '.join(there)}"
            f"{nearest(spec.name, there)}: vaezoo fit {folder.path} --sampler {spec.name} fits it"
        )
    record, again = read_json(path), f"vaezoo fit {folder.path} --sampler {spec.name} --overwrite"
    if record.get("format") != SAMPLER_FORMAT or record.get("name") != spec.name:
        raise RunError(f"{path} is of another version of vaezoo, or damaged: {again}")
    for file, key in ((folder.weights, "model_sha256"), (weights, "weights_sha256")):
        if file_digest(file) != record.get(key):
            raise RunError(f"{file} has changed since the sampler {spec.name} was fitted: {again}")
    allowed = getattr(load_class(spec), "sampling_options", ())
    for option in options:
        if option not in allowed:
            known = f": {', '.join(allowed)} can" if allowed else ""
            raise OptionError(f"{option} cannot be changed after {title(spec)} is fitted{known}")
    saved = record.get("options")
    try:
        values = {**(saved if isinstance(saved, dict) else {}), **options}
        parsed = parse(spec.load_options(), values, title(spec))
    except VaezooError as error:
        raise (error if options else RunError(f"{path}: {error}")) from None
    return SavedSampler(spec, parsed, record, weights)


def _files(folder: RunFolder, name: str) -> tuple[Path, Path]:
    return folder.samplers / f"{name}.json", folder.samplers / f"{name}.safetensors"
