"""How near reconstructions come to their originals."""

from __future__ import annotations

import math

from vaezoo.evaluation.image_metrics import MS_SSIM_SMALLEST, ms_ssim, mse, psnr, ssim
from vaezoo.evaluation.metric import (
    BaseMetric,
    EvalBatch,
    EvalContext,
    Evidence,
    MetricResult,
    MetricState,
    MetricUnavailable,
)
from vaezoo.evaluation.sums import Mean, RunningMoments


class SquaredErrors(MetricState):
    """Mean squared error of each example, and how much the examples differ."""

    shared = True

    def __init__(self, setting: EvalContext) -> None:
        super().__init__(setting)
        self.mse, self.x = Mean(), RunningMoments()

    def add(self, view: EvalBatch) -> None:
        self.mse.add(mse(view.reconstruction, view.x))
        self.x.add(view.x.flatten(1))


class Decibels(MetricState):
    shared = True

    def __init__(self, setting: EvalContext) -> None:
        super().__init__(setting)
        self.psnr = Mean()

    def add(self, view: EvalBatch) -> None:
        # Quieter than 8-bit rounding is as good as equal: 0 error would be infinite dB.
        loudest = -10 * math.log10(1e-10)
        self.psnr.add(psnr(view.reconstruction, view.x).clamp(max=loudest))


class Similarity(MetricState):
    shared = True

    def __init__(self, setting: EvalContext) -> None:
        super().__init__(setting)
        self.ssim = Mean()

    def add(self, view: EvalBatch) -> None:
        self.ssim.add(ssim(view.reconstruction.clamp(0, 1), view.x))


class ScaledSimilarity(MetricState):
    shared = True

    def __init__(self, setting: EvalContext) -> None:
        super().__init__(setting)
        self.ms_ssim = Mean()

    def add(self, view: EvalBatch) -> None:
        height, width = view.x.shape[-2:]
        if min(height, width) < MS_SSIM_SMALLEST:
            raise MetricUnavailable(
                f"its five scales need images of {MS_SSIM_SMALLEST} pixels and more, "
                f"not {height}×{width}"
            )
        self.ms_ssim.add(ms_ssim(view.reconstruction.clamp(0, 1), view.x))


class MeanSquaredError(BaseMetric):
    collects = (SquaredErrors,)

    def measure(self, evidence: Evidence) -> MetricResult:
        return MetricResult.over_examples(evidence[SquaredErrors].mse)


class Psnr(BaseMetric):
    collects = (Decibels,)

    def measure(self, evidence: Evidence) -> MetricResult:
        return MetricResult.over_examples(evidence[Decibels].psnr)


class Ssim(BaseMetric):
    collects = (Similarity,)

    def measure(self, evidence: Evidence) -> MetricResult:
        return MetricResult.over_examples(evidence[Similarity].ssim)


class MsSsim(BaseMetric):
    collects = (ScaledSimilarity,)

    def measure(self, evidence: Evidence) -> MetricResult:
        return MetricResult.over_examples(evidence[ScaledSimilarity].ms_ssim)


class ExplainedVariance(BaseMetric):
    collects = (SquaredErrors,)

    def measure(self, evidence: Evidence) -> MetricResult:
        errors, data = evidence[SquaredErrors], evidence.setting.model.data
        spread = float(errors.x.variance.sum())
        if not spread:
            raise MetricUnavailable("the examples do not differ")
        return MetricResult(1.0 - errors.mse.mean * data.numel / spread)
