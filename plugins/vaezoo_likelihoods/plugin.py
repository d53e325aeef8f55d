"""The plugin's entry. No torch here: `vaezoo list` and help work without it."""

from __future__ import annotations

from collections.abc import Callable

from vaezoo import LikelihoodSpec, hookimpl
from vaezoo.data.spec import Domain

_LEVELS: tuple[Domain, ...] = ("unit",)
_GREY: tuple[Domain, ...] = ("binary", "unit")
_REALS: tuple[Domain, ...] = ("binary", "unit", "real")
_COUNTS: tuple[Domain, ...] = ("count",)
_ALL: tuple[Domain, ...] = (*_REALS, *_COUNTS)

_ZINB = "zero_inflated_negative_binomial"

_OTHER_NAMES = {
    "bernoulli": ("bce", "binary", "crossentropy", "binarycrossentropy"),
    "gaussian": ("mse", "normal", "l2"),
    "gaussian_learned": ("learnednormal", "sigma", "optimalsigma"),
    "laplace": ("l1", "mae"),
    "categorical": ("softmax", "levels256"),
    "discretized_logistic_mixture": ("dlm", "dmol", "mixtureoflogistics", "logisticmixture"),
    "negative_binomial": ("nb",),
    _ZINB: ("zinb",),
}

_LIKELIHOODS: tuple[tuple[str, str, str, tuple[Domain, ...], str, str], ...] = (
    (
        "auto",
        "auto:auto_likelihood",
        "ScaleOptions",
        _ALL,
        "bernoulli for binary data, negative_binomial for counts, else gaussian_learned",
        "",
    ),
    (
        "bernoulli",
        "bernoulli:bernoulli",
        "",
        _GREY,
        "0 or 1 with a probability; on grey values the cross-entropy",
        "Kingma & Welling 2013, arXiv:1312.6114",
    ),
    (
        "continuous_bernoulli",
        "continuous_bernoulli:ContinuousBernoulliLikelihood",
        "",
        _LEVELS,
        "Bernoulli with the constant that makes it a density on [0, 1]",
        "Loaiza-Ganem & Cunningham 2019, arXiv:1907.06845",
    ),
    (
        "gaussian",
        "gaussian:gaussian",
        "ScaleOptions",
        _REALS,
        "Gaussian with a fixed scale: a weighted squared error",
        "Kingma & Welling 2013, arXiv:1312.6114",
    ),
    (
        "gaussian_learned",
        "gaussian:gaussian_learned",
        "LearnedScaleOptions",
        _REALS,
        "Gaussian with a learned scale: one, one for each value, or predicted",
        "Rybkin et al. 2020, arXiv:2006.13202",
    ),
    (
        "laplace",
        "laplace:LaplaceLikelihood",
        "LearnedScaleOptions",
        _REALS,
        "Laplace with a learned scale: a weighted absolute error",
        "",
    ),
    (
        "student_t",
        "student_t:StudentTLikelihood",
        "StudentTOptions",
        _REALS,
        "Student's t with a learned scale: heavy tails, for data with outliers",
        "Takahashi et al. 2018, IJCAI",
    ),
    (
        "beta",
        "beta:BetaLikelihood",
        "",
        _LEVELS,
        "Beta with a predicted mean and precision: a density on [0, 1]",
        "Smithson & Verkuilen 2006, doi:10.1037/1082-989X.11.1.54",
    ),
    (
        "categorical",
        "categorical:CategoricalLikelihood",
        "",
        _LEVELS,
        "A probability for each of 256 levels",
        "van den Oord et al. 2016, arXiv:1601.06759",
    ),
    (
        "discretized_logistic",
        "discretized_logistic:DiscretizedLogisticLikelihood",
        "LearnedScaleOptions",
        _LEVELS,
        "A logistic variable, rounded to 256 levels, with a learned scale",
        "Kingma et al. 2016, arXiv:1606.04934",
    ),
    (
        "discretized_logistic_mixture",
        "discretized_logistic_mixture:DiscretizedLogisticMixtureLikelihood",
        "MixtureOptions",
        _LEVELS,
        "A mixture of logistics, rounded to 256 levels, with dependent colours",
        "Salimans et al. 2017, arXiv:1701.05517",
    ),
    (
        "poisson",
        "poisson:PoissonLikelihood",
        "",
        _COUNTS,
        "Counts whose variance is their mean",
        "",
    ),
    (
        "negative_binomial",
        "negative_binomial:NegativeBinomialLikelihood",
        "DispersionOptions",
        _COUNTS,
        "Counts whose variance is larger than their mean",
        "Lopez et al. 2018, doi:10.1038/s41592-018-0229-2",
    ),
    (
        _ZINB,
        f"{_ZINB}:ZeroInflatedNegativeBinomialLikelihood",
        "DispersionOptions",
        _COUNTS,
        "Negative binomial counts with a predicted probability of extra zeros",
        "Lopez et al. 2018, doi:10.1038/s41592-018-0229-2",
    ),
)


@hookimpl
def register_likelihoods(register: Callable[[LikelihoodSpec], None]) -> None:
    for name, target, options, domains, summary, paper in _LIKELIHOODS:
        register(
            LikelihoodSpec(
                name=name,
                target=f"vaezoo_likelihoods.{target}",
                options=f"vaezoo_likelihoods.options:{options}" if options else None,
                domains=domains,
                summary=summary,
                paper=paper,
                other_names=_OTHER_NAMES.get(name, ()),
                default=name == "auto",
            )
        )
