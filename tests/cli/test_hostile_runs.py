"""Damaged or hostile run folders and config files: exit code 2 and one line."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from commands import refused as refused_in_one_line
from vaezoo.cli.main import main
from vaezoo.plugins.sources import import_file

FUZZ = Path(__file__).parents[1] / "fuzz"
limited = import_file(str(FUZZ / "fuzz.py")).limited
limited_memory = import_file(str(FUZZ / "targets.py")).limited_memory

TRAIN = [
    *("train", "vanilla", "--examples", "80", "--test", "16", "--image-size", "16"),
    *("--hidden", "8,8", "--latent-dim", "3", "--steps", "4", "--batch-size", "16"),
    *("--device", "cpu", "--log-every", "2"),
]
Change = Callable[[Path], object]


@pytest.fixture(scope="module")
def genuine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "genuine"
    assert main([*TRAIN, "--out", str(out)]) == 0
    return out


@pytest.fixture
def run(genuine: Path, in_tmp: Path) -> Path:
    shutil.copytree(genuine, in_tmp / "run")
    return in_tmp / "run"


@pytest.fixture(autouse=True)
def bounds() -> Iterator[None]:
    with limited(60), limited_memory(3 << 30):
        yield


def refused(capsys: pytest.CaptureFixture[str], *args: object) -> str:
    error = refused_in_one_line(capsys, *args)
    assert len(error) < 1500
    assert "Traceback" not in error
    return error


def commands(run: Path) -> dict[str, list[str]]:
    return {
        "evaluate": ["evaluate", str(run)],
        "sample": ["sample", str(run), "-n", "2", "-o", "s.png", "--overwrite"],
        "resume": ["train", "--resume", str(run), "--steps", "6"],
    }


def text(name: str, content: str | bytes) -> Change:
    content = content if isinstance(content, bytes) else content.encode()
    return lambda run: (run / name).write_bytes(content)


def config(section: str, **values: Any) -> Change:
    def change(run: Path) -> None:
        whole = yaml.safe_load((run / "config.yaml").read_text())
        whole[section] |= values
        (run / "config.yaml").write_text(yaml.safe_dump(whole))

    return change


def record(*path: str, to: Any) -> Change:
    def change(run: Path) -> None:
        whole = json.loads((run / "run.json").read_text())
        inner = whole
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = to
        (run / "run.json").write_text(json.dumps(whole))

    return change


def model_of(origin: object) -> Change:
    """A run of a model that is not registered. origin: its entry in run.json."""
    named = {"name": "evil", **origin} if isinstance(origin, dict) else origin

    def change(run: Path) -> None:
        record("model", to=named)(run)
        config("model", name="evil")(run)

    return change


def weights(name: str, to: torch.Tensor | None) -> Change:
    def change(run: Path) -> None:
        state = load_file(run / "model.safetensors")
        if to is None:
            del state[name]
        else:
            state[name] = to
        save_file(state, run / "model.safetensors")

    return change


def link(name: str, target: str) -> Change:
    def change(run: Path) -> None:
        (run / name).unlink()
        (run / name).symlink_to(target)

    return change


def pipe(name: str) -> Change:
    def change(run: Path) -> None:
        (run / name).unlink()
        os.mkfifo(run / name)

    return change


def checkpoint(change: Callable[[dict[str, Any], dict[str, torch.Tensor]], object]) -> Change:
    """Change the state and the optimizer's tensors of the newest checkpoint, with sums that fit."""

    def changed(run: Path) -> None:
        folder = max((run / "checkpoint").glob("step-*"))
        state = json.loads((folder / "state.json").read_text())
        tensors = load_file(folder / "optimizers.safetensors")
        change(state, tensors)
        (folder / "state.json").write_text(json.dumps(state))
        save_file(tensors, folder / "optimizers.safetensors")
        sums = [
            f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n"
            for path in sorted(folder.iterdir())
            if path.name != "SHA256SUMS"
        ]
        (folder / "SHA256SUMS").write_text("".join(sums))
        for other in (run / "checkpoint").glob("step-*"):
            if other != folder:
                shutil.rmtree(other)

    return changed


def state(**values: Any) -> Change:
    return checkpoint(lambda state, tensors: state.update(values))


def progress(**values: Any) -> Change:
    return checkpoint(lambda state, tensors: state["progress"].update(values))


def claims(size: int) -> bytes:
    """A safetensors file of 100 bytes with a tensor of so many."""
    head = json.dumps({"x": {"dtype": "F32", "shape": [size // 4], "data_offsets": [0, size]}})
    return len(head).to_bytes(8, "little") + head.encode() + b"\0" * 16


LAUGHS = "a: &a [x, x]\n" + "".join(f"b{i}: &b [*a, *a, *a, *a]\n" for i in range(40))
EVERY = ("evaluate", "sample", "resume")

CASES: dict[str, tuple[Change, tuple[str, ...], str]] = {
    # config.yaml
    "no YAML": (text("config.yaml", "model: ["), EVERY, "is not YAML, line 1"),
    "a tag": (text("config.yaml", "model: !!python/name:os.system"), EVERY, "tags are not read"),
    "laughs": (text("config.yaml", LAUGHS), EVERY, "aliases are not read"),
    "deep": (text("config.yaml", "[" * 20000), EVERY, "is nested too deeply"),
    "large": (text("config.yaml", "#" * 10**6), EVERY, "is too large"),
    "no text": (text("config.yaml", b"model: {name: \xff}"), EVERY, "is not YAML in UTF-8"),
    "nothing": (text("config.yaml", ""), EVERY, "say which model"),
    "a number": (config("train", lr=10**400), EVERY, "--lr: should be"),
    "hex": (
        text("config.yaml", f"model: {{name: vanilla}}\ntrain: {{lr: 0x{'f' * 9000}}}"),
        EVERY,
        "--lr: should be a valid number",
    ),
    "a file": (config("model", name="./evil.py:Evil"), EVERY, "cannot name a file to run"),
    "a module": (config("loss", name="os.path:join"), EVERY, "cannot name a file to run"),
    "unknown": (config("model", name="evil"), EVERY, "there is no model 'evil'"),
    "wide": (config("bottleneck", latent_dim=10**12), EVERY, "does not fit"),
    "wider": (config("bottleneck", latent_dim=2**62), EVERY, "does not fit"),
    "hidden": (config("network", hidden=[10**9]), EVERY, "does not fit"),
    "many": (config("network", hidden=[8] * 1001), EVERY, "more than 1,000 values in one place"),
    "wide for its weights": (
        config("bottleneck", latent_dim=10**6),
        ("evaluate", "sample"),
        "does not fit the model",
    ),
    "home": (config("data", name="folder", root="~nobody-here/x"), EVERY, "root"),
    "NUL": (
        text("config.yaml", '{model: {name: vanilla}, data: {name: folder, root: "a\\0b"}}'),
        EVERY,
        "characters that are no text",
    ),
    "elsewhere": (
        text("config.yaml", "model: {name: vanilla}\ndata: {name: folder, root: /proc/self}"),
        ("evaluate", "resume"),
        "",
    ),
    "log window": (config("train", log_every=10**12), EVERY, "--log-every"),
    # run.json
    "no JSON": (text("run.json", "{"), EVERY, "run.json is damaged"),
    "a list": (text("run.json", "[]"), EVERY, "does not hold an object"),
    "deep JSON": (text("run.json", '{"a":' + "[" * 10**5), EVERY, "run.json is damaged"),
    "NaN": (text("run.json", '{"a": NaN}'), EVERY, "run.json is damaged"),
    "digits": (text("run.json", '{"a": ' + "9" * 5000 + "}"), EVERY, "run.json is damaged"),
    "no data": (text("run.json", '{"format": 3}'), EVERY, ""),
    "no format": (text("run.json", "{}"), EVERY, "(run format 1; this version reads 3)"),
    "a later format": (record("format", to=4), EVERY, "a later version of vaezoo"),
    "a format of lists": (record("format", to=[2]), EVERY, "(run format [2]; this"),
    "data is a list": (record("data", to=[]), EVERY, ""),
    "spec is text": (record("data", "spec", to="x"), ("evaluate", "sample"), "run.json"),
    "huge": (
        record("data", "spec", "shape", to=[1, 10**9, 10**9]),
        ("evaluate", "sample"),
        "an example of it has no values, or more than",
    ),
    "floats": (record("data", "spec", "shape", to=[1.5, 16, 16]), ("sample",), "whole numbers"),
    "infinite": (record("data", "spec", "shape", to=[1, 1e999, 2]), ("sample",), "run.json"),
    "negative": (record("data", "spec", "shape", to=[-1, -16, 16]), ("sample",), "run.json"),
    "true": (record("data", "spec", "shape", to=[True, 16, 16]), ("sample",), "whole numbers"),
    "domain": (record("data", "spec", "domain", to="x"), ("sample",), "domain is unknown"),
    "class_names": (
        record("data", "spec", "class_names", to=[1]),
        ("sample",),
        "not a list of names",
    ),
    "another shape": (record("data", "spec", "shape", to=[3, 8, 8]), ("sample",), "does not fit"),
    "another data": (record("data", "fingerprint", to="x"), ("evaluate", "resume"), "has changed"),
    "model is text": (
        model_of("x"),
        EVERY,
        "there is no model 'evil'",
    ),
    "another plugin": (
        model_of({"plugin": "/tmp/x y.py", "distribution": ""}),
        EVERY,
        "of plugin '/tmp/x y.py', which is not installed: if you trust it, name it again",
    ),
    "plugin of another form": (
        model_of({"plugin": ["x"], "distribution": 3}),
        EVERY,
        "which is not installed",
    ),
    "escapes": (
        model_of({"plugin": "x", "distribution": "\x1b[2Jy"}),
        EVERY,
        "install �[2Jy",
    ),
    # model.safetensors
    "no weights": (text("model.safetensors", b""), ("evaluate", "sample"), "is damaged"),
    "a terabyte": (text("model.safetensors", claims(10**12)), ("sample",), "is damaged"),
    "a head of a terabyte": (
        text("model.safetensors", (10**12).to_bytes(8, "little") + b"{}"),
        ("sample",),
        "is damaged",
    ),
    "a shape": (weights("encoder.1.bias", torch.ones(7)), ("sample",), "encoder.1.bias is (7,)"),
    "an unknown name": (weights("evil", torch.ones(7)), ("sample",), "evil is unknown"),
    "a gap": (weights("encoder.1.bias", None), ("sample",), "encoder.1.bias is missing"),
    "no numbers": (
        weights("encoder.1.bias", torch.full((6,), torch.nan)),
        ("evaluate", "sample"),
        "encoder.1.bias",
    ),
    "complex": (
        weights("encoder.1.bias", torch.ones(6, dtype=torch.complex64)),
        ("evaluate", "sample"),
        "encoder.1.bias",
    ),
    # what is no file
    "pipe for the record": (pipe("run.json"), EVERY, "not a regular file"),
    "pipe for the weights": (pipe("model.safetensors"), ("sample",), "not a regular file"),
    "pipe for the metrics": (pipe("metrics.jsonl"), ("resume",), "metrics.jsonl"),
    "pipe for the config": (pipe("config.yaml"), EVERY, "is not a run folder"),
    "device for the record": (link("run.json", "/dev/zero"), EVERY, "not a regular file"),
    "device for the weights": (link("model.safetensors", "/dev/zero"), ("sample",), "regular file"),
    "loop": (link("run.json", "run.json"), EVERY, "symbolic links"),
    # checkpoint
    "a step of text": (progress(step="x"), ("resume",), "progress.step in state.json"),
    "a step before the first": (progress(step=-5), ("resume",), "progress.step in state.json"),
    "endless seconds": (progress(wall_seconds=-1.0), ("resume",), "progress.wall_seconds in state"),
    "a count too many": (progress(evil=1), ("resume",), "does not fit the training"),
    "a state of lists": (state(progress=[]), ("resume",), "progress in state.json"),
    "fewer names": (state(metric_names=["x"]), ("resume",), "no values for its metric names"),
    "names of numbers": (state(metric_names=[1]), ("resume",), "metric_names.0 in state.json"),
    "metrics before the file": (
        state(metrics_bytes=-1),
        ("resume",),
        "metrics_bytes in state.json",
    ),
    "metrics of text": (state(metrics_bytes="x"), ("resume",), "metrics_bytes in state.json"),
    "metrics without end": (state(metrics_bytes=2**62), ("resume",), "is shorter than"),
    "best of nothing": (
        state(best={"score": 1, "epochs_since": 0}),
        ("resume",),
        "no best weights",
    ),
    "an older format": (state(version=1), ("resume",), "has checkpoint format 1, and this vaezoo"),
    "a score of digits": (state(score=10**400), ("resume",), "score"),
    "no moments": (
        checkpoint(lambda state, tensors: tensors.pop("0.0.exp_avg")),
        ("resume",),
        "state of an optimizer is not complete",
    ),
    "moments of another shape": (
        checkpoint(lambda state, tensors: tensors.update({"0.0.exp_avg": torch.ones(3)})),
        ("resume",),
        "does not fit the training",
    ),
    "moments of nothing": (
        checkpoint(
            lambda state, tensors: tensors.update(
                {f"7.0.{n}": torch.ones(()) for n in ("step", "exp_avg", "exp_avg_sq")}
            )
        ),
        ("resume",),
        "does not fit the training",
    ),
    # metrics.jsonl
    "metrics are none": (text("metrics.jsonl", "[]\n" * 999), ("resume",), "metrics.jsonl"),
    "metrics of another form": (
        text("metrics.jsonl", '{"kind": "train", "step": 1, "terms": [1]}\n' * 99),
        ("resume",),
        "metrics.jsonl",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_run_folders(run: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    change, which, said = CASES[name]
    change(run)
    for command in which:
        error = refused(capsys, *commands(run)[command])
        assert said in error, command
    assert not Path("s.png").exists()


RECIPES = [
    *("a tag", "laughs", "deep", "large", "no text", "nothing", "a number", "hex", "a file"),
    *("a module", "unknown", "wide", "wider", "hidden", "many", "home", "NUL", "log window"),
]
"""Those that are no matter of a whole folder."""


@pytest.mark.parametrize("name", RECIPES)
def test_recipes(run: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    change, _, said = CASES[name]
    change(run)
    error = refused(capsys, "train", "--config", run / "config.yaml", "--out", "new")
    assert said in error
    assert not Path("new").exists()


def test_a_run_of_an_earlier_version_is_refused(
    run: Path, capsys: pytest.CaptureFixture[str], documented: Callable[[str], list[str]]
) -> None:
    """Its run.json has no format, and other names of keys and options. The format is the reason."""
    content = json.loads((run / "run.json").read_text())
    assert {*content, "imported"} == {*documented("`run.json` of a run")}
    assert content.pop("format") == 3
    content["data"]["spec"]["classes"] = content["data"]["spec"].pop("class_names")
    (run / "run.json").write_text(json.dumps(content))
    config("model", old_option=1)(run)
    reason = "run was made by an earlier version of vaezoo (run format 1; this version reads 3)"
    for command in [*commands(run).values(), ["train", "--resume", str(run), "--old-option", "1"]]:
        assert refused(capsys, *command).endswith(f"{reason}: train it again\n")
    assert main(["report", str(run), "-o", "r.html"]) == 0
    assert reason in Path("r.html").read_text()


def test_a_genuine_run_passes(run: Path) -> None:
    for command in commands(run).values():
        assert main(command) == 0


def test_going_on_writes_nothing_outside(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run folder whose files are links to the user's own."""
    precious = Path("precious.txt")
    precious.write_text("x" * 10_000)
    (run / "metrics.jsonl").unlink()
    (run / "metrics.jsonl").symlink_to(precious.absolute())
    refused(capsys, *commands(run)["resume"])
    assert precious.read_text() == "x" * 10_000


def test_going_on_removes_nothing_outside(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run folder whose checkpoints are another run's."""
    shutil.move(run / "checkpoint", "theirs")
    (Path("theirs") / "step-000000001").mkdir()
    before = sorted(Path("theirs").rglob("*"))
    (run / "checkpoint").symlink_to(Path("theirs").absolute())
    assert "link" in refused(capsys, *commands(run)["resume"])
    assert sorted(Path("theirs").rglob("*")) == before


def test_reconstruct_refuses_what_is_no_image(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"\xff" * 100)
    os.mkfifo("b.png")
    for name in ("a.png", "b.png", "c.png", "."):
        assert name in refused(capsys, "reconstruct", run, name, "-o", "out.png")
    record("data", "spec", "shape", to=[5, 4, 4])(run)
    refused(capsys, "reconstruct", run, "a.png", "-o", "out.png")
