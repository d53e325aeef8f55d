"""Write the pages of docs/ that follow from the code, or the part of a page that does.

`python .ci/write_docs.py` writes them; a test holds them to what it would write.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
import typing
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click
from pydantic import BaseModel
from torch import nn

import vaezoo
from vaezoo.cli.main import all_commands, group
from vaezoo.evaluation.evaluate import all_metrics
from vaezoo.plugins.specs import (
    METRIC_COMPARABLE_KEYS,
    METRIC_GROUPS,
    METRIC_REQUIRES,
    PARTS,
    MetricSpec,
    ModelSpec,
)
from vaezoo.testing.combinations import combinations

DOCS = Path(__file__).parents[1] / "docs"
MARK = "<!-- from here on written by .ci/write_docs.py -->\n"
WIDTH = 100

PUBLIC: dict[str, tuple[str, ...]] = {
    "vaezoo": tuple(name for name in vaezoo.__all__ if name != "__version__"),
    "vaezoo.plugins.specs": (
        "API_VERSION",
        "CAPABILITIES",
        "METRIC_GROUPS",
        "METRIC_REQUIRES",
        "METRIC_COMPARABLE_KEYS",
        "PARTS",
        "Kind",
        "Spec",
    ),
    "vaezoo.errors": (
        *("DataError", "OptionError", "RunError", "VaezooError"),
        *("counted", "nearest", "printable", "quoted"),
    ),
    "vaezoo.io": (
        "atomic_write",
        "cannot_write",
        "full_path",
        "open_regular",
        "read_json",
        "read_regular",
        "require_extra",
        "write_json",
        "write_text",
    ),
    "vaezoo.options": ("check_arguments", "to_dict"),
    "vaezoo.runtime.memory": ("available_memory", "physical_memory"),
    "vaezoo.distributed": (
        "all_gather",
        "rank",
        "world_size",
        "local_chunk",
        "all_reduce",
        "full_tensor",
    ),
    "vaezoo.distributed.launch": ("process_group",),
    "vaezoo.models.distributions": (
        "BaseDistribution",
        "Delta",
        "IsotropicNormal",
        "diagonal_normal",
        "gaussian_from_params",
        "sample_prior",
        "to_float32",
        "independent",
        "kl_divergence",
        "log_mean_exp",
        "mode",
        "project_to_prior",
    ),
    "vaezoo.models.bottleneck": ("Codebook",),
    "vaezoo.models.options": ("LogvarRange",),
    "vaezoo.models.likelihoods": (
        "BernoulliLikelihood",
        "GaussianLikelihood",
        "SMALLEST_SCALE",
    ),
    "vaezoo.nn.batch_norm": ("freeze_bn_stats",),
    "vaezoo.nn.scaling": ("level_sizes", "rescaling"),
    "vaezoo.losses.base": ("loss_of",),
    "vaezoo.losses.elbo": ("elbo_terms",),
    "vaezoo.data.base": (
        "Standardizer",
        "compute_statistics",
        "domain_of",
        "hash_content",
        "hash_examples",
        "make_splits",
        "random_split",
    ),
    "vaezoo.data.spec": ("DataStatistics", "Domain"),
    "vaezoo.data.decode": (
        "SUFFIXES",
        "Append",
        "UnreadableImageError",
        "VERSION",
        "decode_all",
        "decode_image",
        "image_size",
        "is_grey",
    ),
    "vaezoo.data.loader": ("BatchLoader",),
    "vaezoo.data.options": ("SPLIT_SEED", "Binarize", "DecodeOptions", "DiskOptions", "ImageSize"),
    "vaezoo.runtime": ("OnProgress", "is_rank0", "listen_to_progress", "report_progress"),
    "vaezoo.training.progress": ("Progress",),
    "vaezoo.runtime.device": ("move_module", "no_validate_args", "resolve_device", "seeded"),
    "vaezoo.checkpoint.format": (
        "check_fit",
        "file_digest",
        "load_into",
        "load_weights",
        "save_weights",
    ),
    "vaezoo.evaluation.latents": (
        "ACTIVE_VARIANCE",
        "LatentKls",
        "LatentMoments",
        "LatentStats",
        "pca_plane",
        "prior_mean",
        "prior_quantiles",
        "reject_discrete",
    ),
    "vaezoo.evaluation.metric": (
        "MAX_EXAMPLES",
        "MIN_EXAMPLES",
        "EvalBatch",
        "EvalContext",
        "ExampleMoments",
        "MetricResult",
        "MetricState",
        "MetricUnavailable",
        "no_progress",
    ),
    "vaezoo.evaluation.accumulators": ("RunningMoments", "RunningSum"),
    "vaezoo.evaluation.pictures": (
        "ROW_SLICES",
        "as_images",
        "check_drawable",
        "describe_picture",
        "drawn_range",
        "save_examples",
        "save_sequences",
        "to_rgb",
        "value_range",
    ),
    "vaezoo.evaluation.plots": (
        "COLORS",
        "FAINT",
        "GRID",
        "INK",
        "add_legend",
        "add_plot",
        "draw_signals",
        "hex_color",
        "new_figure",
        "save_figure",
    ),
    "vaezoo.evaluation.seeds": (
        "aggregate_seeds",
        "group_by_config",
        "group_name",
    ),
    "vaezoo.config": (
        "RunConfig",
        "build_config",
        "load_config",
        "parse_settings",
        "resolve_components",
    ),
    "vaezoo.plugins.registry": ("WORDS", "registry"),
    "vaezoo.checkpoint.folder": ("RunFolder", "metrics_line"),
    "vaezoo.runs.build": ("build_model", "read_data"),
    "vaezoo.runs.examples": ("ExampleBatch", "Examples", "LatentKind"),
    "vaezoo.runs.evaluation": ("sample_labels",),
    "vaezoo.runs.run": ("Run",),
    "vaezoo.runs.train": ("run_record",),
    "vaezoo.cli.options": (
        "check_writable",
        "choice_option",
        "class_option",
        "device_option",
        "importance_samples_option",
        "json_option",
        "list_option",
        "metric_option",
        "out_option",
        "picture_options",
        "root_option",
        "run_argument",
        "runs_argument",
        "sampler_option",
        "sampler_settings",
        "seed_option",
        "set_option",
    ),
    "vaezoo.cli.output": ("print_result",),
    "vaezoo_discrete.quantizer": (
        "Quantized",
        "Quantizer",
        "no_autocast",
        "rotate",
        "squared_distance",
        "straight_through",
    ),
    "vaezoo_discrete.bottleneck": ("QuantizerBottleneck",),
    "vaezoo_discrete.distributions": ("SoftPosterior",),
    "vaezoo_discrete.options": ("MAX_CODES", "VQLossOptions", "VQOptions"),
    "vaezoo_discrete.losses": ("batch_statistics", "code_terms", "quantizer_loss"),
    "vaezoo_discrete.vq": ("VectorQuantizer", "nearest_codes", "vector_quantizer"),
    "vaezoo_networks.checkpointing": ("checkpoint_blocks",),
    "vaezoo_networks.conv": ("CONV",),
    "vaezoo_networks.grid": ("GridNetwork",),
    "vaezoo_networks.options": ("CheckpointingOptions",),
    "vaezoo_latents.sphere": ("SphereUniform", "log_area"),
    "vaezoo_results.tables": ("open_table", "read_pieces", "write_table"),
    "vaezoo_samplers.fitting": ("check_classes", "check_labels", "warmup_cosine"),
    "vaezoo_adversarial.options": ("DiscriminatorOptions",),
    "vaezoo_tokenizers.likelihoods": ("UnboundedLocation",),
    "vaezoo_tokenizers.tiled": ("decode_tiled", "encode_tiled", "map_tiles"),
    "vaezoo_fidelity.classifier": (
        "Classifier",
        "TrainedClassifier",
        "classifier_name",
        "load_classifier",
        "read_classifier",
    ),
    "vaezoo_metrics.image_metrics": ("SSIM_SMALLEST", "ms_ssim", "ms_ssim_scales"),
    "vaezoo_transformers.block": ("Cache", "TransformerBlock"),
    "vaezoo_files.cache": ("CachedImages", "cache_folder", "cached_images"),
    "vaezoo_export.export": (
        "TOLERANCE",
        "Exported",
        "Part",
        "check_extra",
        "description",
        "largest_difference",
        "make_graph",
        "onnx_bytes",
        "onnx_model",
    ),
    "vaezoo_export.formats": ("ExportFormat", "check_folder", "replaced_folder"),
    "vaezoo.testing": tuple(importlib.import_module("vaezoo.testing").__all__),
}
"""What a plugin may use: names by the module that they are imported from."""


def api() -> str:
    """The names of api.md: each with its signature, what it is, and what it has."""
    parts = []
    for module, names in PUBLIC.items():
        parts.append(f"## `{module}`\n")
        for name in names:
            parts += [*_entry(name, getattr(importlib.import_module(module), name)), ""]
    return "\n".join(parts).rstrip() + "\n"


def command_line() -> str:
    """The help of every command, after the part of the page that is written by hand."""
    parts = [_help("vaezoo", group)]
    for name in all_commands():
        command = group.get_command(click.Context(group), name)
        assert command is not None
        parts.append(_help(f"vaezoo {name}", command))
    return "\n".join(parts)


def metrics() -> str:
    """Each metric by what its spec says, a group at a time."""
    parts = []
    for name, what in METRIC_GROUPS.items():
        parts.append(f"## {name}: {what}\n")
        for spec in all_metrics():
            if spec.group == name:
                parts += [*_metric(spec), ""]
    return "\n".join(parts).rstrip() + "\n"


def _metric(spec: MetricSpec) -> Iterator[str]:
    unit = f", {spec.unit}" if spec.unit else ""
    better = "" if spec.direction == "neither" else f", {spec.direction} is better"
    yield f"- **`{spec.name}`**{unit}{better}. {spec.summary}."
    yield f"  - {spec.formula}"
    if spec.paper:
        yield f"  - {spec.paper}"
    for need in spec.requires:
        yield f"  - no number where {METRIC_REQUIRES[need]}"
    keys = "; ".join(METRIC_COMPARABLE_KEYS[word] for word in spec.comparable_keys)
    yield f"  - ranked by the same: {keys}"
    asked = "measured always" if spec.default else "measured when asked for"
    yield f"  - {asked}; {spec.cost}" + (f"; needs `vaezoo[{spec.extra}]`" if spec.extra else "")


def combination_rows(model: ModelSpec) -> dict[str, str]:
    """For each kind of part the row of a model: what it can be made of, and why not of others."""
    found, rows = list(combinations(model)), {}
    for kind in PARTS:
        reasons: dict[str, list[str]] = {}
        for one in found:
            if one.part.kind == kind:
                reasons.setdefault(one.reason, []).append(one.part.name)
        fits = ", ".join(reasons.pop("", [])) or "none"
        others = "; ".join(f"{', '.join(names)}: {why}" for why, names in reasons.items())
        rows[kind] = f"| `{model.name}` | {fits} | {others} |"
    return rows


def combinations_page() -> tuple[Path, str]:
    """The page docs/combinations.md, which takes a minute: its rows come from training."""
    path = DOCS / "combinations.md"
    by_hand, mark, _ = path.read_text(encoding="utf-8").partition(MARK)
    assert mark, f"{path} has no mark"
    rows, lines = [combination_rows(model) for model in vaezoo.list_models()], []
    for kind in PARTS:
        lines += ["", f"## {kind}s".replace("ys", "ies"), ""]
        lines += ["| model | fits | does not fit |", "| --- | --- | --- |"]
        lines += [row[kind] for row in rows]
    return path, by_hand + MARK + "\n".join(lines) + "\n"


def pages() -> dict[Path, str]:
    """The whole content of each page: what stands above the mark stays."""
    written: dict[str, Callable[[], str]] = {
        "api.md": api,
        "command_line.md": command_line,
        "metrics.md": metrics,
    }
    contents = {}
    for name, write in written.items():
        path = DOCS / name
        by_hand, mark, _ = path.read_text(encoding="utf-8").partition(MARK)
        assert mark, f"{path} has no mark"
        contents[path] = by_hand + MARK + "\n" + write()
    return contents


def _help(path: str, command: click.Command) -> str:
    context = click.Context(
        command,
        info_name=path,
        max_content_width=WIDTH,
        terminal_width=WIDTH,
        help_option_names=["-h", "--help"],
        show_default=True,
    )
    text = re.sub(r"[ \t]+$", "", command.get_help(context), flags=re.M)
    return f"## `{path}`\n\n```\n{text}\n```\n"


def _entry(name: str, found: Any) -> Iterator[str]:
    if inspect.isclass(found):
        yield f"- **`{name}{_built_from(found)}`** {_what(found)}"
        yield from (f"  - {line}" for line in _members(found))
    elif typing.get_origin(found) is typing.Literal:
        yield f"- **`{name}`** One of {', '.join(f'`{value}`' for value in typing.get_args(found))}"
    elif typing.get_origin(found) is not None:
        yield f"- **`{name}`** A type: `{typing.get_origin(found)}`"
    elif callable(found):
        yield f"- **`{name}{_signature(found)}`** {_what(found)}"
    elif isinstance(found, Mapping):
        yield f"- **`{name}`** {', '.join(f'`{key}`: {value}' for key, value in found.items())}"
    else:
        yield f"- **`{name} = {found!r}`**"


def _built_from(cls: type) -> str:
    if issubclass(cls, BaseModel):
        return f"({', '.join(cls.model_fields)})"
    if issubclass(cls, Exception):
        return ""
    if cls.__init__ in (object.__init__, nn.Module.__init__) and not hasattr(cls, "_fields"):
        return "()"
    return _signature(cls, returns=False)


def _members(cls: type) -> Iterator[str]:
    """Methods, properties and class attributes that it defines itself."""
    fields = {f.name for f in dataclasses.fields(cls)} if dataclasses.is_dataclass(cls) else set()
    fields |= {*getattr(cls, "_fields", ()), "model_config", "kind", "arg_constraints"}
    told = {} if issubclass(cls, BaseModel) else inspect.get_annotations(cls)
    for name, annotation in told.items():
        if name not in fields and name not in vars(cls) and not name.startswith("_"):
            yield f"`{name}: {annotation}`"
    for name, found in vars(cls).items():
        if name.startswith("_") or name in fields:
            continue
        plain = found.__func__ if isinstance(found, classmethod) else found
        if isinstance(plain, property):
            yield f"`{name}` {_what(plain)}".rstrip()
        elif inspect.isfunction(inspect.unwrap(plain) if callable(plain) else plain):
            must = "(abstract) " if name in getattr(cls, "__abstractmethods__", ()) else ""
            yield f"`{name}{_signature(plain)}` {must}{_what(plain)}".rstrip()
        elif isinstance(plain, (bool, int, str, dict)):
            yield f"`{name} = {plain!r}`"


def _signature(found: Any, returns: bool = True) -> str:
    """As it is written: annotations are text here."""
    signature = inspect.signature(found)
    words: list[str] = []
    for parameter in signature.parameters.values():
        if parameter.name in ("self", "cls"):
            continue
        if parameter.kind is parameter.KEYWORD_ONLY and "*" not in words:
            words.append("*")
        stars = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
        words.append(stars + parameter.name + _annotation(": ", parameter.annotation))
        if parameter.default is not parameter.empty:
            default = repr(parameter.default)
            words[-1] += " = " + ("..." if default.startswith("<") else default)
    result = _annotation(" -> ", signature.return_annotation) if returns else ""
    return f"({', '.join(words)}){result}"


def _annotation(before: str, found: Any) -> str:
    if found is inspect.Signature.empty:
        return ""
    text = getattr(found, "__forward_arg__", found)
    return before + (text if isinstance(text, str) else getattr(text, "__name__", str(text)))


def _what(found: Any) -> str:
    """The first paragraph of a docstring, on one line."""
    paragraph = inspect.cleandoc(found.__doc__ or "").partition("\n\n")[0]
    return " ".join(paragraph.split())


if __name__ == "__main__":
    for page, content in [*pages().items(), combinations_page()]:
        page.write_text(content, encoding="utf-8")
