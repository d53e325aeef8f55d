"""Each model of the zoo with each part: it trains, or it is refused in one line."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from vaezoo.cli.main import main
from vaezoo.plugins.registry import registry
from vaezoo.plugins.sources import import_file
from vaezoo.plugins.specs import PARTS, ModelSpec
from vaezoo.testing.subjects import ModelWithLoss

WRITER = import_file(str(Path(__file__).parents[2] / ".ci" / "write_docs.py"))


PAGE = WRITER.DOCS / "combinations.md"


QUICK = ("aae", "cvae", "ladder_vae", "vanilla", "vq_vae")
"""One model of each wiring: these run in every run of the tests, the others take minutes."""

MODELS = [
    pytest.param(spec, id=spec.name, marks=() if spec.name in QUICK else pytest.mark.slow)
    for spec in registry().specs("model")
]


@pytest.mark.parametrize("model", MODELS)
def test_every_pair_trains_or_is_refused_as_the_page_says(model: ModelSpec) -> None:
    """Any other error than a refusal would end it: so would a term that is no number."""
    rows = [row for row in PAGE.read_text("utf-8").splitlines() if f"| `{model.name}` |" in row]
    assert rows == list(WRITER.combination_rows(model).values())


def test_the_page_has_the_models_that_there_are() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", PAGE.read_text("utf-8"), re.M)
    assert rows == [model.name for model in registry().specs("model")] * len(PARTS)


@pytest.mark.parametrize("spec", registry().specs("model"), ids=lambda spec: spec.name)
def test_the_last_layer_of_the_decoder_runs_last(spec: ModelSpec) -> None:
    pair = ModelWithLoss(spec)
    model, ran = pair.build(), []
    for module in model.decoder.modules():
        if next(module.parameters(recurse=False), None) is not None:  # it may have layers inside
            module.register_forward_pre_hook(lambda module, *_: ran.append(module))
    model(*pair.batch())
    assert model.last_decoder_layer is ran[-1]


def test_list_compatible(
    capsys: pytest.CaptureFixture[str], documented: Callable[[str], list[str]]
) -> None:
    assert main(["list", "--compatible", "gumbel_vae", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert list(rows[0]) == documented("`vaezoo list --compatible MODEL --json`")
    found = {(row["kind"], row["name"]): row for row in rows}
    assert {*found} == {(kind, spec.name) for kind in PARTS for spec in registry().specs(kind)}
    assert found["network", "mlp"] == {"kind": "network", "name": "mlp", "fits": True, "reason": ""}
    assert "continuous latents" in found["sampler", "gaussian"]["reason"]
    assert "codes of a codebook" in found["sampler", "autoregressive"]["reason"]
    assert all("\n" not in row["reason"] for row in found.values())
    assert main(["list", "--compatible", "vanila"]) == 2
    assert "did you mean 'vanilla'" in capsys.readouterr().err
