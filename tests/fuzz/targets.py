"""Every kind of file that vaezoo reads: sound ones to begin with, and how it is read.

A target reads a file of any content. VaezooError is how it refuses; any other exception is a fault
of ours. What is packed (gzip, zip, the chunks of a PNG) can be changed inside its packing, where no
checksum stops it.
"""

from __future__ import annotations

import gzip
import io
import json
import struct
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from safetensors.torch import save

from vaezoo.bench.report import compare, describe_environment, load_json, table_cells
from vaezoo.checkpoint.folder import RunFolder
from vaezoo.checkpoint.format import load_into, load_weights
from vaezoo.config import build_config, load_config, parse_settings, resolve_components
from vaezoo.data.decode import decode_image, is_grey
from vaezoo.data.options import DecodeOptions
from vaezoo.data.spec import DataSpec
from vaezoo.errors import VaezooError
from vaezoo.evaluation.plots import save_curves
from vaezoo.runs.build import build_model
from vaezoo.runs.run import Run
from vaezoo_files import cache as image_cache
from vaezoo_files.celeba import read_partition, split_by_partition
from vaezoo_files.npz import NpzDataset
from vaezoo_files.options import NpzOptions
from vaezoo_files.torchvision_sets import read_idx


@dataclass(frozen=True)
class Packing:
    """How to get at what a file packs, and to pack it again. `unpack` may raise anything."""

    unpack: Callable[[bytes], bytes]
    pack: Callable[[bytes], bytes]


@dataclass(frozen=True)
class Target:
    """read: takes a file in a folder of its own. name: the file's."""

    name: str
    seeds: Callable[[], list[bytes]]
    read: Callable[[Path], object]
    packing: Packing | None = None


def _array(kind: type = np.uint8, *shape: int) -> Any:
    return (np.arange(np.prod(shape)) % 251).astype(kind).reshape(shape)


def _npz(**arrays: Any) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def _npy(values: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


def _zip(member: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", member)
    return file.getvalue()


def _unzip(content: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return archive.read(archive.infolist()[0])


def _read_npz(path: Path) -> object:
    return NpzDataset(NpzOptions(root=path)).load().record()


def _idx(values: Any, code: int) -> bytes:
    return (
        struct.pack(f">HBB{values.ndim}I", 0, code, values.ndim, *values.shape) + values.tobytes()
    )


def _read_idx(path: Path) -> object:
    from torchvision.datasets.mnist import read_image_file

    return read_idx(path, read_image_file)


@cache
def _scratch() -> str:
    import tempfile

    return tempfile.mkdtemp(prefix="vaezoo-fuzz-")


def _picture(form: str, mode: str = "RGB", **how: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(_array(np.uint8, 16, 12, 3)).convert(mode).save(file, form, **how)
    return file.getvalue()


def _read_picture(path: Path) -> object:
    options = DecodeOptions(max_megapixels=4)
    return decode_image(path, (3, 8, 8), options), is_grey(path, options)


def _reseal(content: bytes) -> bytes:
    """A PNG with the checksums that its chunks should have."""
    result, place = bytearray(content[:8]), 8
    while place + 12 <= len(content):
        size = int.from_bytes(content[place : place + 4], "big")
        body = content[place + 4 : place + 8 + size]
        result += content[place : place + 4] + body + struct.pack(">I", zlib.crc32(body))
        place += 12 + size
    return bytes(result)


GIVEN = b"""# a config file
model:
  name: vanilla
network: {name: conv, hidden: [8, 8]}
bottleneck:
  name: gaussian
  latent_dim: 4
  logvar_range: [-20.0, 20.0]
likelihood: {name: gaussian, scale: 0.5}
loss: {name: elbo, beta: 2.5, warmup: 0.1}
data:
  name: folder
  root: "~/some where"
  image_size: 96x64
  augment: [flip]
train:
  steps: 10
  lr: 1e-3
  grad_clip: null
  seed: 0
"""

RECORD = {
    "format": 3,
    "model": {"name": "vanilla", "plugin": "vanilla", "distribution": "vaezoo", "version": "0"},
    "loss": {"name": "elbo", "plugin": "vanilla", "distribution": "vaezoo", "version": "0"},
    "data": {
        **{"name": "sprites", "plugin": "sprites", "distribution": "vaezoo", "version": "0"},
        "spec": {"shape": [1, 16, 16], "domain": "unit", "class_names": ["a"], "num_examples": 64},
        "splits": {"train": 64, "validation": 16, "test": 16},
        **{"description": "at random", "fingerprint": "0", "skipped": [], "factor_names": []},
    },
    "versions": {},
}
CONFIG = """model: {name: vanilla}
network: {name: conv, hidden: [8, 8]}
bottleneck: {name: gaussian, latent_dim: 3}
loss: {name: elbo}
data: {name: sprites, image_size: 16, examples: 80, test: 16}
train: {steps: 4, device: cpu}
"""
METRICS = b"""{"kind": "train", "step": 20, "epoch": 1, "terms": {"elbo": -3.5, "rate": 1}}
{"kind": "validation", "step": 40, "epoch": 1, "terms": {"elbo": null}, "bits_per_dim": null}
"""
REPORT = {
    "environment": {
        **{"device": "cpu", "versions": {"torch": "2"}, "copy_bytes_per_second": 1e9},
        "gemm_flops_per_second": {"fp32": 1e9},
    },
    "rows": [
        {
            **{"model": "vanilla", "mode": "train", "batch_size": 64, "precision": "fp32"},
            **{"compile": "off", "images_per_second": 10.0, "status": "ok", "reason": ""},
            **{"images_per_second_windows": [9.0, 11.0], "latency_ms": {"p50": 1.0, "p99": 2.0}},
            **{"gemm_share": 0.1, "peak_share": None, "bound_by": "", "peak_memory_bytes": 1},
            **{"end_to_end": False, "shape": [1, 8, 8]},
        }
    ],
}


def _read_config(path: Path) -> object:
    config = load_config(path)
    return build_config(resolve_components({}, config), config, {}).to_yaml()


def _read_setting(path: Path) -> object:
    text = path.read_bytes().decode("utf-8", "surrogateescape")
    components = resolve_components({"model": "vanilla"}, {})
    return build_config(components, {}, parse_settings([text])).to_yaml()


def _read_record(path: Path) -> object:
    (path.parent / "config.yaml").write_text(CONFIG)
    return Run(path.parent, "cpu").data_spec


def _read_run_config(path: Path) -> object:
    (path.parent / "run.json").write_text(json.dumps(RECORD))
    return Run(path.parent, "cpu").config


def _read_metrics(path: Path) -> object:
    return save_curves(path.with_name("curves.png"), RunFolder(path.parent).read_metrics())


@cache
def _model() -> Any:
    components = resolve_components({"model": "vanilla"}, {})
    config = build_config(
        components, {}, {"bottleneck": {"latent_dim": 2}, "network": {"hidden": [4]}}
    )
    return build_model(config, DataSpec(shape=(1, 8, 8)))


def _read_weights(path: Path) -> object:
    return load_into(_model(), load_weights(path), path)


def _read_cached(path: Path) -> object:
    """Read an entry of the cache, one of whose two files has this content."""
    if path.suffix == ".npy":
        path.with_suffix(".json").write_bytes(_cached("json"))
    else:
        path.with_suffix(".npy").write_bytes(_cached("npy"))
        # Sealed again, or a checksum would stop every change.
        with suppress(ValueError, AttributeError, KeyError):
            about = json.loads(path.read_bytes())
            about.pop("checksum")
            path.write_text(json.dumps({**about, "checksum": image_cache.checksum(about)}))
    return image_cache.read_entry(path.with_suffix(".npy"), (1, 4, 4))


def _cached(suffix: str) -> bytes:
    folder = Path(_scratch())
    path = folder / f"seed.{suffix}"
    if not path.exists():
        image_cache.write_entry(folder / "seed.npy", (1, 4, 4), 3, _build)
    return path.read_bytes()


def _build(append: Callable[[Any], None]) -> dict[str, Any]:
    append(_array(np.uint8, 3, 1, 4, 4))
    return {"unreadable": []}


def _read_report(path: Path) -> object:
    report = load_json(path)
    shown = [table_cells(row) for row in report["rows"]]
    compared = compare(report["rows"], report["rows"])
    return shown, describe_environment(report["environment"]), compared


TARGETS = {
    "config file": Target("given.yaml", lambda: [GIVEN, CONFIG.encode()], _read_config),
    "setting": Target("set", lambda: [b"loss.beta=2", b"network.hidden=[8, 8]"], _read_setting),
    "run config": Target("config.yaml", lambda: [CONFIG.encode()], _read_run_config),
    "run.json": Target("run.json", lambda: [json.dumps(RECORD).encode()], _read_record),
    "metrics.jsonl": Target("metrics.jsonl", lambda: [METRICS], _read_metrics),
    "safetensors": Target("w.safetensors", lambda: [save(_model().state_dict())], _read_weights),
    "npz": Target(
        "a.npz",
        lambda: [
            _npz(x=_array(np.uint8, 6, 8, 8), y=np.arange(6)),
            _npz(x_train=_array(np.float32, 4, 5), x_test=_array(np.float32, 2, 5)),
            _zip(_npy(_array(np.uint8, 4, 8, 8, 3))),
        ],
        _read_npz,
        Packing(_unzip, _zip),
    ),
    "idx": Target(
        "a-idx3-ubyte",
        lambda: [_idx(_array(np.uint8, 3, 4, 4), 8)],
        _read_idx,
    ),
    "idx.gz": Target(
        "a-idx3-ubyte.gz",
        lambda: [gzip.compress(_idx(_array(np.uint8, 3, 4, 4), 8))],
        _read_idx,
        Packing(gzip.decompress, partial(gzip.compress, compresslevel=1)),
    ),
    "celeba list": Target(
        "list_eval_partition.txt",
        lambda: [b"image_id,partition\n000001.jpg,0\n000002.jpg,1\n000003.jpg,2\n"],
        lambda path: split_by_partition(path, read_partition(path)),
    ),
    "png": Target(
        "a.png",
        lambda: [_picture("PNG"), _picture("PNG", "P"), _picture("PNG", "LA")],
        _read_picture,
        Packing(lambda content: content, _reseal),
    ),
    "jpeg": Target(
        "a.jpg", lambda: [_picture("JPEG"), _picture("JPEG", progressive=True)], _read_picture
    ),
    "gif": Target("a.gif", lambda: [_picture("GIF", "P")], _read_picture),
    "webp": Target(
        "a.webp", lambda: [_picture("WEBP"), _picture("WEBP", lossless=True)], _read_picture
    ),
    "bmp": Target("a.bmp", lambda: [_picture("BMP"), _picture("BMP", "1")], _read_picture),
    "tiff": Target(
        "a.tif",
        lambda: [_picture("TIFF"), _picture("TIFF", compression="tiff_lzw")],
        _read_picture,
    ),
    "cached images": Target("seed.npy", lambda: [_cached("npy")], _read_cached),
    "cached info": Target("seed.json", lambda: [_cached("json")], _read_cached),
    "bench report": Target("report.json", lambda: [json.dumps(REPORT).encode()], _read_report),
}


def read(target: Target, folder: Path, content: bytes) -> str:
    """Read a file of this content; why it was refused, "" when it was not.

    AssertionError when it was refused in more than a line, or a very long one.
    """
    path = folder / target.name
    path.write_bytes(content)
    said = ""
    try:
        target.read(path)
    except VaezooError as error:
        said = str(error) or "for no reason"
    assert "\n" not in said, said
    assert len(said) < 2000, said
    return said


@contextmanager
def limited_memory(more: int) -> Iterator[None]:
    """Inside, this process gets so many bytes more than it has. Linux alone can say so."""
    if sys.platform != "linux":
        yield
        return
    import resource

    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + more, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
