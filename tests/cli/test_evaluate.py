"""`vaezoo evaluate` as a user types it: one run, several, and what is not measured."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vaezoo.cli.main import main
from vaezoo_disentanglement import metrics as factors

TINY = [
    *("train", "vanilla", "--examples", "2200", "--test", "100", "--validation", "40"),
    *("--image-size", "16", "--hidden", "8,8", "--latent-dim", "3", "--steps", "6"),
    *("--batch-size", "16", "--device", "cpu"),
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with runs that differ in their likelihood, and one on other data."""
    folder = tmp_path_factory.mktemp("runs")
    for name, options in {
        "first": (),
        "second": ("--seed", "1"),
        "grey": ("--likelihood", "gaussian"),
        "others": ("--split-seed", "7"),
    }.items():
        assert main([*TINY, *options, "--out", str(folder / name)]) == 0
    return folder


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    def run(*args: str) -> str:
        capsys.readouterr()
        assert main(["evaluate", *args]) == 0
        return capsys.readouterr().out

    return run


def row(text: str, name: str) -> list[str]:
    return next(line.split() for line in text.splitlines() if line.startswith(f"{name} "))


def test_one_run_is_an_object_and_several_are_an_array(runs: Path, say: Callable[..., str]) -> None:
    first = json.loads(say(str(runs / "first"), "--json"))
    assert first["run"] == str(runs / "first")
    assert first["split"] == "test"
    both: list[dict[str, Any]] = json.loads(
        say(str(runs / "first"), str(runs / "second"), "--json")
    )
    assert both[0] == first
    assert both[1]["elbo"] != first["elbo"]
    assert len(first["latents"]) == 3
    assert sum(latent["rate"] for latent in first["latents"]) == pytest.approx(first["rate"])
    summary = json.loads((runs / "first" / "summary.json").read_text())
    for name, number in summary["metrics"].items():
        assert number["comparable"] == first["metrics"][name]["comparable"]
        found = first["metrics"][name]["value"]
        assert (found is None) == (number["value"] is None)
        assert found is None or number["value"] == pytest.approx(found, rel=1e-4)
    assert [list(latent) for latent in summary["latents"]] == [list(o) for o in first["latents"]]


def test_runs_stand_side_by_side_with_a_star_for_the_best(
    runs: Path, say: Callable[..., str]
) -> None:
    text = say(str(runs / "first"), str(runs / "second"), "--metric", "elbo,mse,rate")
    assert text.splitlines()[0].split() == ["metric", "first", "second"]
    assert row(text, "elbo")[1] == "↑"
    assert row(text, "mse")[1] == "↓"
    for name in ("elbo", "mse"):
        assert " ".join(row(text, name)).count("*") == 1
    assert "*" not in " ".join(row(text, "rate"))
    assert "100 examples" in text


def test_what_does_not_compare_has_no_star(runs: Path, say: Callable[..., str]) -> None:
    text = say(str(runs / "first"), str(runs / "grey"), "--metric", "elbo,mse")
    assert "*" not in " ".join(row(text, "elbo"))
    assert "elbo: not ranked, the numbers are of" in text
    assert "GaussianLikelihood off its domain" in text
    assert "*" in " ".join(row(text, "mse"))  # an error of images, whatever the likelihood
    text = say(str(runs / "first"), str(runs / "others"), "--metric", "mse")
    assert "*" not in " ".join(row(text, "mse"))
    assert "mse: not ranked" in text


def test_what_is_missing_is_a_dash_with_its_reason(runs: Path, say: Callable[..., str]) -> None:
    text = say(str(runs / "first"), str(runs / "second"), "--metric", "code_use,ms_ssim,mig,fid")
    for name, reason in (
        ("code_use", "its latents are no codes"),
        ("ms_ssim", "its five scales need images of 176 pixels and more, not 16×16"),
        ("mig", "it needs 1,000 examples or more, and this split has 100"),
        ("fid", "it needs 1,000 examples or more, and this split has 100"),
    ):
        assert row(text, name)[-2:] == ["-", "-"]
        assert f"{name}: {reason}\n" in text


def test_group_by_seed(
    runs: Path,
    say: Callable[..., str],
    documented: Callable[[str], list[str]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Two seeds are one configuration, and what has another option stands beside it."""
    three = [str(runs / name) for name in ("first", "grey", "second")]
    metrics = ("--metric", "elbo,rate,code_use")
    alone: list[dict[str, Any]] = json.loads(say(*three, *metrics, "--json"))
    found = json.loads(say(*three, *metrics, "--group-by-seed", "--json"))
    assert [one["runs"] for one in found] == [[three[0], three[2]], [three[1]]]
    assert [one["seeds"] for one in found] == [[0, 1], [0]]
    assert {*found[0]} == {*documented("`vaezoo evaluate RUN... --group-by-seed --json`")}
    elbo = found[0]["metrics"]["elbo"]
    assert {*elbo} == {*documented("A number over seeds")}
    values = [alone[0]["elbo"], alone[2]["elbo"]]
    assert elbo["values"] == values
    assert elbo["value"] == pytest.approx(sum(values) / 2)
    assert elbo["std"] == pytest.approx(abs(values[0] - values[1]) / 2**0.5)
    errors = [alone[i]["metrics"]["elbo"]["uncertainty"] for i in (0, 2)]
    assert elbo["uncertainty"] == pytest.approx(((errors[0] ** 2 + errors[1] ** 2) / 2) ** 0.5)
    assert elbo["uncertainty_kind"] == alone[0]["metrics"]["elbo"]["uncertainty_kind"]
    assert found[1]["metrics"]["elbo"]["std"] is None
    text = say(*three, *metrics, "--group-by-seed")
    assert text.splitlines()[0].split() == ["metric", "first", "+1", "grey"]
    assert row(text, "elbo")[2] == "±"
    assert row(text, "code_use")[1:] == ["-", "-"]
    assert "first +1: seeds 0, 1\n" in text
    assert "code_use: its latents are no codes\n" in text
    assert main(["evaluate", *three[:2], "--group-by-seed"]) == 2
    assert "no two of these runs differ only in their seed" in capsys.readouterr().err


def test_splits(runs: Path, say: Callable[..., str]) -> None:
    for split, examples in (("test", 100), ("validation", 40), ("train", 2060)):
        found = json.loads(say(str(runs / "first"), "--split", split, "--metric", "mse", "--json"))
        assert found["examples"] == examples
        assert found["metrics"]["mse"]["comparable"].startswith(f"data {split}")
        assert found["elbo"] is None
        assert found["notes"]["elbo"] == "it was not asked for"


def test_known_factors(
    runs: Path, say: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # After six steps no latent is active, and that is what it says.
    inactive = say(str(runs / "first"), "--split", "train", "--metric", "mig")
    assert "none of its latents is active" in inactive
    monkeypatch.setattr(factors, "ACTIVE_VARIANCE", 0.0)
    words = [str(runs / "first"), "--split", "train", "--metric", "mig,factor_vae_score"]
    found = json.loads(say(*words, "--repeats", "2", "--json"))["metrics"]
    for number in found.values():
        assert 0 <= number["value"] <= 1
        assert number["uncertainty"] is not None
        assert number["uncertainty_kind"] == "standard deviation over 2 draws of examples"
        assert "1030 examples" in number["comparable"]
    assert "overstate mutual information" in found["mig"]["note"]


def test_an_extra_that_is_not_installed_is_one_line(
    runs: Path, say: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(factors, "find_spec", lambda name: None)
    text = say(str(runs / "first"), "--split", "train", "--metric", "sap,dci_completeness")
    assert text.count("it needs scikit-learn: pip install 'vaezoo[metrics]'") == 2


@pytest.mark.parametrize(
    ("words", "printed"),
    [
        (["--metric", "elbow"], "there is no metric or group 'elbow'; did you mean 'elbo'?"),
        (["--metric", " , "], "'--metric': give at least one value"),
        (["--repeats", "0"], "--repeats"),
        (["--split", "trian"], "train"),
        (["--features", "vgg"], "--features"),
    ],
)
def test_wrong_words_are_reported_before_anything_is_loaded(
    capsys: pytest.CaptureFixture[str], words: list[str], printed: str
) -> None:
    assert main(["evaluate", "no-such-run", *words]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert printed in error


def test_a_metric_and_a_loss_of_one_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "elbo"]) == 0
    assert "loss elbo" in capsys.readouterr().out
    assert main(["info", "elbo", "--kind", "metrics"]) == 0
    printed = capsys.readouterr().out
    assert "metric elbo" in printed
    assert "higher is better" in printed
    assert main(["info", "mig"]) == 0
    assert "metric mig" in capsys.readouterr().out
    assert main(["check", "mig"]) == 2
    assert "is a metric" in capsys.readouterr().err
