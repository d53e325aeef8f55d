"""Registration of the metrics. This module imports no torch."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from vaezoo import MetricSpec, hookimpl

_EASTWOOD = "Eastwood & Williams 2018, A framework for disentangled representations, section 2"

_metric = partial(
    MetricSpec,
    target="vaezoo_disentanglement.metrics:FactorScores",
    group="factors",
    direction="higher",
    requires=("factors", "continuous"),
    comparable_keys=("data", "examples"),
    cost="on up to 10,000 examples in each repetition: seconds",
)

METRICS = (
    _metric(
        name="mig",
        summary="Lead of the latent with most mutual information with a factor over the second",
        formula="mean_k (I(z_(1); v_k) − I(z_(2); v_k)) / H(v_k), 20 cells a latent",
        paper="Chen et al. 2018, arXiv:1802.04942, equation 6; cells: Locatello et al. 2019",
    ),
    _metric(
        name="sap",
        summary="Lead of the latent that best predicts a factor over the second",
        formula="mean_k (A_(1)k − A_(2)k), A the balanced accuracy of thresholds on one latent",
        paper="Kumar, Sattigeri & Balakrishnan 2017, arXiv:1711.00848, section 3",
        extra="metrics",
    ),
    _metric(
        name="dci_disentanglement",
        summary="How much each latent depends on a single factor, by importance in random forests",
        formula="Σ_i ρ_i (1 − H_K(R_i / Σ_k R_ik)), ρ_i = Σ_k R_ik / Σ R",
        paper=_EASTWOOD,
        cost="fifty trees a factor, in each repetition: minutes",
        extra="metrics",
    ),
    _metric(
        name="dci_completeness",
        summary="How much each factor depends on a single latent, by the same importances",
        formula="mean_k (1 − H_D(R_k / Σ_i R_ik))",
        paper=_EASTWOOD,
        cost="shared with dci_disentanglement",
        extra="metrics",
    ),
    _metric(
        name="dci_informativeness",
        summary="Held-out accuracy of random forests that predict the factors from the latents",
        formula="mean_k P(forest(z) = v_k)",
        paper=_EASTWOOD,
        cost="shared with dci_disentanglement",
        extra="metrics",
    ),
    _metric(
        name="factor_vae_score",
        summary="How often the latent that varies least identifies the factor that was held fixed",
        formula="accuracy of majority votes on argmin_i Var(z_i | v_k) / Var(z_i)",
        paper="Kim & Mnih 2018, arXiv:1802.05983, section 3.1",
    ),
    _metric(
        name="modularity",
        summary="How much each latent depends on a single factor, by mutual information",
        formula="mean_i 1 − Σ_{k≠max} I(z_i; v_k)² / (max_k I(z_i; v_k)² (K − 1))",
        paper="Ridgeway & Mozer 2018, arXiv:1802.05312, equation 2",
    ),
)


@hookimpl
def register_metrics(register: Callable[[MetricSpec], None]) -> None:
    for spec in METRICS:
        register(spec)
