"""Findings: what is wrong with a trained model, in numbers and one line each."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import vaezoo
from small_jobs import SMALL_JOB
from vaezoo import TensorSplit
from vaezoo.data.loader import BatchLoader
from vaezoo.evaluation.findings import find_problems, gaussian_kl
from vaezoo.evaluation.metric import EvalContext
from vaezoo.models.base import UNFITTED_PRIOR

QUICK: dict[str, Any] = {**SMALL_JOB, "epochs": None, "steps": 40}


def findings(out: Path, model: str, **options: Any) -> dict[str, dict[str, Any]]:
    job = {k: v for k, v in QUICK.items() if model != "vq_vae" or k != "latent_dim"}
    run = vaezoo.train(model, out=out, **{**job, **options})
    for finding in run.summary["findings"]:
        assert "\n" not in finding["message"]
    return {finding["kind"]: finding for finding in run.summary["findings"]}


def test_a_healthy_run_has_none(tmp_path: Path) -> None:
    assert findings(tmp_path / "r", "vanilla", steps=150) == {}


def test_divergence_names_both_losses_and_a_rate(tmp_path: Path) -> None:
    found = findings(tmp_path / "r", "iaf", lr=10.0)
    assert set(found) == {"divergence"}
    assert found["divergence"]["value"] > 1e5
    assert "--lr 0.001" in found["divergence"]["message"]


def test_a_loss_that_has_hardly_changed_is_no_divergence(tmp_path: Path) -> None:
    # Nothing can be learned from noise, so that the rate of a few steps is all that changes.
    noise = np.random.default_rng(0).random((100, 64, 9), dtype=np.float32)
    np.savez(tmp_path / "noise.npz", x=noise)
    options = {"hidden": (8,), "steps": 5, "batch_size": 64}
    path = tmp_path / "noise.npz"
    run = vaezoo.train("vanilla", data="npz", out=tmp_path / "r", root=path, **options)
    assert -0.1 < run.summary["reconstruction_r2"] < 0.05
    assert "divergence" not in {finding["kind"] for finding in run.summary["findings"]}


def test_posterior_collapse_names_the_rate(tmp_path: Path) -> None:
    found = findings(tmp_path / "r", "vanilla", beta=1000.0, steps=150)
    rate = found["posterior_collapse"]["value"]
    assert 0 <= rate < 1
    assert f"{rate:.2g} nats per example" in found["posterior_collapse"]["message"]
    assert "of 4 are not used" in found["posterior_collapse"]["message"]


def test_a_prior_that_does_not_match_the_latents(tmp_path: Path) -> None:
    found = findings(tmp_path / "r", "vanilla", beta=1e-6, steps=300, lr=1e-2)
    assert set(found) == {"prior_mismatch"}
    assert found["prior_mismatch"]["value"] > 4  # one nat for each of 4 latents


def test_skipped_steps_are_counted(tmp_path: Path) -> None:
    found = findings(tmp_path / "r", "vanilla", lr=1e20, steps=8, on_nonfinite="skip")
    assert found["skipped_steps"]["value"] >= 6
    assert "of 8 steps were skipped" in found["skipped_steps"]["message"]


def test_a_codebook_of_one_code(tmp_path: Path) -> None:
    options = {"hidden": (4, 4), "codes": 512, "dead_code_steps": None, "prior_steps": 0}
    found = findings(tmp_path / "r", "vq_vae", steps=5, **options)
    used = found["codebook_collapse"]["value"] * 512
    assert used == pytest.approx(round(used))
    assert 1 <= round(used) <= 10


@pytest.mark.parametrize("fitted", [False, True])
def test_a_prior_that_is_not_fitted(tmp_path: Path, fitted: bool) -> None:
    found = findings(tmp_path / "r", "vq_vae", hidden=(8, 8), prior_steps=2 if fitted else 0)
    assert ("unfitted_prior" in found) == (not fitted)
    if not fitted:
        assert found["unfitted_prior"]["value"] is None
        assert found["unfitted_prior"]["message"] == UNFITTED_PRIOR


@pytest.mark.parametrize(
    ("collapsed", "said"),
    [([True, False, True], "nats per example, and 2 of 3 are not used:"), ([False], "example:")],
)
def test_posterior_collapse_names_the_latents_that_are_not_used(
    collapsed: list[bool], said: str
) -> None:
    model = vaezoo.create_model("vanilla", (1, 8, 8), hidden=(4,), latent_dim=3)
    batches = BatchLoader(
        TensorSplit(torch.zeros(4, 1, 8, 8)), batch_size=2, device=torch.device("cpu")
    )
    rows = [{"collapsed": one} for one in collapsed]
    evaluation: Any = SimpleNamespace(rate=0.25, reconstruction_r2=0.1, latents=rows)
    finding, *_ = find_problems(EvalContext(model, frozenset(), batches), evaluation)
    assert (finding.kind, finding.value) == ("posterior_collapse", 0.25)
    assert f"the latents hold 0.25 nats per {said.removeprefix('nats per ')}" in finding.message


def test_a_single_sample_has_no_kl_and_two_have() -> None:
    z = torch.tensor([[0.0], [1.0], [3.0]]).double()
    assert gaussian_kl(z[:1], z) == gaussian_kl(z, z[:1]) == 0.0
    assert gaussian_kl(z[:2], z[1:]) > 0.1


@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (3.0, 0.0), (1.0, 2.0), (0.1, -1.0)])
def test_the_kl_of_gaussians_is_the_closed_form(scale: float, shift: float) -> None:
    """KL(N(m, s²) ‖ N(0, 1)) = ½ (s² + m² − 1 − ln s²), for each of two latents."""
    noise = torch.randn(200_000, 2, generator=torch.Generator().manual_seed(0)).double()
    other = torch.randn(200_000, 2, generator=torch.Generator().manual_seed(1)).double()
    kl = scale**2 + shift**2 - 1 - 2 * torch.tensor(scale).log().item()
    assert gaussian_kl(scale * noise + shift, other) == pytest.approx(kl, rel=0.02, abs=1e-3)
