"""Registration of the metrics, in the order of lists. This module imports no torch."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from vaezoo import MetricSpec, hookimpl

_NATS = "nats per example"
_BURDA = "Burda, Grosse & Salakhutdinov 2015, arXiv:1509.00519"
_HOFFMAN = "Hoffman & Johnson 2016, ELBO surgery"
_OORD = "van den Oord et al. 2017, arXiv:1711.00937"

_likelihood = partial(
    MetricSpec,
    group="likelihood",
    unit=_NATS,
    requires=("elbo",),
    comparable_keys=("data", "likelihood"),
    default=True,
)
_bound = partial(_likelihood, target="vaezoo_metrics.likelihood:Bound")
_latent = partial(MetricSpec, group="latent", direction="neither", default=True)
_aggregate = partial(
    MetricSpec,
    group="latent",
    target="vaezoo_metrics.aggregate:AggregatePosterior",
    paper=f"{_HOFFMAN}, section 2",
    unit=_NATS,
    direction="neither",
    requires=("density", "importance"),
    comparable_keys=("data", "examples"),
)
_codes = partial(
    _latent, target="vaezoo_metrics.codes:CodeCounts", paper=_OORD, requires=("discrete",)
)
_reconstructions = partial(
    MetricSpec,
    group="reconstructions",
    direction="higher",
    requires=("images", "bounded"),
    default=True,
)

METRICS = (
    _bound(
        name="elbo",
        summary="A lower bound on the log-likelihood, at one posterior sample an example",
        formula="E_q[log p(x|z)] − KL(q(z|x) ‖ p(z)) = −(rate + distortion)",
        paper="Kingma & Welling 2013, arXiv:1312.6114, equation 3",
        direction="higher",
    ),
    _likelihood(
        name="log_likelihood",
        target="vaezoo_metrics.likelihood:LogLikelihood",
        summary="The importance-weighted bound, which rises to the log-likelihood with K",
        formula="log (1/K) Σ_k p(x|z_k) p(z_k) / q(z_k|x), z_k from q(z|x)",
        paper=f"{_BURDA}, equation 8",
        direction="higher",
        requires=("importance",),
        comparable_keys=("data", "likelihood", "importance_samples"),
        cost="K decodings an example, in chunks: memory does not grow with K",
    ),
    _bound(
        name="rate",
        summary="KL divergence from the posterior to the prior",
        formula="KL(q(z|x) ‖ p(z))",
        paper="Alemi et al. 2018, arXiv:1711.00464, equation 4",
        direction="neither",
        comparable_keys=("data",),
    ),
    _bound(
        name="distortion",
        summary="Negative log-likelihood of an example given its latents",
        formula="−E_q[log p(x|z)]",
        paper="Alemi et al. 2018, arXiv:1711.00464, equation 3",
        direction="neither",
    ),
    _bound(
        name="bits_per_dim",
        summary="The ELBO in bits for each value of an example; densities times a level",
        formula="−ELBO / (D ln 2), + log2 255 for a density over grey values in [0, 1]",
        paper="Theis, van den Oord & Bethge 2015, arXiv:1511.01844, section 3.1",
        unit="bits per dimension",
        direction="lower",
    ),
    _latent(
        name="active_units",
        target="vaezoo.evaluation.latents:LatentMoments",
        summary="Latents whose posterior mean varies by more than 0.01 over the examples",
        formula="#{i : Var_x(E_q[z_i]) > 0.01}",
        paper=f"{_BURDA}, section 5",
        unit="latents",
        requires=("continuous",),
    ),
    _latent(
        name="collapsed_units",
        target="vaezoo.evaluation.latents:LatentKls",
        summary="Latents whose posterior is the prior for 99 % of the examples",
        formula="#{i : P_x(KL(q(z_i|x) ‖ p(z_i)) < 0.01) ≥ 0.99}",
        paper="Lucas et al. 2019, arXiv:1911.02469, definition 1",
        unit="latents",
        requires=("density",),
    ),
    _aggregate(
        name="mutual_information",
        summary="Information in the latents about which of N examples it was; at most log N",
        formula="E_x E_q(z|x)[log q(z|x) − log q(z)], q(z) = Σ_n q(z|x_n) / N",
        cost="a thousand samples against N ≤ 10,000 posteriors: seconds",
    ),
    _aggregate(
        name="marginal_kl",
        summary="KL divergence from the aggregate posterior to the prior",
        formula="KL(q(z) ‖ p(z)) = rate − I(x; z), q(z) = Σ_n q(z|x_n) / N",
        cost="shared with mutual_information",
    ),
    _codes(
        name="code_use",
        summary="Fraction of the codebook that occurs among the examples",
        formula="#{c : c occurs} / #{c}",
    ),
    _codes(
        name="code_perplexity",
        summary="Number of equally frequent codes with the same entropy",
        formula="exp(−Σ_c p_c log p_c), p_c the share of positions with code c",
        unit="code words",
    ),
    _reconstructions(
        name="mse",
        target="vaezoo_metrics.reconstruction:SquaredErrors",
        summary="Mean squared error of the reconstruction from the posterior's mean",
        formula="Σ_d (x_d − x̂_d)² / D, in the units of the data",
        direction="lower",
        requires=(),
    ),
    _reconstructions(
        name="psnr",
        target="vaezoo_metrics.reconstruction:Psnr",
        summary="Peak signal-to-noise ratio of reconstructions, mean over examples, at most 100",
        formula="−10 log10 MSE, values in [0, 1]",
        unit="dB",
    ),
    _reconstructions(
        name="ssim",
        target="vaezoo_metrics.reconstruction:Ssim",
        summary="Structural similarity of reconstructions, Gaussian window of 11 pixels",
        formula="(2 μ_x μ_y + c₁)(2 σ_xy + c₂) / ((μ_x² + μ_y² + c₁)(σ_x² + σ_y² + c₂))",
        paper="Wang et al. 2004, Image quality assessment, equation 13",
    ),
    _reconstructions(
        name="ms_ssim",
        target="vaezoo_metrics.reconstruction:MsSsim",
        summary="Structural similarity at five scales; images of 176 pixels and more",
        formula="l_5^0.1333 Π_j (c_j s_j)^w_j",
        paper="Wang, Simoncelli & Bovik 2003, Multiscale structural similarity, equation 7",
        default=False,
    ),
    _reconstructions(
        name="reconstruction_r2",
        target="vaezoo_metrics.reconstruction:SquaredErrors",
        summary="Fraction of the variance around the mean example that reconstructions explain",
        formula="1 − Σ (x − x̂)² / Σ (x − mean x)²",
        requires=(),
    ),
)


@hookimpl
def register_metrics(register: Callable[[MetricSpec], None]) -> None:
    for spec in METRICS:
        register(spec)
