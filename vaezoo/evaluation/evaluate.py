"""Evaluation of a model on a split: the value of each metric, or the reason why there is none."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch

from vaezoo.distributed import local_only, rank, world_size
from vaezoo.distributed.launch import gather_objects, on_rank0_broadcast
from vaezoo.errors import OptionError, VaezooError, counted
from vaezoo.evaluation.latents import LatentKls, LatentMoments, latent_report
from vaezoo.evaluation.metric import (
    POSTERIOR_NOISE,
    EvalBatch,
    EvalContext,
    MetricResult,
    MetricState,
    MetricUnavailable,
)
from vaezoo.plugins.registry import registry
from vaezoo.plugins.specs import METRIC_GROUPS, MetricSpec
from vaezoo.runtime.device import evaluation_mode, seeded

_NOISE_OF_ONE_PROCESS = 3
"""The stream of a batch's noise for states that processes do not share."""


@dataclass(frozen=True, repr=False)
class Evaluation:
    """The values of all metrics that were asked for. None where there is none: notes say why.

    The first ten are in `metrics` too.

    elbo, log_likelihood, rate, distortion: nats per example. psnr: dB.
    log_likelihood_standard_error: of the mean over the examples. metrics: every value by the name
        of its metric. latents: a row for each latent; see latent_report.
    """

    elbo: float | None
    log_likelihood: float | None
    rate: float | None
    distortion: float | None
    bits_per_dim: float | None
    mse: float | None
    psnr: float | None
    ssim: float | None
    active_units: int | None
    reconstruction_r2: float | None
    examples: int
    importance_samples: int
    log_likelihood_standard_error: float | None
    notes: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, MetricResult] = field(default_factory=dict)
    latents: list[dict[str, Any]] = field(default_factory=list)

    def __repr__(self) -> str:
        """A line for each metric, with its uncertainty and unit, or why it has no value."""
        lines = [f"Evaluation on {counted(self.examples, 'example')}"]
        for name, result in self.metrics.items():
            error = "" if result.uncertainty is None else f" ± {result.uncertainty:.2g}"
            value = "none" if result.value is None else f"{result.value:.5g}{error} {result.unit}"
            note = f" ({result.note})" if result.note else ""
            lines.append(f"  {result.label or name:24} {value.rstrip()}{note}")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Evaluation:
        """The inverse of `to_dict`."""
        metrics = {name: MetricResult(**result) for name, result in values["metrics"].items()}
        return cls(**{**values, "metrics": metrics})


_TOP_LEVEL = tuple(Evaluation.__dataclass_fields__)[:10]
"""The metrics that Evaluation has as attributes."""


def select_metrics(words: Iterable[str]) -> list[MetricSpec]:
    """Metrics by name, by group, `default` or `all`, each once, in the order of the registry."""
    known, wanted = all_metrics(), set()
    for word in words:
        if word in METRIC_GROUPS:
            wanted |= {spec.name for spec in known if spec.group == word}
        elif word in ("default", "all"):
            wanted |= {spec.name for spec in known if spec.default or word == "all"}
        else:
            wanted.add(registry().get("metric", word).name)
    if not wanted:
        raise OptionError("--metric names no metric (vaezoo list --kind metrics shows them)")
    return [spec for spec in known if spec.name in wanted]


def evaluate(context: EvalContext, specs: Sequence[MetricSpec]) -> Evaluation:
    """Compute metrics in one pass over every example of the split.

    The noise of a batch follows from the context's seed and the batch's number; the generators and
    the modules' modes are left as they were. Several processes share the batches: all must call
    it, and each gets the values that one process would compute; states that are not mergeable see
    every batch, on rank 0. A metric that fails has no value, and a note says why. If every one
    fails, the model is at fault, and the error is raised.
    """
    missing = {s.name: next((w for w in s.requires if not context.has(w)), None) for s in specs}
    kinds = {spec.name: _load(spec) for spec in specs if missing[spec.name] is None}
    # Not inference_mode: a posterior may need gradients of its own.
    with evaluation_mode(context.model), seeded(context.seed, context.device), torch.no_grad():
        reported: list[type[MetricState]] = [LatentMoments] if context.has("continuous") else []
        reported += [LatentKls] if context.has("density") else []
        states = _States(context, [*reported, *kinds.values()])
        states.update()
        states.merge()

        def results() -> dict[str, Any]:
            found = {
                spec.name: states.compute(spec, kinds[spec.name])
                if spec.name in kinds
                else MetricResult(None, note=context.why_not(missing[spec.name] or ""))
                for spec in specs
            }
            if kinds and len(states.errors) == len(kinds):
                raise next(iter(states.errors.values()))
            found = {spec.name: _complete(spec, context, found[spec.name]) for spec in specs}
            return _evaluation(context, found, states).to_dict()

        return Evaluation.from_dict(on_rank0_broadcast(results))


class _States:
    """The states of all metrics: each sees every batch, unless it has failed before.

    If several processes share the batches, mergeable states see each batch in one process.
    """

    def __init__(self, context: EvalContext, kinds: Iterable[type[MetricState]]) -> None:
        self.context = context
        self.kinds = list(dict.fromkeys(kinds))
        self.failed: dict[type[MetricState], Exception] = {}
        self.errors: dict[str, Exception] = {}
        self.states: dict[type[MetricState], MetricState] = {}
        for kind in self.kinds:
            if kind.mergeable or rank() == 0:
                try:
                    with local_only():
                        self.states[kind] = kind(context)
                except Exception as error:
                    self.failed[kind] = error

    def update(self) -> None:
        batches, done = self.context.batches, 0
        everything = torch.arange(len(batches.split))
        for number, index in enumerate(everything.split(batches.batch_size)):
            ours = number % world_size() == rank()
            left = [kind for kind in self.states if kind not in self.failed]
            mergeable = [kind for kind in left if kind.mergeable and ours]
            others = [kind for kind in left if not kind.mergeable]
            if mergeable or others:
                with local_only():
                    batch = EvalBatch(self.context, batches.batch(index), index, number)
                    # What each draws follows from the batch alone, whichever states see it here.
                    with batch.noise(POSTERIOR_NOISE):
                        if self.context.has("elbo"):
                            _ = batch.z  # drawn first: the same whatever is evaluated
                        self._update(batch, mergeable)
                    with batch.noise(_NOISE_OF_ONE_PROCESS):
                        self._update(batch, others)
            done += len(index)
            self.context.on_progress("one pass", done, len(everything))

    def _update(self, batch: EvalBatch, kinds: list[type[MetricState]]) -> None:
        for kind in kinds:
            try:
                self.states[kind].update(batch)
            except Exception as error:
                self.failed[kind] = error

    def merge(self) -> None:
        """Merge the states of all processes, and the errors of those that failed, on rank 0."""
        if world_size() == 1:
            return
        kinds = {str(n): kind for n, kind in enumerate(self.kinds) if kind.mergeable}
        failed = {n: _describe(self.failed[k]) for n, k in kinds.items() if k in self.failed}
        held = {
            f"{n}.{name}": tensor.cpu()
            for n, kind in kinds.items()
            if kind not in self.failed
            for name, accumulator in self.states[kind].accumulators.items()
            if (tensor := accumulator.state) is not None
        }
        for errors in gather_objects(failed):
            for n, (unavailable, message) in errors.items():
                error = MetricUnavailable if unavailable else VaezooError
                self.failed.setdefault(kinds[n], error(message))
        for tensors in gather_objects(held)[1:]:
            for key, tensor in tensors.items():
                n, _, name = key.partition(".")
                if kinds[n] not in self.failed:
                    accumulator = self.states[kinds[n]].accumulators[name]
                    accumulator.merge(tensor.to(self.context.device))

    def compute(self, spec: MetricSpec, kind: type[MetricState]) -> MetricResult:
        try:
            if kind in self.failed:
                raise self.failed[kind]
            result: MetricResult = getattr(self.states[kind], spec.name)()
        except MetricUnavailable as reason:
            return MetricResult(None, note=str(reason))
        except Exception as error:
            self.errors[spec.name] = error
            return MetricResult(None, note=f"it failed: {_describe(error)[1]}")
        if result.value is not None and not math.isfinite(result.value):
            return MetricResult(None, note=f"it came out as {result.value}")
        return result

    def get(self, kind: type[MetricState]) -> Any:
        """The state, or None if it has failed or was not asked for."""
        return None if kind in self.failed else self.states.get(kind)


def comparability(spec: MetricSpec, context: EvalContext, result: MetricResult) -> str:
    """A text that is equal for two values of a metric if, and only if, they may be ranked."""
    data = context.model.data
    fingerprint = "" if context.splits is None else context.splits.fingerprint
    known = (fingerprint, data.shape, data.domain, context.batches.binarize, context.num_examples)
    digest = hashlib.sha256(repr(known).encode()).hexdigest()[:12]
    texts = {
        "data": f"data {context.split_name} {digest}",
        "likelihood": _likelihood(context),
        "importance_samples": f"K = {context.importance_samples}",
        "examples": f"{result.examples or context.num_examples} examples",
        "network": f"network {result.network}",
    }
    return ", ".join(texts[word] for word in spec.comparable_keys)


def _likelihood(context: EvalContext) -> str:
    """The measure of log p(x): a probability of 0 and 1, a density, or neither.

    A Bernoulli's cross-entropy on grey values is not their log-probability, and a conditional
    model answers an easier question.
    """
    model, data = context.model, context.model.data
    likelihood = getattr(model, "likelihood", None)
    if likelihood is None:
        measure = "a likelihood of its own"
    elif data.domain not in likelihood.normalised_on:
        measure = f"{type(likelihood).__name__} off its domain"
    else:
        is_mass = likelihood.is_discrete or data.domain in ("binary", "count")
        measure = "probability" if is_mass else "density"
    return measure + (" given the label" if model.conditional else "")


def _complete(spec: MetricSpec, context: EvalContext, result: MetricResult) -> MetricResult:
    """The result with what follows from its metric and the context."""
    known = result.uncertainty is not None and math.isfinite(result.uncertainty)
    return replace(
        result,
        uncertainty=result.uncertainty if known else None,
        uncertainty_kind=result.uncertainty_kind if known else "",
        label=result.label or spec.name,
        examples=result.examples or context.num_examples,
        unit=spec.unit,
        direction=spec.direction,
        comparable=comparability(spec, context, result),
    )


def _evaluation(
    context: EvalContext, results: dict[str, MetricResult], states: _States
) -> Evaluation:
    notes = {name: result.note for name, result in results.items() if result.value is None}
    notes.update({name: "it was not asked for" for name in _TOP_LEVEL if name not in results})
    none = MetricResult(None)
    log_likelihood = results.get("log_likelihood", none)
    if log_likelihood.uncertainty is None:
        reason = notes.get("log_likelihood", "a single example has none")
        notes["log_likelihood_standard_error"] = reason
    weighted = context.has("importance") and "log_likelihood" in results
    values: dict[str, Any] = {name: results.get(name, none).value for name in _TOP_LEVEL}
    return Evaluation(
        **values,
        examples=context.num_examples,
        importance_samples=context.importance_samples if weighted else 0,
        log_likelihood_standard_error=log_likelihood.uncertainty,
        notes=notes,
        metrics=results,
        latents=latent_report(states.get(LatentMoments), states.get(LatentKls)),
    )


def _describe(error: Exception) -> tuple[bool, str]:
    """Whether a metric is unavailable rather than at fault, and the message, with its type."""
    if isinstance(error, MetricUnavailable):
        return True, str(error)
    prefix = "" if isinstance(error, VaezooError) else f"{type(error).__name__}: "
    return False, f"{prefix}{' '.join(str(error).split())}"


def _load(spec: MetricSpec) -> type[MetricState]:
    found = spec.load()
    if not (isinstance(found, type) and issubclass(found, MetricState)):
        raise VaezooError(f"metric {spec.name}: {spec.target} is no MetricState")
    if not callable(getattr(found, spec.name, None)):
        raise VaezooError(f"metric {spec.name}: {spec.target} has no method {spec.name}()")
    return found


def all_metrics() -> list[MetricSpec]:
    """In the order of their groups, and in a group as their plugin registers them."""
    specs = [spec for record in registry().records for spec in record.specs]
    metrics = [spec for spec in specs if isinstance(spec, MetricSpec)]
    return sorted(metrics, key=lambda spec: list(METRIC_GROUPS).index(spec.group))
