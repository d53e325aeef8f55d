"""Folders that are damaged, foreign or hostile: one line, exit code 2, and nothing is left."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from commands import refused
from diffusers_folders import KL_CONFIG, kl_tensors, write_folder
from vaezoo_diffusers.names import CONFIG, WEIGHTS

Change = Callable[[Path], object]
INDEX = f"{WEIGHTS}.index.json"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("original") / "kl")


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    made = tmp_path / "kl"
    made.mkdir()
    for path in original.iterdir():
        (made / path.name).write_bytes(path.read_bytes())
    return made


def fields(**changes: Any) -> Change:
    """Other fields in config.json; without those whose value is `...`."""
    values = {k: v for k, v in {**KL_CONFIG, **changes}.items() if v is not ...}
    return lambda folder: (folder / CONFIG).write_text(json.dumps(values))


def without(name: str) -> Change:
    def change(folder: Path) -> None:
        tensors = load_file(folder / WEIGHTS)
        del tensors[name]
        save_file(tensors, folder / WEIGHTS)

    return change


def tensor(name: str, value: torch.Tensor) -> Change:
    return lambda folder: save_file({**load_file(folder / WEIGHTS), name: value}, folder / WEIGHTS)


def shards(weight_map: Any, file: str = "a.safetensors") -> Change:
    """The weights in one shard, and an index that says this."""

    def change(folder: Path) -> None:
        names = load_file(folder / WEIGHTS)
        (folder / WEIGHTS).rename(folder / file)
        found = weight_map(names) if callable(weight_map) else weight_map
        (folder / INDEX).write_text(json.dumps({"weight_map": found}))

    return change


def cut(folder: Path) -> None:
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(content[: len(content) // 2])


def pickled(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    torch.save(kl_tensors(), folder / "diffusion_pytorch_model.bin")


def pipe(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    os.mkfifo(folder / WEIGHTS)


VQ = {"_class_name": "VQModel", "shift_factor": ...}

CASES: dict[str, tuple[Change, str]] = {
    "config is missing": (lambda f: (f / CONFIG).unlink(), "has no config.json, and no folder vae"),
    "config is no JSON": (lambda f: (f / CONFIG).write_text("{"), "it is not JSON"),
    "config is a list": (lambda f: (f / CONFIG).write_text("[]"), "does not hold an object"),
    "no class": (fields(_class_name=None), "is of the class None, which is none of AutoencoderKL"),
    "another class": (fields(_class_name="UNet2DModel"), "is of the class 'UNet2DModel'"),
    "an unknown field": (
        fields(temporal_compression=4),
        "temporal_compression: this field is unknown, and may change what the model computes",
    ),
    "another activation": (fields(act_fn="relu"), "act_fn: "),
    "another block": (fields(down_block_types=["ResnetBlock"] * 2), "down_block_types.0: "),
    "blocks of other levels": (fields(up_block_types=["UpDecoderBlock2D"]), "1 up_block_types"),
    "attention in one half": (
        fields(down_block_types=["DownEncoderBlock2D", "AttnDownEncoderBlock2D"]),
        "up_block_types have attention at other levels",
    ),
    "other channels out": (fields(out_channels=4), "out_channels 4 differ from in_channels 3"),
    "groups that do not fit": (fields(norm_num_groups=5), "norm_num_groups 5 do not divide 8"),
    "a number that is text": (fields(latent_channels="3"), "latent_channels: "),
    "NaN": (lambda f: (f / CONFIG).write_text('{"scaling_factor": NaN}'), "it is not JSON"),
    "no levels": (
        fields(block_out_channels=[], down_block_types=[], up_block_types=[]),
        "block_out_channels: ",
    ),
    "very many levels": (fields(block_out_channels=[4] * 10**5), "block_out_channels: "),
    "huge widths": (
        fields(block_out_channels=[2**30] * 2),
        "of these sizes does not fit in memory",
    ),
    "wide": (
        fields(block_out_channels=[2**9, 2**10]),
        "decoder.conv_in.bias is (16,), not (1024,)",
    ),
    "a huge image": (fields(sample_size=2**30), "a size must be between 1 and 4096 pixels"),
    "an uneven image": (fields(sample_size=9), "multiples of 2, and the data is images of 3×9×9"),
    "four channels": (fields(in_channels=4, out_channels=4), "images of 4 channels, which image"),
    "codes of no size": (fields(**VQ, vq_embed_dim=0), "vq_embed_dim: "),
    "another kind of norm": (fields(**VQ, norm_type="spatial"), "norm_type: "),
    "very many codes": (
        fields(**VQ, num_vq_embeddings=2**24),
        "num_vq_embeddings: Input should be less than or equal to 1048576",
    ),
    "weights are missing": (lambda f: (f / WEIGHTS).unlink(), f"has no {WEIGHTS}"),
    "weights are cut": (cut, "is damaged"),
    "weights are empty": (lambda f: (f / WEIGHTS).write_bytes(b""), "is damaged"),
    "weights are a pipe": (pipe, "it is not a regular file"),
    "a pickle": (pickled, "diffusion_pytorch_model.bin is a pickle, and reading one can run any"),
    "two sets of weights": (
        lambda f: (f / INDEX).write_text("{}"),
        f"has weights in {WEIGHTS} and in {INDEX}",
    ),
    "a tensor is missing": (without("quant_conv.bias"), "quant_conv.bias is missing"),
    "a tensor too many": (tensor("post.x", torch.zeros(1)), "post.x is unknown"),
    "another shape": (
        tensor("encoder.conv_in.weight", torch.zeros(8, 3, 1, 1)),
        "encoder.conv_in.weight is (8, 3, 1, 1), not (8, 3, 3, 3)",
    ),
    "NaN in the weights": (
        tensor("quant_conv.bias", torch.full((6,), torch.nan)),
        "'quant_conv.bias' has values that are not finite",
    ),
    "whole numbers": (
        tensor("quant_conv.bias", torch.zeros(6, dtype=torch.int8)),
        "'quant_conv.bias' is torch.int8, not one of float32",
    ),
    "an index without a map": (shards([]), "it has no weight_map"),
    "a file of another folder": (
        shards(dict.fromkeys(["a"], "../kl/a.safetensors")),
        "names '../kl/a.safetensors', which is no file of this folder",
    ),
    "a file by its full path": (shards({"a": "/etc/passwd"}), "is no file of this folder"),
    "a file of a folder below": (shards({"a": "x/a.safetensors"}), "is no file of this folder"),
    "a file that is no text": (shards({"a": 3}), "names 3, which is no file of this folder"),
    "a shard is missing": (shards({"a": "b.safetensors"}), "b.safetensors is missing"),
    "a shard with more": (shards({"a": "a.safetensors"}), "which diffusion_pytorch_model"),
    "a shard with less": (
        shards(lambda names: dict.fromkeys([*names, "more"], "a.safetensors")),
        "names 'more', which no file holds",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_wrong_is_one_line(
    name: str, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    change, message = CASES[name]
    change(folder)
    assert message in refused(capsys, "import", folder, "-o", "run")
    assert [path.name for path in folder.parent.iterdir()] == ["kl"]


def test_what_is_wrong_with_the_line(
    folder: Path, in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("none", "n" * 300):
        assert f"there is no folder {name}" in refused(capsys, "import", name, "-o", "run")
    said = refused(capsys, "import", folder, "-o", "run", "--data", "sprites")
    assert "images of 3 channels, and the data is images of 1×8×8" in said
    said = refused(capsys, "import", folder, "-o", "run", "--set", "network.hidden=8")
    assert "--set network...: it is for the data only" in said
    taken = in_tmp / "taken"
    taken.mkdir()
    (taken / "file").touch()
    assert "taken exists already: give another -o" in refused(
        capsys, "import", folder, "-o", "taken"
    )
    assert {path.name for path in in_tmp.iterdir()} <= {"kl", "taken"}
