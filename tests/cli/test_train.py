"""`vaezoo train`, `evaluate`, `sample` and `reconstruct` as a user types them."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import vaezoo
from commands import refused
from vaezoo.cli.main import main

TINY = [
    *("train", "vanilla", "--examples", "80", "--test", "16", "--image-size", "16"),
    *("--hidden", "8,8", "--latent-dim", "3", "--epochs", "1", "--batch-size", "16"),
    *("--device", "cpu"),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    assert main([*TINY, "--beta", "4", "--out", str(out)]) == 0
    return out


def test_ends_by_naming_the_pictures(in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*TINY, "--beta", "4"]) == 0
    out = capsys.readouterr().out
    for name in ("reconstructions.png", "samples.png", "curves.png"):
        path = Path("runs/vanilla-sprites-001") / name
        assert str(path) in out
        Image.open(path).verify()
    assert "bits per dimension" in out
    assert main([*TINY]) == 0
    assert Path("runs/vanilla-sprites-002/summary.json").exists()


def test_saved_config_runs_again_to_the_same_numbers(run: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    assert main(["train", "--config", str(run / "config.yaml"), "--out", str(again)]) == 0
    assert (run / "config.yaml").read_text() == (again / "config.yaml").read_text()
    first, second = (json.loads((p / "summary.json").read_text()) for p in (run, again))
    assert first["elbo"] == second["elbo"]
    saved = yaml.safe_load((run / "config.yaml").read_text())
    assert saved["loss"] == {"name": "elbo", "beta": 4.0, "warmup": 0.0, "free_bits": 0.0}


def test_command_line_overrides_recipe_and_set(run: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "model: {name: vanilla}\nbottleneck: {latent_dim: 7}\nloss: {beta: 2}\ntrain: {lr: 0.5}\n"
    )
    line = [*TINY, "--config", str(recipe), "--set", "train.lr=0.01", "--lr", "0.002"]
    assert main([*line, "--set", "loss.beta=3", "--out", str(tmp_path / "r")]) == 0
    saved = yaml.safe_load((tmp_path / "r" / "config.yaml").read_text())
    assert saved["train"]["lr"] == 0.002
    assert saved["loss"]["beta"] == 3
    assert saved["bottleneck"]["latent_dim"] == 3


def test_model_name_is_found_among_the_options(tmp_path: Path) -> None:
    rest = [arg for arg in TINY if arg not in ("train", "vanilla")]
    assert main(["train", *rest, "--deterministic", "vanilla", "--out", str(tmp_path / "r")]) == 0
    assert main(["train", *rest[:4], "vanilla", *rest[4:], "--out", str(tmp_path / "s")]) == 0


def test_what_a_run_keeps_is_as_documented(
    run: Path, capsys: pytest.CaptureFixture[str], documented: Callable[[str], list[str]]
) -> None:
    capsys.readouterr()
    assert main(["evaluate", str(run), "--json"]) == 0
    evaluation = documented("`vaezoo evaluate RUN --json`")
    assert sorted(json.loads(capsys.readouterr().out)) == sorted(evaluation)
    summary = json.loads((run / "summary.json").read_text())
    kept = [key for key in evaluation if key not in ("run", "split", "sampler")]
    assert sorted(summary) == sorted(kept + documented("`summary.json` of a run"))
    for number in summary["metrics"].values():
        assert list(number) == documented("The number of a metric")
    assert summary["latents"]
    for latent in summary["latents"]:
        assert list(latent) == documented("A latent")
    lines = (run / "metrics.jsonl").read_text().splitlines()
    keys = {key for line in lines for key in json.loads(line)}
    assert keys == set(documented("A line of `metrics.jsonl`"))


def test_evaluate_prints_numbers_and_json(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["evaluate", str(run), "--importance-samples", "8", "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    summary = json.loads((run / "summary.json").read_text())
    assert values["elbo"] == pytest.approx(summary["elbo"], rel=1e-5)
    assert values["log_likelihood"] > values["elbo"]
    assert values["psnr"] > 0
    assert 0 <= values["active_units"] <= 3
    assert main(["evaluate", str(run)]) == 0
    text = capsys.readouterr().out
    assert "active_units" in text
    assert "16 examples" in text


def test_sample_and_reconstruct(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "samples.png"
    assert main(["sample", str(run), "-n", "5", "-o", str(out)]) == 0
    first = out.read_bytes()
    assert main(["sample", str(run), "-n", "5", "-o", str(out), "--overwrite"]) == 0
    assert out.read_bytes() == first
    assert main(["sample", str(run), "-n", "5", "-o", str(out), "--overwrite", "--seed", "1"]) == 0
    assert out.read_bytes() != first
    image = tmp_path / "mine.png"
    Image.new("RGB", (40, 30), "white").save(image)
    pair = tmp_path / "pair.png"
    assert main(["reconstruct", str(run), str(image), str(image), "-o", str(pair)]) == 0
    Image.open(pair).verify()


def test_python_does_the_same(run: Path) -> None:
    opened = vaezoo.load_run(run, device="cpu")
    assert opened.sample(5).shape == (5, 1, 16, 16)
    x = torch.rand(3, 1, 16, 16)
    assert opened.reconstruct(x).shape == x.shape
    assert opened.evaluate().elbo == pytest.approx(opened.summary["elbo"], rel=1e-5)
    model = vaezoo.create_model("vanilla", data=(3, 32, 32), beta=4, latent_dim=5)
    assert model.loss is not None
    assert model.loss.options.model_dump()["beta"] == 4
    assert model.sample(2).shape == (2, 3, 32, 32)
    assert "vanilla" in [spec.name for spec in vaezoo.list_models()]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ("train vanila", "did you mean 'vanilla'"),
        ("train", "say which model"),
        ("train vanilla --beta -1", "--beta"),
        ("train vanilla --latent-dim 0", "--latent-dim"),
        ("train vanilla --bta 4", "--beta"),
        ("train vanilla --beta", "--beta"),
        ("train vanilla --beta four", "four"),
        ("train vanilla --beta nan", "--beta"),
        ("train vanilla --hidden 0,4", "--hidden"),
        ("train vanilla --hidden ,", "--hidden"),
        ("train vanilla --image-size 4", "8"),
        ("train vanilla --image-size 0", "--image-size"),
        ("train vanilla --data sprite", "did you mean 'sprites'"),
        ("train vanilla --loss elbow", "did you mean 'elbo'"),
        ("train vanilla --epochs 0", "--epochs"),
        ("train vanilla --epochs 2 --steps 5", "not both"),
        ("train vanilla --batch-size 50000", "--batch-size 50000 is larger than"),
        ("train vanilla --examples 2 --test 1", "1 training example is too few: this model"),
        ("train vanilla --examples 3 --test 1", "give --batch-size 2 or less"),
        ("train vanilla --lr 0", "--lr"),
        ("train vanilla --seed -1", "--seed"),
        ("train vanilla --device tpu", "--device"),
        ("train vanilla --precision fp8", "--precision"),
        ("train vanilla --config missing.yaml", "missing.yaml"),
        ("train vanilla --set lr=3", "SECTION.OPTION=VALUE"),
        ("train vanilla --set train.speed=3", "speed"),
        ("train vanilla --data folder", "--root"),
        ("train vanilla --data folder --root nowhere", "nowhere"),
        ("train vanilla --resume nowhere", "nowhere"),
        (
            "train vanilla --indices 0:9 --data npz",
            "--indices is an option of data set sprites, and",
        ),
        ("train vanilla extra", "extra"),
        ("train vanilla --latent-dim 100000000000", "does not fit in memory"),
        ("evaluate nowhere", "nowhere"),
        ("sample nowhere -o a.png", "nowhere"),
        ("sample nowhere -n 0 -o a.png", "-n"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    in_tmp: Path, capsys: pytest.CaptureFixture[str], args: str, said: str
) -> None:
    assert said in refused(capsys, *args.split())
    assert list(in_tmp.iterdir()) == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is CUDA here")
def test_no_cuda_when_asked_for(in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "this machine has no CUDA device" in refused(
        capsys, "train", "vanilla", "--device", "cuda"
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("model: {name: vanilla", "not YAML"),
        ("- a\n- b\n", "sections"),
        ("model: {name: vanilla}\nmodle: {}\n", "did you mean 'model'"),
        ("bottleneck: {latent: 3}\nmodel: {name: vanilla}\n", "did you mean 'latent_dim'"),
        ("model: {name: vanilla, latent_dim: 3}\n", "as in bottleneck.latent_dim"),
        ("model: {name: vanilla}\ntrain: {epochs: many}\n", "--epochs"),
        ("model: 3\n", "model"),
        ("\x00\x01", "not YAML"),
    ],
)
def test_bad_recipes(
    in_tmp: Path, capsys: pytest.CaptureFixture[str], text: str, said: str
) -> None:
    Path("bad.yaml").write_text(text)
    assert said in refused(capsys, "train", "--config", "bad.yaml")
    assert [p.name for p in in_tmp.iterdir()] == ["bad.yaml"]


def test_existing_or_unwritable_folder(in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine").mkdir()
    Path("mine/file").touch()
    assert "exists already" in refused(capsys, *TINY, "--out", "mine")
    assert "exists already" in refused(capsys, *TINY, "--out", "mine", "--auto-resume")
    Path("file").write_text("precious")
    assert "cannot write" in refused(capsys, *TINY, "--out", "file/run")
    assert Path("file").read_text() == "precious"
    if os.geteuid() != 0:
        Path("shut").mkdir(mode=0o500)
        assert "cannot write" in refused(capsys, *TINY, "--out", "shut/run")


def test_pictures_are_not_written_over(
    run: Path, in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("a.png").write_text("precious")
    assert "exists already" in refused(capsys, "sample", str(run), "-o", "a.png")
    assert Path("a.png").read_text() == "precious"
    assert main(["sample", str(run)]) == 0
    first = Path("samples.png").read_bytes()
    assert "samples.png exists already" in refused(capsys, "sample", str(run), "--seed", "1")
    assert Path("samples.png").read_bytes() == first
    assert "no folder" in refused(capsys, "sample", str(run), "-o", "none/a.png")
    Path("text.png").write_text("not an image")
    assert "text.png" in refused(capsys, "reconstruct", str(run), "text.png")
    assert "missing.png" in refused(capsys, "reconstruct", str(run), "missing.png")
    assert not Path("reconstructed.png").exists()


def test_damaged_runs_are_reported(
    run: Path, in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(run, "copy")
    Path("copy/model.safetensors").write_bytes(b"short")
    assert "damaged" in refused(capsys, "evaluate", "copy")
    Path("copy/model.safetensors").unlink()
    assert "missing" in refused(capsys, "evaluate", "copy")
    Path("copy/run.json").write_text("{")
    assert "damaged" in refused(capsys, "evaluate", "copy")


def test_run_of_a_missing_plugin_names_it(
    run: Path, in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(run, "copy")
    config = Path("copy/config.yaml")
    config.write_text(config.read_text().replace("name: vanilla", "name: absent"))
    record = json.loads(Path("copy/run.json").read_text())
    record["model"] = {
        "name": "absent",
        "plugin": "missing",
        "distribution": "vaezoo-missing",
        "version": "3.2",
    }
    Path("copy/run.json").write_text(json.dumps(record))
    for command in (["evaluate", "copy"], ["sample", "copy", "-o", "a.png"]):
        said = refused(capsys, *command)
        assert "'absent'" in said
        assert "vaezoo-missing 3.2" in said


def test_an_empty_folder_is_used(in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine").mkdir()
    refused(capsys, *TINY, "--out", "mine", "--batch-size", "5000")
    assert list(Path("mine").iterdir()) == []
    assert main([*TINY, "--out", "mine"]) == 0
    assert Path("mine/summary.json").exists()


def test_only_some_options_may_change_on_resume(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    resume = ["train", "--resume", str(run)]
    said = refused(capsys, *resume, "--batch-size", "2")
    assert "--batch-size 2: the run has 16, which cannot change when it is resumed" in said
    said = refused(capsys, *resume, "--out", "x")
    assert f"--out x: a resumed run stays where it is, in {run}" in said
    assert "MODEL factor_vae: the run has vanilla" in refused(capsys, *resume, "factor_vae")
    assert "--data npz: the run has sprites" in refused(capsys, *resume, "--data", "npz")
    assert "--loss vae_gan: the run has elbo" in refused(capsys, *resume, "--loss", "vae_gan")
    assert "--latent-dim 4: the run has 3" in refused(
        capsys, *resume, "--set", "bottleneck.latent_dim=4"
    )
    (tmp_path / "c.yaml").write_text("train: {seed: 7}")
    assert "--seed 7: the run has 0" in refused(
        capsys, *resume, "--config", str(tmp_path / "c.yaml")
    )
    said = refused(capsys, *resume, "--root", "x")
    assert "--root is an option of data set " in said
    assert "data set sprites" in said.partition(" and this is for ")[2]
    config = (run / "config.yaml").read_text()
    assert "has finished" in refused(capsys, *resume)
    assert "has finished" in refused(capsys, *TINY, "--beta", "4", *resume[1:], "--out", str(run))
    assert "has finished" in refused(capsys, *resume, "--config", str(run / "config.yaml"))
    (copy := tmp_path / "copy").mkdir()
    shutil.copytree(run, copy, dirs_exist_ok=True)
    (copy / "summary.json").unlink()  # as if it had been killed after its last step
    said = refused(capsys, "train", "--resume", str(copy), "--steps", "2")
    assert "has 4 steps already, and these options end it at step 2" in said
    assert (run / "config.yaml").read_text() == config == (copy / "config.yaml").read_text()


def test_the_same_line_begins_a_run_goes_on_and_then_does_nothing(
    in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = [*TINY, "--auto-resume", "--out", "mine"]
    assert main(line) == 0
    config, weights = Path("mine/config.yaml"), Path("mine/model.safetensors")
    first, made = weights.read_bytes(), weights.stat().st_mtime_ns
    capsys.readouterr()
    assert main(line) == 0
    assert "held out: ELBO" in capsys.readouterr().out
    assert weights.stat().st_mtime_ns == made
    Path("mine/summary.json").unlink()  # as if it had been killed after its last step
    assert main(line) == 0
    assert weights.read_bytes() == first
    before = config.read_text()
    said = refused(capsys, *line, "--beta", "3", "--epochs", "3")
    assert "--beta 3.0: the run has 1.0, which cannot change" in said
    assert config.read_text() == before
    assert main([*line, "--epochs", "2"]) == 0
    assert json.loads(Path("mine/summary.json").read_text())["steps"] == 8
    assert "--out" in refused(capsys, *TINY, "--auto-resume")
    assert "not both" in refused(capsys, *line, "--resume", "mine")
    opened = vaezoo.train(config=config, out="mine", auto_resume=True)
    assert opened.summary["steps"] == 8


def test_image_size_is_advised_where_the_data_has_it(
    in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez("small.npz", images=np.zeros((20, 5, 5), "uint8"))
    said = refused(capsys, "train", "vanilla", "--data", "npz", "--root", "small.npz")
    assert said == "vaezoo: model vanilla takes images of 8×8 or more, not 5×5\n"
    Path("images").mkdir()
    for i in range(8):
        Image.new("RGB", (4, 4), (i, 0, 0)).save(f"images/{i}.png")
    line = ["train", "vanilla", "--data", "folder", "--root", "images", "--image-size", "4"]
    assert "not 4×4: give --image-size 8 or more" in refused(capsys, *line)


def test_a_run_goes_on_with_its_data_in_another_folder(
    in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("images", "others"):
        Path(name).mkdir()
        for i in range(12):
            color = (20 * i, 0, 0) if name == "images" else (0, 20 * i, 0)
            Image.new("RGB", (16, 16), color).save(f"{name}/{i}.png")
    line = ["--hidden", "8,8", "--steps", "2", "--batch-size", "4", "--image-size", "16"]
    data = ["--data", "folder", "--root", "images"]
    assert main(["train", "vanilla", *data, *line, "--out", "run"]) == 0
    Path("images").rename("moved")
    resume = ["train", "vanilla", "--resume", "run", "--steps", "3"]
    assert "data has changed" in refused(capsys, *resume, "--root", "others")
    Path("others").rename("images")  # where the run has its data: not the same any more
    evaluate = ["evaluate", "run", "--json"]
    assert "data has changed" in refused(capsys, *evaluate)
    assert main([*evaluate, "--root", "moved"]) == 0
    assert json.loads(capsys.readouterr().out)["examples"] == 3
    assert vaezoo.load_run("run", root="moved").splits.spec.num_examples == 9
    assert main([*resume, "--root", "moved"]) == 0
    assert vaezoo.load_run("run").evaluate().examples == 3


def test_resume_for_more_epochs(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    assert main(["train", "--resume", str(copy), "--epochs", "2"]) == 0
    summary = json.loads((copy / "summary.json").read_text())
    assert summary["steps"] == 8
    assert yaml.safe_load((copy / "config.yaml").read_text())["train"]["epochs"] == 2
