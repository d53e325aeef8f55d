"""The Python interface: arrays are taken as they come, and wrong arguments cost one line."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import vaezoo
from vaezoo import EncoderDecoderVAE, VaezooError
from vaezoo.cli.main import main
from vaezoo.errors import VaezooWarning, counted, python_names
from vaezoo.plugins.registry import registry
from vaezoo.runs.run import Run
from vaezoo.training.loggers import ProgressCallback
from vaezoo_maps.embedding import embed

TINY: dict[str, Any] = {
    **{"data": "sprites", "examples": 60, "test": 12, "image_size": 16, "hidden": (8, 8)},
    **{"batch_size": 16, "steps": 2, "device": "cpu"},
}
IMAGES = np.linspace(0, 1, 3 * 256).reshape(3, 1, 16, 16)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return vaezoo.train("vanilla", out=tmp_path_factory.mktemp("api") / "run", **TINY)


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return vaezoo.train("cvae", out=tmp_path_factory.mktemp("api") / "run", **TINY)


def test_arrays_and_tensors_are_reconstructed_alike(run: Run) -> None:
    expected = run.model.reconstruct(torch.tensor(IMAGES, dtype=torch.float32))
    for x in (IMAGES, IMAGES.astype("float32"), IMAGES.tolist(), torch.tensor(IMAGES)):
        found = run.reconstruct(x)
        assert isinstance(found, np.ndarray if isinstance(x, np.ndarray) else torch.Tensor)
        assert torch.allclose(torch.as_tensor(found), expected)
    black = np.zeros((1, 1, 16, 16))
    for kind in ("uint8", "bool", "float16"):
        assert (run.reconstruct(black.astype(kind)) == run.reconstruct(black)).all()
    assert run.reconstruct(IMAGES[:0]).shape == (0, 1, 16, 16)


def test_examples_are_named_by_numbers_texts_and_paths(run: Run, tmp_path: Path) -> None:
    assert run.example(3).x.equal(run.example("3").x)
    assert run.interpolate(0, 1).images.equal(run.interpolate("0", "1").images)
    assert run.traverse(1, start=2).rows[0].images.equal(run.traverse(1, start="2").rows[0].images)
    assert run.evaluate(metrics="mse").metrics.keys() == {"mse"}


def test_classes_are_named_by_numbers_and_texts(labelled: Run) -> None:
    name = labelled.data_spec.class_names[1]
    assert labelled.sample(3, label=1).equal(labelled.sample(3, label=name))
    assert labelled.reconstruct(IMAGES, np.array([0, 1, 2])).shape == (3, 1, 16, 16)
    for y, said in [
        (None, "give y, the class number of each example"),
        ([0, 1], r"y is not 3 class numbers: its shape is \[2\]"),
        ([0.0, 1.0, 2.0], "y is not 3 class numbers"),
        ([0, 1, 3], "y has other numbers than those of the classes, 0 to 2"),
        ("heart", "y is no array of numbers: str"),
    ]:
        with pytest.raises(VaezooError, match=said):
            labelled.reconstruct(IMAGES, y)


WRONG: list[tuple[Callable[[Run], Any], str]] = [
    (lambda run: vaezoo.train("vanilla", data=5), "data: should be the name of a data set, as"),
    (lambda run: vaezoo.train("vanilla", data=5), "of type numpy.ndarray, torch.Tensor, "),
    (lambda run: vaezoo.train("vanilla", data=[5]), "of type list: numpy.array(data) is an array"),
    (lambda run: vaezoo.train("vanilla", labels=[5]), "labels and factors are given with an array"),
    (lambda run: vaezoo.train(run.model), "train: model: should be a valid string, not of type"),
    (lambda run: vaezoo.train("vanilla", out=5), "out: should be Path | str | None, not 5"),
    (lambda run: vaezoo.train("vanilla", config={}), "config: should be Path | str | None"),
    (lambda run: vaezoo.train("vanilla", callback=print), "an instance of ProgressCallback"),
    (
        lambda run: vaezoo.train("vanilla", progress=True, callback=ProgressCallback()),
        "give progress=True or a callback, not both",
    ),
    (lambda run: vaezoo.train("vanilla", learning_rate=1), "did you mean 'lr'?"),
    (lambda run: vaezoo.train("vanilla", auto_resume=True), "give out"),
    (lambda run: vaezoo.create_model("vanilla"), "create_model: data: missing required argument"),
    (lambda run: vaezoo.create_model("vanilla", {}), "data: should be the name of a data set"),
    (lambda run: vaezoo.create_model("vanilla", (3, 9, 9), labels=[1]), "with an array as data"),
    (lambda run: vaezoo.create_model("vanilla", IMAGES, epochs=1), "an option of training or"),
    (
        lambda run: vaezoo.create_model("vanilla", (3,) * 5),
        "is not (values,) or (channels, *sizes)",
    ),
    (lambda run: vaezoo.create_model(5, (3, 64, 64)), "name: should be a valid string, not 5"),
    (lambda run: vaezoo.create_model("vanilla", (3, 4, 4)), "8×8 or more, not 4×4"),
    (lambda run: vaezoo.load_data(5), "data: should be the name of a data set"),
    (lambda run: vaezoo.load_data("npz", root=5), "root: is not a valid path, not '5'"),
    (lambda run: vaezoo.load_plugin(5), "load_plugin: source: should be Path | str, not 5"),
    (lambda run: vaezoo.load_run(5), "load_run: path: should be Path | str, not 5"),
    (lambda run: vaezoo.load_run(run.path, 0), "load_run: device: should be a valid string"),
    (lambda run: run.sample(0), "sample: n: should be greater than 0, not 0"),
    (lambda run: run.sample(2.5), "sample: n: should be a valid integer"),
    (lambda run: run.sample(2, 1), "sample: label: unexpected positional argument"),
    (lambda run: run.sample(2, seeds=1), "sample: seeds: unexpected keyword argument"),
    (lambda run: run.sample(2, temperature=-1), "temperature: should be greater than or equal to"),
    (lambda run: run.sample(2, seed=2**70), "sample: seed: should be less than"),
    (lambda run: run.sample(2, label=0), "this model is not conditional"),
    (lambda run: run.reconstruct(IMAGES * 255), "in [0, 1], not 0 to 255: divide 8-bit"),
    (lambda run: run.reconstruct(IMAGES - 1), "values of this data are in [0, 1], not -1 to 0"),
    (lambda run: run.reconstruct((IMAGES * 255).astype("uint8")), "divide 8-bit levels by 255"),
    (lambda run: run.reconstruct(IMAGES * np.nan), "examples hold NaN or infinity"),
    (lambda run: run.reconstruct(IMAGES * 1j), "real numbers, not complex"),
    (lambda run: run.reconstruct(IMAGES[0]), "are n×1×16×16, not 1×16×16: one example is x[None]"),
    (lambda run: run.reconstruct(IMAGES.repeat(3, 1)), "are n×1×16×16, not 3×3×16×16"),
    (lambda run: run.reconstruct("image.png"), "an array of numbers, not as str"),
    (lambda run: run.reconstruct([[1], [1, 2]]), "an array of numbers, not as list"),
    (lambda run: run.reconstruct(IMAGES.astype(object)), "an array of numbers, not as ndarray"),
    (lambda run: run.read_images([]), "give one image file or more"),
    (lambda run: run.read_images([5]), "read_images: paths: should be str | Path"),
    (lambda run: run.read_images("nope.png"), "nope.png: it does not exist"),
    (lambda run: run.example(-1), "example -1: the test split has 12, counted from 0"),
    (lambda run: run.example(2.5), "example: which: should be int | str | Path, not 2.5"),
    (lambda run: run.latent_statistics(0), "examples: should be greater than 0"),
    (lambda run: run.traverse(0), "traverse: rows: should be greater than 0, not 0"),
    (lambda run: run.traverse(latents=5), "traverse: latents: should be"),
    (lambda run: run.interpolate(0, 1, method="cubic"), "should be 'slerp' or 'linear'"),
    (lambda run: run.interpolate(0, 12), "example 12: the test split has 12"),
    (lambda run: embed(run, 2), "2 examples: too few to embed: give 3 or more"),
    (lambda run: embed(run, method="mds"), "should be 'pca', 'umap' or 'tsne', not 'mds'"),
    (lambda run: run.evaluate(split="all"), "should be 'train', 'validation' or 'test', not 'all'"),
    (lambda run: run.evaluate(metrics=5), "metrics: should be str | Sequence[str], not 5"),
    (lambda run: run.evaluate(metrics=[]), "names no metric"),
    (lambda run: run.evaluate(repeats=0), "repeats: should be greater than 0"),
    (lambda run: run.evaluate(on_progress=5), "on_progress: should be callable, not 5"),
]


@pytest.mark.parametrize(("work", "said"), WRONG)
def test_wrong_arguments_cost_one_line(run: Run, work: Callable[[Run], Any], said: str) -> None:
    with pytest.raises(VaezooError) as caught:
        work(run)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_run_and_its_evaluation_print_readably(run: Run, tmp_path: Path) -> None:
    elbo = run.summary["elbo"]
    said = f"Run {run.path}: vanilla on sprites, 2 steps, ELBO {elbo:.2f} nats, R² "
    assert repr(run).startswith(said)
    lines = str(run.evaluate()).splitlines()
    assert lines[0] == "Evaluation on 12 examples"
    assert any(line.split()[:2] == ["elbo", f"{elbo:.5g}"] for line in lines)
    assert any("log_likelihood" in line and "none (give --importance" in line for line in lines)
    assert max(map(len, lines)) < 100
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("config.yaml", "run.json"):
        (copy / name).write_bytes((run.path / name).read_bytes())
    assert repr(Run(copy)) == f"Run {copy}: vanilla on sprites, training has not ended"
    (copy / "summary.json").write_text("{")
    assert repr(Run(copy)).startswith(f"Run {copy}, damaged: ")


@pytest.mark.parametrize(
    ("model", "options", "fitted"),
    [
        ("vanilla", {}, True),
        ("vq_vae", {"prior_steps": 2}, True),
        ("vq_vae", {"prior_steps": 0}, False),
        ("autoencoder", {"sampler": "gaussian_mixture"}, True),
        ("autoencoder", {}, True),
    ],
)
def test_samples_of_a_prior_that_is_not_fitted_come_with_a_warning(
    tmp_path: Path,
    recwarn: pytest.WarningsRecorder,
    model: str,
    options: dict[str, Any],
    fitted: bool,
) -> None:
    run = vaezoo.train(model, out=tmp_path / "run", **TINY, **options)
    assert run.model.prior_is_fitted == fitted
    recwarn.clear()
    run.sample(2)
    said = [str(w.message) for w in recwarn if issubclass(w.category, VaezooWarning)]
    assert [text.partition(",")[0] for text in said] == (
        [] if fitted else ["the prior of this model is not fitted"]
    )
    fresh = vaezoo.create_model(model, (1, 16, 16), hidden=(8, 8), **options)
    assert fresh.prior_is_fitted == (model == "vanilla" or options == {})


def test_the_command_prints_the_warning_as_one_line(tmp_path: Path) -> None:
    run = vaezoo.train("vq_vae", out=tmp_path / "run", **TINY, prior_steps=0)
    command = [sys.executable, "-m", "vaezoo", "sample", str(run.path), "-n", "2", "--json"]
    done = subprocess.run(
        [*command, "-o", str(tmp_path / "s.png")], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout)["samples"] == 2
    assert done.stderr.startswith("vaezoo: the prior of this model is not fitted, ")
    assert done.stderr.count("\n") == 1


def test_errors_name_arguments_of_python(run: Run, labelled: Run, tmp_path: Path) -> None:
    """And on the command line, flags; a whole command stays as it is."""
    for act, said in [
        (lambda: run.sample(2, label=3), "label: this model is not conditional"),
        (lambda: labelled.sample(2, label="nine"), "label: there is no class 'nine'"),
        (lambda: labelled.reconstruct(IMAGES), "give y"),
        (lambda: vaezoo.train("vanilla", **{**TINY, "batch_size": 99}), "batch_size 99 is larger"),
        (lambda: vaezoo.load_run(run.path, "abacus"), "device 'abacus' is no device"),
        (lambda: vaezoo.load_run(run.path, root=tmp_path).config, "data set sprites has no option"),
    ]:
        with pytest.raises(VaezooError) as caught:
            act()
        assert said in str(caught.value)
        assert "--" not in str(caught.value).replace("vaezoo list --kind", "")
    message = (
        "--lr 3 fails: give --on-nonfinite skip; to go on: vaezoo train --resume x --lr 1 (or --n)"
    )
    assert python_names(message) == (
        "lr 3 fails: give on_nonfinite skip; to go on: vaezoo train --resume x --lr 1 (or n)"
    )


def test_the_command_line_names_flags(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sample", str(run.path), "--class", "3"]) == 2
    assert "--class: this model is not conditional" in capsys.readouterr().err
    with pytest.raises(VaezooError, match=r"^label: "):  # it does not go on afterwards
        run.sample(2, label=3)


def test_many_samples_are_drawn_in_parts(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The memory of what lies between latents and images is that of one part."""
    sizes, honest = [], run.model.decode

    def decode(z: torch.Tensor, y: torch.Tensor | None = None) -> Any:
        sizes.append(len(z))
        return honest(z, y)

    monkeypatch.setattr(run.model, "decode", decode)
    assert len(run.sample(600)) == sum(sizes) == 600
    assert max(sizes) <= 256


@pytest.mark.parametrize(("number", "text"), [(0, "0 runs"), (1, "1 run"), (2000, "2,000 runs")])
def test_counts_are_words(number: int, text: str) -> None:
    assert counted(number, "run") == text


def test_a_part_that_the_class_does_not_take_is_no_silent_option(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    vanilla = registry().get("model", "vanilla")
    monkeypatch.setattr(EncoderDecoderVAE, "parts", ("network", "bottleneck"))
    with pytest.raises(VaezooError, match="model vanilla takes no likelihood: its class"):
        vaezoo.create_model("vanilla", (1, 8, 8))
    monkeypatch.setattr(EncoderDecoderVAE, "parts", ("network", "bottleneck", "likelihood"))
    less = dataclasses.replace(vanilla, parts={"network": "conv", "likelihood": "auto"})
    monkeypatch.setitem(registry()._specs, ("model", "vanilla"), less)
    with pytest.raises(VaezooError, match="model vanilla is made of a bottleneck: name one in"):
        vaezoo.create_model("vanilla", (1, 8, 8))
