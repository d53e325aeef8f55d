"""What two numbers must share before one can be called the better."""

from __future__ import annotations

import hashlib

from vaezoo.evaluation.metric import EvalContext, MetricResult
from vaezoo.plugins.specs import MetricSpec


def comparable(spec: MetricSpec, setting: EvalContext, measured: MetricResult) -> str:
    """Words that are the same for two numbers of a metric if, and only if, they may be ranked."""
    told = {
        "data": f"data {_data(setting)}",
        "likelihood": _likelihood(setting),
        "importance_samples": f"K = {setting.importance_samples}",
        "examples": f"{measured.examples or setting.examples} examples",
        "network": f"network {measured.network}",
    }
    return ", ".join(told[word] for word in spec.comparable_keys)


def _data(setting: EvalContext) -> str:
    """The data set as it was read, how it is binarized, and which split."""
    spec = setting.model.data
    fingerprint = "" if setting.splits is None else setting.splits.fingerprint
    known = (fingerprint, spec.shape, spec.domain, setting.batches.binarize, setting.examples)
    return f"{setting.split_name} {hashlib.sha256(repr(known).encode()).hexdigest()[:12]}"


def _likelihood(setting: EvalContext) -> str:
    """log p(x) of which measure: a probability of 0 and 1, a density, or neither.

    A Bernoulli's cross-entropy on grey values is no log-probability of theirs, and what is given
    the label of its example answers an easier question.
    """
    model, data = setting.model, setting.model.data
    likelihood = getattr(model, "likelihood", None)
    if likelihood is None:
        measure = "a likelihood of its own"
    elif data.domain not in likelihood.normalised_on:
        measure = f"{type(likelihood).__name__} off its domain"
    else:
        measure = "probability" if data.domain == "binary" else "density"
    return measure + (" given the label" if model.conditional else "")
