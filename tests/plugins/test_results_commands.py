"""`vaezoo encode`, `decode` and `score`: the files, what they say, and what they refuse."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import vaezoo
from commands import refused
from vaezoo.cli.main import main
from vaezoo.runs.run import Run
from vaezoo_results import shards
from vaezoo_results.anomalies import auroc, average_precision

SMALL: dict[str, Any] = {
    **{"data": "sprites", "examples": 400, "test": 300, "image_size": 16, "hidden": (8, 8)},
    **{"batch_size": 16, "steps": 2, "device": "cpu"},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    out = tmp_path_factory.mktemp("vanilla") / "run"
    return vaezoo.train("vanilla", out=out, latent_dim=3, **SMALL)


@pytest.fixture(scope="module")
def conditional(tmp_path_factory: pytest.TempPathFactory) -> Run:
    out = tmp_path_factory.mktemp("cvae") / "run"
    return vaezoo.train("cvae", out=out, latent_dim=3, **SMALL)


@pytest.fixture(scope="module")
def codes(tmp_path_factory: pytest.TempPathFactory) -> Run:
    out = tmp_path_factory.mktemp("vq") / "run"
    return vaezoo.train("vq_vae", out=out, sampler="none", **SMALL)


def done(capsys: pytest.CaptureFixture[str], *args: object) -> dict[str, Any]:
    capsys.readouterr()
    assert main([*map(str, args), "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_encode_and_decode_are_those_of_python(
    run: Run,
    in_tmp: Path,
    capsys: pytest.CaptureFixture[str],
    documented: Callable[[str], list[str]],
) -> None:
    found = done(capsys, "encode", run.path, "-o", "z.npz", "--what", "std,mean,sample")
    assert list(found) == documented("`vaezoo encode RUN -o FILE --json`")
    with np.load("z.npz") as arrays:
        for kind in ("mean", "std", "sample"):
            assert (arrays[kind] == run.encode(what=kind).numpy()).all()
        factors = run.splits.test.factors(torch.arange(300))
        assert factors is not None
        assert (arrays["factor_scale"] == factors[:, 1].numpy()).all()
        assert (arrays["label"] == factors[:, 0].numpy()).all()
        assert arrays["example"].tolist() == list(range(300))
    for ending in ("csv", "safetensors", "npy"):
        done(capsys, "encode", run.path, "-o", f"z.{ending}")
        found = done(capsys, "decode", run.path, f"z.{ending}", "-o", "x.npy", "--overwrite")
        assert (np.load("x.npy") == run.decode(run.encode()).numpy()).all()
    assert list(found) == documented("`vaezoo decode RUN FILE -o OUT --json`")
    assert done(capsys, "decode", run.path, "z.csv", "-o", "x.png")["examples"] == 64


def test_classes_and_codes_find_their_way_back(
    conditional: Run, codes: Run, in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    batch = conditional.examples().get(torch.arange(300))
    done(capsys, "encode", conditional.path, "-o", "z.csv")
    done(capsys, "decode", conditional.path, "z.csv", "-o", "x.npz")
    with np.load("x.npz") as arrays:
        assert (arrays["x"] == conditional.reconstruct(batch.x, batch.y).numpy()).all()
    done(capsys, "encode", codes.path, "-o", "i.csv", "--what", "indices")
    done(capsys, "decode", codes.path, "i.csv", "-o", "c.npy")
    assert (np.load("c.npy") == codes.reconstruct(batch.x).numpy()).all()


def test_images_and_other_data(run: Run, in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for i in range(3):
        Image.fromarray(np.full((16, 16), 100 * i, np.uint8)).save(f"{i}.png")
    names = [f"{i}.png" for i in range(3)]
    done(capsys, "encode", run.path, *names, "-o", "z.npz")
    with np.load("z.npz") as arrays:
        assert (arrays["mean"] == run.encode(run.read_images(names)).numpy()).all()
        assert arrays["example"].tolist() == names
    many = ("--data", "sprites", "--set", "data.examples=700", "--set", "data.test=600")
    assert done(capsys, "encode", run.path, *many, "-o", "many.npy")["examples"] == 600
    Path("folder/a").mkdir(parents=True)
    for i in range(6):
        Image.fromarray(np.full((20, 20), 40 * i, np.uint8)).save(f"folder/a/{i}.png")
    folder = ("--data", "folder", "--root", "folder", "--split", "train")
    done(capsys, "encode", run.path, *folder, "-o", "folder.csv")
    with open("folder.csv", newline="") as file:
        assert all(row["example"].startswith("a/") for row in csv.DictReader(file))


def test_shards_are_the_table_in_parts(
    run: Run, codes: Run, in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("encode", run.path, "--what", "mean,sample", "--seed", "4", "-o")
    whole = done(capsys, *words, "z.safetensors")
    for size, counts in ((70, [70] * 4 + [20]), (300, [300]), (1000, [300])):
        found = done(capsys, *words, "z", "--shard-size", size, "--overwrite")
        assert (found["examples"], found["columns"]) == (300, whole["columns"])
        index = json.loads(Path("z/index.json").read_text())
        assert [shard["examples"] for shard in index["shards"]] == counts
        parts = [load_file(Path("z", shard["file"])) for shard in index["shards"]]
        assert sorted(p.name for p in Path("z").iterdir()) == [
            *(shard["file"] for shard in index["shards"]),
            "index.json",
        ]
        for name, values in load_file("z.safetensors").items():
            assert torch.cat([part[name] for part in parts]).equal(values)
    for kind, seed in (("mean", 0), ("sample", 4)):
        z = run.encode(what=kind, seed=seed)
        assert index["statistics"][kind]["mean"] == pytest.approx(z.mean(0).tolist(), abs=1e-6)
        std = z.std(0, correction=0).tolist()
        assert index["statistics"][kind]["std"] == pytest.approx(std, rel=1e-5)
    done(capsys, "encode", codes.path, "-o", "grid", "--what", "mean,indices")
    index = json.loads(Path("grid/index.json").read_text())
    z = codes.encode().double()
    assert index["statistics"].keys() == {"mean"}
    std = z.std((0, 2, 3), correction=0).tolist()
    assert index["statistics"]["mean"]["std"] == pytest.approx(std, rel=1e-6)


def test_shards_that_fail_leave_nothing_and_take_nothing(
    run: Run, in_tmp: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    done(capsys, "encode", run.path, "-o", "z", "--shard-size", 200)
    kept = {path.name: path.read_bytes() for path in Path("z").iterdir()}
    assert "exists already" in refused(capsys, "encode", run.path, "-o", "z")
    with monkeypatch.context() as patch:
        patch.setattr(shards, "write_json", lambda *args: (_ for _ in ()).throw(OSError(28, "")))
        said = refused(capsys, "encode", run.path, "-o", "z", "--overwrite", "--shard-size", 100)
    assert "disk is full" in said
    assert {path.name: path.read_bytes() for path in Path("z").iterdir()} == kept
    assert [path.name for path in in_tmp.iterdir()] == ["z"]
    Path("z/notes.txt").write_text("mine")
    said = refused(capsys, "encode", run.path, "-o", "z", "--overwrite")
    assert "other files, as notes.txt" in said


def test_memory_does_not_grow_with_shards(tmp_path: Path) -> None:
    piece = {"mean": np.zeros((100, 50), np.float32)}

    def peak(count: int) -> int:
        tracemalloc.start()
        shards.write_shards(
            tmp_path / str(count),
            (piece for _ in range(count // 100)),
            count,
            size=250,
            latents=("mean",),
            about={},
        )
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(500)
    assert peak(10_000) < 1.2 * peak(2_000) + 20_000


def test_data_that_only_python_has(
    run: Run, in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(run.path, "given")
    metadata = json.loads(Path("given/run.json").read_text())
    metadata["data"]["given"] = "an array"
    Path("given/run.json").write_text(json.dumps(metadata))
    for command, out in (("score", "s.csv"), ("encode", "z.npz")):
        said = refused(capsys, command, "given", "-o", out)
        assert "--data" in said
        assert "load_run('given', data=...)" in said.replace(str(in_tmp) + "/", "")


def test_scores_are_those_of_python(
    run: Run,
    in_tmp: Path,
    capsys: pytest.CaptureFixture[str],
    documented: Callable[[str], list[str]],
) -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    files = ("-o", "s.csv", "-o", "top.png", "--top", "5")
    found = done(capsys, "score", run.path, *files, "--normal", "square,1", "--seed", "3")
    assert list(found) == documented("`vaezoo score RUN --json`")
    assert list(found["anomalies"]) == documented("What `anomalies` holds")
    with open("s.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    for name, values in run.score(seed=3).items():
        written = np.array([float(row[name]) for row in rows])
        assert (written.astype(values.numpy().dtype) == values.numpy()).all()
    elbo = np.array([float(row["elbo"]) for row in rows])
    expected = np.argsort(elbo, kind="stable")[:5]
    assert [one["example"] for one in found["top"]] == expected.tolist()
    anomalous = np.array([row["label"] == "2" for row in rows])
    result = found["anomalies"]
    assert (result["anomalous"], result["normal"]) == (anomalous.sum(), (~anomalous).sum())
    assert result["auroc"] == pytest.approx(sklearn.roc_auc_score(anomalous, -elbo))
    precision = sklearn.average_precision_score(anomalous, -elbo)
    assert result["average_precision"] == pytest.approx(precision)
    assert Path("top.png").exists()


@pytest.mark.slow
def test_two_processes_write_the_same_file(run: Run, in_tmp: Path) -> None:
    job = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "--", "vaezoo"]
    for count, start in ((1, ["vaezoo"]), (2, job)):
        for command, ending in (("encode", ".npz"), ("encode", ""), ("score", ".csv")):
            words = [command, str(run.path), "--seed", "2", "-o", f"{count}{ending}"]
            subprocess.run([sys.executable, "-m", *start, *words], check=True, timeout=300)
    assert Path("1.npz").read_bytes() == Path("2.npz").read_bytes()
    assert Path("1.csv").read_bytes() == Path("2.csv").read_bytes()
    for file in ("00000.safetensors", "index.json"):
        assert Path("1", file).read_bytes() == Path("2", file).read_bytes()


def test_measures_of_anomalies_are_those_of_scikit_learn() -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    draw = np.random.default_rng(0)
    for scores in (draw.standard_normal(200), draw.integers(0, 5, 200).astype(float)):
        anomalous = draw.random(200) < 0.2 + 0.1 * scores
        assert auroc(scores, anomalous) == pytest.approx(sklearn.roc_auc_score(anomalous, scores))
        expected = sklearn.average_precision_score(anomalous, scores)
        assert average_precision(scores, anomalous) == pytest.approx(expected)


def test_what_does_not_fit_is_refused(
    run: Run, codes: Run, conditional: Run, in_tmp: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = run.path
    np.save("four.npy", np.zeros((2, 4), np.float32))
    np.save("nan.npy", np.full((2, 3), np.nan, np.float32))
    np.savez("none.npz", x=np.zeros((2, 3)))
    np.save("z.npy", np.zeros((2, 3), np.float32))
    for args, said in [
        (("encode", path, "-o", "z.txt"), "ends in .npz or"),
        (("encode", path, "-o", "z.npy"), "exists already"),
        (("encode", path, "-o", "a.npz", "--shard-size", "9"), "is for a folder"),
        (("encode", path, "-o", "a.npy", "--what", "mean,std"), "one array"),
        (("encode", path, "-o", "a.npz", "--what", "indices"), "no codes"),
        (("encode", codes.path, "-o", "a.npz", "--what", "std"), "codes"),
        (("encode", path, "-o", "a.npz", "--set", "data.test=3"), "by --data"),
        (("encode", path, "no.png", "-o", "a.npz"), "no.png"),
        (("encode", conditional.path, "no.png", "-o", "a.npz"), "give --class"),
        (("encode", path, "-o", "a.npz", "--data", "sprites", "--set", "data.image_size=32"), "32"),
        (("decode", path, "four.npy", "-o", "x.npz"), "are n×3, not 2×4"),
        (("decode", path, "nan.npy", "-o", "x.npz"), "NaN or infinity"),
        (("decode", path, "none.npz", "-o", "x.npz"), "no column mean"),
        (("decode", conditional.path, "z.npy", "-o", "x.npz"), "--class"),
        (("score", path, "--by", "log_likelihood"), "--importance-samples"),
        (("score", path, "--normal", "circle"), "no class 'circle'"),
        (("score", path, "--normal", "0", "--anomalous", "square"), "not both"),
        (("score", codes.path, "--by", "log_likelihood", "--importance-samples", "2"), "weights"),
    ]:
        assert said in refused(capsys, *args), args
    assert sorted(p.name for p in in_tmp.iterdir()) == ["four.npy", "nan.npy", "none.npz", "z.npy"]
