"""The numbers of a model on a split, each in its unit, or the reason why there is none."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch

from vaezoo.distributed import local_only, rank, world_size
from vaezoo.distributed.launch import gather_objects, on_rank0_broadcast
from vaezoo.errors import OptionError, VaezooError
from vaezoo.evaluation.comparable import comparable
from vaezoo.evaluation.metric import (
    STREAMS,
    BaseMetric,
    EvalBatch,
    EvalContext,
    Evidence,
    MetricResult,
    MetricState,
    MetricUnavailable,
)
from vaezoo.evaluation.metrics.latent import LatentKls, LatentMoments, latent_report
from vaezoo.plugins.registry import registry
from vaezoo.plugins.specs import METRIC_GROUPS, METRIC_REQUIRES, MetricSpec
from vaezoo.runtime.seed import evaluation_mode, seeded

_NOT_ASKED = "it was not asked for"
_NOISE, _NOISE_OF_OTHERS = 0, 3
"""Streams of a batch's noise: of what processes share, and of what they do not."""


@dataclass(frozen=True)
class Number:
    """One metric of one run. value: None where there is none, and note says why.

    uncertainty, uncertainty_kind: how sure the number is, and what that is. label: what to call it.
    comparable: two numbers of a metric may be ranked if these words are the same, and only then.
    """

    value: float | None
    uncertainty: float | None
    uncertainty_kind: str
    note: str
    label: str
    unit: str
    direction: str
    comparable: str


@dataclass(frozen=True)
class Evaluation:
    """What was measured. None where the model or the data has no such number: notes say why.

    The first ten are in `metrics` too, with everything else that was asked for.

    elbo, log_likelihood, rate, distortion: nats per example. bits_per_dim: from the ELBO.
    log_likelihood: importance-weighted (Burda et al. 2015, equation 8), with the standard error
        of its mean over the examples.
    mse, psnr, ssim: of reconstructions, means over the examples; psnr in dB.
    active_units: latents whose posterior mean varies by more than 0.01 over the data (Burda et al.
        2015, section 2).
    reconstruction_r2: share of the variance around the mean image that reconstructions explain.
    metrics: every number by the name of its metric. latents: a row for each latent; see
        latent_report.
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
    metrics: dict[str, Number] = field(default_factory=dict)
    latents: list[dict[str, Any]] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, told: dict[str, Any]) -> Evaluation:
        """The one that `to_dict` told of."""
        numbers = {name: Number(**number) for name, number in told["metrics"].items()}
        return cls(**{**told, "metrics": numbers})


_FLAT = (
    "elbo",
    "log_likelihood",
    "rate",
    "distortion",
    "bits_per_dim",
    "mse",
    "psnr",
    "ssim",
    "active_units",
    "reconstruction_r2",
)
"""The metrics that Evaluation has as attributes."""


def default_metrics() -> list[MetricSpec]:
    """Those that are measured unless others are asked for."""
    return [spec for spec in _all_metrics() if spec.default]


def select_metrics(words: Iterable[str]) -> list[MetricSpec]:
    """Metrics by name, by group, `default` or `all`, each once, in the order of the registry."""
    known, wanted = _all_metrics(), set()
    for word in words:
        if word in METRIC_GROUPS or word in ("default", "all"):
            wanted |= {
                s.name
                for s in known
                if word in (s.group, "all") or (word == "default" and s.default)
            }
        else:
            wanted.add(registry().metric(word).name)
    if not wanted:
        raise OptionError("--metric names no metric (vaezoo list --kind metrics shows them)")
    return [spec for spec in known if spec.name in wanted]


def evaluate(setting: EvalContext, specs: Sequence[MetricSpec]) -> Evaluation:
    """Take these metrics in one pass over every example of the split.

    The noise of a batch follows from the setting's seed and its number; the generators and the
    modules' modes are left as they were. Nothing is read back before the end.

    Several processes deal the batches out: all of them must ask, and each gets the numbers that
    one process would find. What does not keep sums sees every batch, in the first.

    A metric that fails costs its number and says why; where every one of them fails, it is the
    model that does, and the error is raised.
    """
    found: dict[str, MetricResult] = {}
    metrics: dict[str, BaseMetric] = {}
    for spec in specs:
        missing = next((need for need in spec.requires if not setting.has(need)), None)
        if missing is not None:
            found[spec.name] = MetricResult(None, note=METRIC_REQUIRES[missing])
        else:
            metrics[spec.name] = _load(spec)
    model = setting.model
    # Not inference_mode: a posterior may need gradients of its own.
    with evaluation_mode(model), seeded(setting.seed, setting.device), torch.no_grad():
        kinds: list[type[MetricState]] = [LatentMoments] if setting.has("continuous") else []
        kinds += [LatentKls] if setting.has("density") else []
        kinds += [kind for metric in metrics.values() for kind in metric.collects]
        watch = _Pass(setting, kinds)
        watch.run()
        watch.join()

        def measured() -> dict[str, Any]:
            for name, metric in metrics.items():
                found[name] = watch.measure(metric, name)
            if metrics and len(watch.errors) == len(metrics):
                raise next(iter(watch.errors.values()))
            return _evaluation(setting, specs, found, watch).to_dict()

        return Evaluation.from_dict(on_rank0_broadcast(measured))


class _Pass:
    """One pass over the split: every collector sees every batch, unless it has failed before.

    Where several processes take turns, those that are shared see each batch in one of them.
    """

    def __init__(self, setting: EvalContext, kinds: Iterable[type[MetricState]]) -> None:
        self.setting = setting
        self.kinds = list(dict.fromkeys(kinds))
        self.failed: dict[type[MetricState], Exception] = {}
        self.errors: dict[str, Exception] = {}
        self.collectors: dict[type[MetricState], MetricState] = {}
        for kind in self.kinds:
            if kind.shared or rank() == 0:
                try:
                    with local_only():
                        self.collectors[kind] = kind(setting)
                except Exception as error:
                    self.failed[kind] = error

    def run(self) -> None:
        batches, done = self.setting.batches, 0
        everything = torch.arange(len(batches.split))
        for number, index in enumerate(everything.split(batches.batch_size)):
            ours = number % world_size() == rank()
            left = [kind for kind in self.collectors if kind not in self.failed]
            shared = [kind for kind in left if kind.shared and ours]
            whole = [kind for kind in left if not kind.shared]
            if shared or whole:
                with local_only():
                    view = EvalBatch(self.setting, batches.batch(index), index, number)
                    self._see(view, shared, whole)
            done += len(index)
            self.setting.on_progress("one pass", done, len(everything))

    def _see(
        self, view: EvalBatch, shared: list[type[MetricState]], whole: list[type[MetricState]]
    ) -> None:
        """What each draws follows from the batch alone, whoever else sees it here."""
        with self.setting.noise(_NOISE + view.number * STREAMS):
            if self.setting.has("elbo"):
                _ = view.z  # before anything else that draws: the same whatever is measured
            self._add(view, shared)
        with self.setting.noise(_NOISE_OF_OTHERS + view.number * STREAMS):
            self._add(view, whole)

    def _add(self, view: EvalBatch, kinds: list[type[MetricState]]) -> None:
        for kind in kinds:
            try:
                self.collectors[kind].add(view)
            except Exception as error:
                self.failed[kind] = error

    def join(self) -> None:
        """Bring what the processes have kept, and why some have not, to the first."""
        if world_size() == 1:
            return
        shared = {str(n): kind for n, kind in enumerate(self.kinds) if kind.shared}
        failed = {n: _told(self.failed[kind]) for n, kind in shared.items() if kind in self.failed}
        kept = {
            f"{n}.{name}": tensor.cpu()
            for n, kind in shared.items()
            if kind not in self.failed
            for name, sum_ in self.collectors[kind].sums.items()
            if (tensor := sum_.state) is not None
        }
        for trouble in gather_objects(failed):
            for n, words in trouble.items():
                self.failed.setdefault(shared[n], _heard(words))
        for tensors in gather_objects(kept)[1:]:
            for key, tensor in tensors.items():
                n, _, name = key.partition(".")
                if shared[n] not in self.failed:
                    self.collectors[shared[n]].sums[name].join(tensor.to(self.setting.device))

    def measure(self, metric: BaseMetric, name: str) -> MetricResult:
        try:
            for kind in metric.collects:
                if kind in self.failed:
                    raise self.failed[kind]
            measured = metric.measure(Evidence(self.setting, self.collectors))
        except MetricUnavailable as reason:
            return MetricResult(None, note=str(reason))
        except Exception as error:
            self.errors[name] = error
            return MetricResult(None, note=f"it failed: {_told(error)[1]}")
        value = measured.value
        if value is not None and not math.isfinite(value):
            return MetricResult(None, note=f"it came out as {value}")
        if measured.uncertainty is not None and not math.isfinite(measured.uncertainty):
            return replace(measured, uncertainty=None)
        return measured

    def seen(self, kind: type[MetricState]) -> Any:
        return None if kind in self.failed else self.collectors.get(kind)


def _evaluation(
    setting: EvalContext, specs: Sequence[MetricSpec], found: dict[str, MetricResult], watch: _Pass
) -> Evaluation:
    numbers = {
        spec.name: Number(
            measured.value,
            measured.uncertainty,
            measured.uncertainty_kind if measured.uncertainty is not None else "",
            measured.note,
            measured.label or spec.name,
            spec.unit,
            spec.direction,
            comparable(spec, setting, measured),
        )
        for spec in specs
        for measured in (found[spec.name],)
    }
    flat: dict[str, Any] = {n: numbers[n].value if n in numbers else None for n in _FLAT}
    notes = {name: number.note for name, number in numbers.items() if number.value is None}
    notes.update({name: _NOT_ASKED for name in _FLAT if name not in numbers})
    error = numbers["log_likelihood"].uncertainty if "log_likelihood" in numbers else None
    if error is None:
        notes["log_likelihood_standard_error"] = notes.get(
            "log_likelihood", "of a single example there is none"
        )
    measured_k = setting.has("importance") and "log_likelihood" in numbers
    return Evaluation(
        **flat,
        examples=setting.examples,
        importance_samples=setting.importance_samples if measured_k else 0,
        log_likelihood_standard_error=error,
        notes=notes,
        metrics=numbers,
        latents=latent_report(watch.seen(LatentMoments), watch.seen(LatentKls)),
    )


def _told(error: Exception) -> list[str]:
    """What kind of error it is, in a word, and what it says."""
    if isinstance(error, MetricUnavailable):
        return ["no number", str(error)]
    kind_of = "" if isinstance(error, VaezooError) else f"{type(error).__name__}: "
    return ["error", f"{kind_of}{' '.join(str(error).split())}"]


def _heard(words: list[str]) -> Exception:
    """The error that another process told of."""
    kind, message = words
    return MetricUnavailable(message) if kind == "no number" else VaezooError(message)


def _load(spec: MetricSpec) -> BaseMetric:
    found = spec.load()
    if not (isinstance(found, type) and issubclass(found, BaseMetric)):
        raise VaezooError(f"metric {spec.name}: {spec.target} is no BaseMetric")
    return found()


def _all_metrics() -> list[MetricSpec]:
    """In the order of their groups, and in a group as their plugin registers them."""
    known = [spec for record in registry().records for spec in record.specs]
    order = list(METRIC_GROUPS)
    metrics = [spec for spec in known if isinstance(spec, MetricSpec)]
    return sorted(metrics, key=lambda spec: order.index(spec.group))
