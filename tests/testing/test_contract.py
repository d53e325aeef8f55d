"""How checks are selected, skipped, reported and made into tests."""

from __future__ import annotations

import importlib
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from vaezoo.cli.main import main
from vaezoo.errors import OptionError, UnknownNameError, VaezooError
from vaezoo.plugins.registry import registry
from vaezoo.plugins.sources import import_file
from vaezoo.testing import (
    ContractError,
    check_dataset,
    check_loss,
    check_model,
    parametrize_with_checks,
)
from vaezoo.testing.contract import MODEL_CHECKS, Contract
from vaezoo.testing.subjects import ModelWithLoss

HERE = Path(__file__).parent
MODELS = import_file(str(HERE / "wrong_models.py"))
LOSSES = import_file(str(HERE / "wrong_losses.py"))


@pytest.fixture(autouse=True)
def _forget_what_was_named() -> Iterator[None]:
    yield
    registry.cache_clear()


def status(
    check_subject: Callable[..., Any], subject: Any, check: str, **more: Any
) -> tuple[str, str]:
    (result,) = check_subject(subject, only=[check], **more)
    return result.status, result.reason


EXPECTED = ("expected failure", "so be it")


def known(subject: type, failures: dict[str, str] | None = None) -> type:
    """A subclass with the checks that it is expected to fail."""
    return type("Known", (subject,), {"expected_failures": failures or {"gradients": "so be it"}})


class TestKnownFailures:
    def test_one_is_reported_with_its_reason(self) -> None:
        assert status(check_model, known(MODELS.Idle), "gradients") == EXPECTED
        expected = {"gradients": "so be it"}
        found = status(check_model, MODELS.Idle, "gradients", expected_failures=expected)
        assert found == EXPECTED

    def test_one_that_passes_fails(self) -> None:
        with pytest.raises(ContractError, match=r"expected to fail \(so be it\), but passes"):
            check_model(known(MODELS.Right), only=["gradients"])

    def test_those_of_the_loss_count_too(self) -> None:
        loss = known(LOSSES.LeavesTheCritic)
        assert status(check_loss, loss, "gradients")[0] == "expected failure"
        assert status(check_model, MODELS.Right, "gradients", loss=loss)[0] == "expected failure"

    @pytest.mark.parametrize(
        ("failures", "said"),
        [
            ({"gradients": " "}, "give a reason why check gradients is expected to fail"),
            ({"gradient": "typo"}, "there is no check 'gradient' for expected_failures"),
        ],
    )
    def test_one_must_be_a_check_with_a_reason(self, failures: dict[str, str], said: str) -> None:
        with pytest.raises(OptionError, match=said):
            check_model(known(MODELS.Right, failures))


def test_tags_choose_the_checks() -> None:
    pair = ModelWithLoss(MODELS.Right)
    both = {check.name for check in Contract(pair, MODEL_CHECKS, {}).selected()}
    pair.tags = ("deterministic",)
    contract = Contract(pair, MODEL_CHECKS, {})
    assert both - {check.name for check in contract.selected()} == {"rate", "bound"}
    results = {result.check: result for result in contract.results()}
    assert results["rate"].status == "does not apply"
    assert results["bound"].reason == "it has no tag elbo or importance"
    assert results["compiled"].status == "left out"


def test_wrong_words_are_reported() -> None:
    with pytest.raises(OptionError, match=r"no check 'shape' of right; did you mean 'shapes'"):
        check_model(MODELS.Right, only=["shape"])
    with pytest.raises(OptionError, match=r"no option 'latent_dm'; did you mean 'latent_dim'"):
        check_model("vanilla", options={"latent_dm": 3})
    with pytest.raises(UnknownNameError, match="did you mean 'vanilla'"):
        check_model("vanila")
    with pytest.raises(VaezooError, match="Right is no BaseLoss"):
        check_loss(MODELS.Right)
    with pytest.raises(VaezooError, match="loss elbo is no dataset"):
        check_dataset(registry().get("loss", "elbo"))


def test_an_unexpected_error_keeps_its_traceback() -> None:
    class Breaks(MODELS.Right):  # type: ignore[misc, name-defined]
        def prior(self, y: Any = None) -> Any:
            raise KeyError("lost")

    with pytest.raises(ContractError, match="sampling: KeyError: 'lost'") as raised:
        check_model(Breaks, only=["sampling"])
    assert isinstance(raised.value.__cause__, KeyError)


class TestParametrize:
    def test_a_test_a_check(self) -> None:
        mark = parametrize_with_checks(
            "vanilla", LOSSES.RightLoss, registry().get("dataset", "sprites")
        )
        names, cases = mark.args
        assert names == "check"
        ids = [case.id for case in cases]
        assert {"vanilla-shapes", "right_loss-phases", "sprites-disjoint"} <= {*ids}
        assert "vanilla-compiled" not in ids
        slow = [case.id for case in parametrize_with_checks("vanilla", slow=True).args[1]]
        assert "vanilla-compiled" in slow

    def test_what_comes_of_one(self) -> None:
        def run(subject: type, check: str) -> None:
            cases = parametrize_with_checks(subject).args[1]
            next(case for case in cases if case.id.endswith(f"-{check}")).values[0]()

        run(MODELS.Right, "gradients")
        with pytest.raises(ContractError, match=r"gradients: spare\.weight, .* \(use "):
            run(MODELS.Idle, "gradients")
        with pytest.raises(pytest.xfail.Exception, match="so be it"):
            run(known(MODELS.Idle), "gradients")
        with pytest.raises(pytest.skip.Exception, match="it is not conditional"):
            run(MODELS.Right, "labels")

    def test_without_pytest_it_says_so(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "pytest", None)
        with pytest.raises(VaezooError, match="pip install pytest"):
            parametrize_with_checks("vanilla")


def test_without_hypothesis_the_edge_cases_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "hypothesis" else find(name)
    )
    monkeypatch.setitem(sys.modules, "hypothesis", None)
    assert status(check_model, MODELS.Right, "shapes")[0] == "passed"
    with pytest.raises(ContractError, match="the mean of decode's"):
        check_model(MODELS.EvenOnly, only=["shapes"])


PLUGIN = """
{heavy}
from vaezoo import Options, ModelSpec, hookimpl

class TheOptions(Options):
    pass

@hookimpl
def register_models(register):
    register(ModelSpec(name="installed", target="installed_model:Right", summary="A model",
                       options="installed_plugin:TheOptions", tags=("elbo",)))
"""


@pytest.mark.parametrize(("heavy", "passes"), [("", True), ("import torch", False)])
def test_registration_must_not_import_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, heavy: str, passes: bool
) -> None:
    (tmp_path / "installed_plugin.py").write_text(PLUGIN.format(heavy=heavy))
    shutil.copy(HERE / "wrong_models.py", tmp_path / "installed_model.py")
    info = tmp_path / "outside-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: outside\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[vaezoo]\ninstalled = installed_plugin\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{Path(__file__).parents[2]}")
    registry.cache_clear()
    try:
        if passes:
            assert status(check_model, "installed", "registration") == ("passed", "")
        else:
            with pytest.raises(ContractError, match="installed_plugin: ImportError: it imports"):
                check_model("installed", only=["registration"])
    finally:
        for name in ("installed_plugin", "installed_model"):
            sys.modules.pop(name, None)


def test_two_processes_are_one(tmp_path: Path) -> None:
    file = HERE / "wrong_models.py"
    assert status(check_model, f"{file}:Right", "processes")[0] == "passed"
    with pytest.raises(ContractError, match="is different with two processes"):
        check_model(f"{file}:MixesProcesses", only=["processes"])


class TestCommand:
    def test_it_prints_what_why_and_how(self, capsys: pytest.CaptureFixture[str]) -> None:
        file = HERE / "wrong_models.py"
        assert main(["check", f"{file}:Right", "--only", "options, gradients"]) == 0
        printed = capsys.readouterr().out.splitlines()
        first = [line.split()[:2] for line in printed[:2]]
        assert first == [["options", "passed"], ["gradients", "passed"]]
        assert printed[2] == "right keeps the contract: 2 passed"

        assert main(["check", f"{file}:Idle", "--only", "gradients"]) == 1
        printed = capsys.readouterr().out.splitlines()
        assert printed[0].split()[:2] == ["gradients", "failed"]
        assert "why: spare.weight, spare.bias: no gradient, or 0" in printed[1]
        assert "hint: use the parameter in the loss" in printed[2]
        assert printed[3] == "idle breaks the contract: 1 failed"

    def test_json_is_as_documented(
        self, capsys: pytest.CaptureFixture[str], documented: Callable[[str], list[str]]
    ) -> None:
        line = ["check", f"{HERE / 'wrong_models.py'}:ReadsBack", "--json"]
        assert main([*line, "--only", "flops,seeds"]) == 1
        said = json.loads(capsys.readouterr().out)
        assert list(said) == documented("`vaezoo check NAME --json`")
        assert said["keeps"] is False
        for result in said["checks"]:
            assert list(result) == documented("A result")
        assert [result["status"] for result in said["checks"]] == ["passed", "failed"]
        assert "wrong_models.py, line" in said["checks"][1]["reason"]

    def test_options_and_kinds(self, capsys: pytest.CaptureFixture[str]) -> None:
        line = ["check", "sprites", "--only", "examples,validation"]
        changes = ("data.examples=100", "data.test=20", "data.image_size=8")
        small = [word for change in changes for word in ("--set", change)]
        assert main([*line, *small]) == 0
        assert "2 passed" in capsys.readouterr().out
        assert main([*line, "--set", "data.image_size=4"]) == 1
        assert "smaller than 8×8" in capsys.readouterr().out
        assert main(["check", "elbo", "--kind", "losses", "--only", "terms"]) == 0
        capsys.readouterr()
        for wrong, said in (
            (["check", "vanila"], "did you mean 'vanilla'"),
            (["check", "vanilla", "--set", "data.root=x"], "options of model, network"),
            (["check", "vanilla", "--only", "shape"], "did you mean 'shapes'"),
            (["check", str(HERE / "wrong_models.py")], "name one class"),
        ):
            assert main(wrong) == 2
            error = capsys.readouterr().err
            assert said in error
            assert error.count("\n") == 1

    def test_a_subject_is_paired_with_what_the_line_names(
        self, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        parts, models = HERE / "wrong_parts.py", HERE / "wrong_models.py"
        data = f"{HERE / 'wrong_datasets.py'}:Stripes"
        for line in (
            ["codes", "--model", "vq_vae", "--only", "terms"],
            ["elbo", "--kind", "losses", "--model", "vq_vae", "--only", "terms"],
            ["conv", "--model", "vq_vae", "--only", "out_shape,flops"],
            ["gaussian", "--kind", "samplers", "--only", "state,learns"],
            ["gaussian", "--kind", "samplers", "--model", "rae", "--only", "state"],
            ["autoregressive", "--only", "state"],
            [f"{parts}:RightNetwork", "--bottleneck", "vq", "--only", "flops"],
            [f"{models}:Right", "--data", data, "--only", "seeds"],
        ):
            assert main(["check", *line]) == 0, line
        assert "keeps the contract" in capsys.readouterr().out
        for line, said in (
            (["vanilla", "--model", "rae"], "--model: the model to check is vanilla"),
            (["sprites", "--model", "rae"], "a data set is checked alone: leave out --model"),
            (["vq", "--kind", "losses", "--model", "vanilla"], "needs a model with grid"),
            (["vmf", "--model", "ladder_vae"], "builds its own bottleneck"),
            (["autoregressive", "--model", "vanilla"], "is for discrete latents"),
            ([f"{models}:ImagesOfOneSize", "--data", data], "takes images of 1×16×16, and this"),
        ):
            assert main(["check", *line]) == 2, line
            error = capsys.readouterr().err
            assert said in error
            assert error.count("\n") == 1

    def test_an_error_is_shown_once(
        self, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        file = tmp_path / "broken.py"
        file.write_text(
            "from vaezoo.testing.subjects import ReferenceVAE\n"
            "class Broken(ReferenceVAE):\n"
            "    def decode(self, z, y=None):\n"
            "        return self.missing(z)\n"
        )
        assert main(["check", f"{file}:Broken", "--only", "shapes,overfit,terms,seeds"]) == 1
        said = capsys.readouterr().out
        assert said.count("has no attribute 'missing'") == 2  # the reason, and the traceback
        assert said.count("Traceback (most recent call last)") == 1
        assert said.count("why: the same error as in shapes") == 3
