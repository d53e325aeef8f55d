"""Exported models answer as in PyTorch, whatever the size of the batch, or are not written."""

from __future__ import annotations

import json
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

import vaezoo
from commands import refused
from small_jobs import SMALL_JOB
from vaezoo import DataSpec, hookimpl
from vaezoo.cli.main import main
from vaezoo.errors import OptionError, RunError
from vaezoo.plugins.loader import PluginRecord
from vaezoo.plugins.registry import Registry
from vaezoo.runs.run import Run
from vaezoo_export import export as files
from vaezoo_export import formats
from vaezoo_export.export import PARTS, Part, example_inputs, make_graph
from vaezoo_export.formats import ExportFormat

TINY = {**SMALL_JOB, "test": 40}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return vaezoo.train("cvae", out=tmp_path_factory.mktemp("r") / "run", **TINY)


def small(name: str) -> vaezoo.BaseVAE:
    data = DataSpec(shape=(1, 16, 16), class_names=("a", "b", "c"), num_examples=100)
    return vaezoo.create_model(name, data=data).eval()


@pytest.mark.parametrize("name", [spec.name for spec in vaezoo.list_models()])
def test_the_graphs_say_what_the_model_says(name: str) -> None:
    model = small(name)
    with torch.no_grad():
        inputs = example_inputs(model, "decoder", 3)
        (x,) = make_graph(model, "decoder")(*inputs)
        torch.testing.assert_close(x, model.decode(*inputs).mean)
        x, *y = example_inputs(model, "encoder", 3)
        outputs = make_graph(model, "encoder")(x, *y)
        torch.testing.assert_close(model.decode(outputs[0], *y).mean, model.reconstruct(x, *y))


@pytest.mark.parametrize("part", PARTS)
def test_onnx_of_any_batch(run: Run, tmp_path: Path, part: Part) -> None:
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    path = tmp_path / "part.onnx"
    found = files.export_part(run, part, "onnx", path)
    assert found.difference < 1e-5
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert [entry.name for entry in session.get_inputs()] == [*found.inputs]
    first, y = example_inputs(run.model, part, 11)
    answer = session.run(None, dict(zip(found.inputs, (first.numpy(), y.numpy()), strict=True)))
    with torch.no_grad():
        wanted = make_graph(run.model, part)(first, y)
    for ours, theirs in zip(wanted, answer, strict=True):
        torch.testing.assert_close(ours, torch.from_numpy(theirs), atol=1e-5, rtol=1e-4)
    metadata = json.loads(session.get_modelmeta().custom_metadata_map["vaezoo"])
    assert metadata["model"] == "cvae"
    assert metadata["latent_shape"] == [4]


@pytest.mark.parametrize("part", PARTS)
def test_torch_export_of_any_batch(run: Run, tmp_path: Path, part: Part) -> None:
    path = tmp_path / "part.pt2"
    files.export_part(run, part, "torch-export", path)
    first, y = example_inputs(run.model, part, 11)
    with torch.no_grad():
        answer = torch.export.load(path).module()(first, y)
        torch.testing.assert_close(answer, make_graph(run.model, part)(first, y))


@pytest.mark.parametrize("format_", ["onnx", "torch-export"])
def test_a_file_names_no_source_file_of_this_machine(
    run: Run, tmp_path: Path, format_: files.Format
) -> None:
    if format_ == "onnx":
        pytest.importorskip("onnxscript")
    for part in PARTS:
        files.export_part(run, part, format_, tmp_path / part)
        content = (tmp_path / part).read_bytes()
        if format_ == "torch-export":
            with zipfile.ZipFile(tmp_path / part) as archive:
                content = b"".join(archive.read(name) for name in archive.namelist())
        for folder in (Path(vaezoo.__file__).parent, Path(torch.__file__).parent, tmp_path):
            assert str(folder).encode() not in content
        assert b".py" not in content


def test_the_batch_axis_is_open_where_weights_outweigh_maps() -> None:
    """The matrix product in place of a convolution depends on the batch's size, in eager mode."""
    model = vaezoo.create_model("vanilla", data=(1, 16, 16), hidden=(8, 16, 64, 256)).eval()
    for part in PARTS:
        program = files._program(make_graph(model, part), model, part)
        (first,) = example_inputs(model, part, 37)
        with torch.no_grad():
            torch.testing.assert_close(
                program.module()(first), make_graph(model, part)(first), atol=1e-5, rtol=1e-4
            )


@pytest.mark.parametrize("name", ["vq_vae", "fsq", "gumbel_vae"])
def test_codes_of_any_batch(name: str) -> None:
    model = small(name)
    program = files._program(make_graph(model, "encoder"), model, "encoder")
    (first,) = example_inputs(model, "encoder", 7)
    with torch.no_grad():
        torch.testing.assert_close(program.module()(first), make_graph(model, "encoder")(first))


def test_weights_alone_build_the_model_again(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    (found,) = files.export_weights(run, path)
    assert found.difference == 0
    with safe_open(path, framework="pt") as file:
        metadata = json.loads(file.metadata()["vaezoo"])
    assert metadata["data"]["shape"] == [1, 16, 16]
    assert "latent_dim: 4" in metadata["config"]


class Wrong(nn.Module):
    """A decoder that is off by a little, as a bad exporter's would be."""

    output_names = ("x",)

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, z: Tensor, y: Tensor | None = None) -> tuple[Tensor, ...]:
        return (self.inner(z, y)[0] + 1e-3,)


def test_what_differs_from_pytorch_is_not_kept(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = files._program
    monkeypatch.setattr(
        files,
        "_program",
        lambda graph, model, part: make(Wrong(graph), model, part),  # type: ignore[arg-type]
    )
    with pytest.raises(RunError, match=r"differs from PyTorch by 0\.001"):
        files.export_part(run, "decoder", "torch-export", tmp_path / "x.pt2")
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_exported_is_one_line(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def decode(z: Tensor, y: Tensor | None = None) -> Any:
        raise ValueError("too\nclever")

    monkeypatch.setattr(run.model, "decode", decode)
    with pytest.raises(RunError, match=r"decoder of this model cannot be exported .*too clever"):
        files.export_part(run, "decoder", "torch-export", tmp_path / "x.pt2")
    assert not list(tmp_path.iterdir())


def test_what_depends_on_values_is_one_line_too(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """torch prints the graph so far, hundreds of lines of it: not here."""
    decode = run.model.decode

    def torn(z: Tensor, y: Tensor | None = None) -> Any:
        return decode(z, y) if bool((z > 0).any()) else decode(-z, y)

    monkeypatch.setattr(run.model, "decode", torn)
    with pytest.raises(RunError, match=r"decoder of this model cannot be exported") as raised:
        files.export_part(run, "decoder", "torch-export", tmp_path / "x.pt2")
    assert "\n" not in str(raised.value)
    assert capfd.readouterr() == ("", "")


def test_the_command(
    run: Run,
    in_tmp: Path,
    capsys: pytest.CaptureFixture[str],
    documented: Callable[[str], list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = str(run.path)
    line = ["export", path, "-o", "m.pt2", "--json"]
    capsys.readouterr()
    assert main(line) == 0
    found = json.loads(capsys.readouterr().out)
    assert {*found} == {*documented("`vaezoo export RUN --json`")}
    assert found["format"] == "torch-export"
    assert {*found["files"][0]} == {*documented("A file that was exported")}
    assert [one["path"] for one in found["files"]] == ["m-encoder.pt2", "m-decoder.pt2"]
    assert found["files"][1]["inputs"] == {"z": ["batch", 4], "y": ["batch"]}
    assert "exists already" in refused(capsys, *line)
    said = refused(capsys, "export", path, "--format", "onnx", "-o", "m.pt2")
    assert "m.pt2: the ending is not that of --format onnx: give one of FILE.onnx (onnx)" in said
    assert "FILE.pt2 (torch-export)" in refused(capsys, "export", path, "-o", "m.model")
    assert "--out" in refused(capsys, "export", path)
    weights = ["export", path, "-o", "m.safetensors"]
    assert "both" in refused(capsys, *weights, "--part", "encoder")
    assert main(weights) == 0
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert "vaezoo[export]" in refused(capsys, "export", path, "-o", "m.onnx")


def plugin(name: str, register: Callable[..., None]) -> Registry:
    """A registry with one plugin, whose module has this hook."""
    module = ModuleType(name)
    vars(module)["register_export_formats"] = hookimpl(optionalhook=True)(register)
    sys.modules[name] = module
    return Registry([PluginRecord(name, name, "some", "1")])


@pytest.fixture
def folder_format(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Another plugin brings the format `toy`, a folder with one file."""
    one = ExportFormat(name="toy", ending="", target="toy_format:write", files=("toy.txt",))
    found = plugin("toy_format", lambda register: register(one))
    vars(sys.modules["toy_format"])["write"] = lambda run, path: []
    monkeypatch.setattr(formats, "registry", lambda: found)
    yield
    del sys.modules["toy_format"]


@pytest.mark.usefixtures("folder_format")
def test_another_plugin_brings_a_format(tmp_path: Path) -> None:
    assert [*formats.find_formats()] == ["onnx", "torch-export", "safetensors", "toy"]
    assert formats.choose_format("toy", tmp_path / "folder").load()(None, tmp_path) == []
    assert formats.choose_format(None, Path("x.PT2")).name == "torch-export"
    with pytest.raises(OptionError, match=r"x\.onnx: the ending is not that of --format toy"):
        formats.choose_format("toy", Path("x.onnx"))
    with pytest.raises(OptionError, match=r"folder: no such ending: give one of .*, DIR \(toy\)"):
        formats.choose_format(None, Path("folder"))


def test_a_plugin_that_brings_a_bad_format_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    one = ExportFormat(name="mine", ending=".onnx", target="a:b")
    for register, message in (
        (lambda register: register(one), r"plugin 'bad' .* mine \(FILE\.onnx\), which exists"),
        (lambda register: 1 / 0, r"plugin 'bad' cannot register .* division by zero"),
    ):
        found = plugin("bad", register)
        monkeypatch.setattr(formats, "registry", lambda found=found: found)
        with pytest.raises(OptionError, match=message):
            formats.find_formats()
    del sys.modules["bad"]


def test_a_folder_is_replaced_only_if_it_holds_nothing_else(tmp_path: Path) -> None:
    folder, names = tmp_path / "f", ("a", "b")
    formats.check_folder(folder, False, names)
    folder.mkdir()
    formats.check_folder(folder, False, names)
    (folder / "a").touch()
    with pytest.raises(RunError, match="exists already: give another name, or --overwrite"):
        formats.check_folder(folder, False, names)
    formats.check_folder(folder, True, names)
    (folder / "c").touch()
    with pytest.raises(RunError, match="is a folder with other files, as c"):
        formats.check_folder(folder, True, names)
    with pytest.raises(RunError, match="is no folder"):
        formats.check_folder(folder / "a", True, names)
    with pytest.raises(RunError, match="there is no folder"):
        formats.check_folder(tmp_path / "x" / "y", True, names)
