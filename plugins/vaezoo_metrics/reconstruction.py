"""Metrics of reconstructions, each a mean over the examples."""

from __future__ import annotations

import math

from torch import Tensor

from vaezoo import MetricState
from vaezoo.evaluation.accumulators import RunningMoments
from vaezoo.evaluation.metric import (
    EvalBatch,
    EvalContext,
    ExampleMoments,
    MetricResult,
    MetricUnavailable,
)

from .image_metrics import MS_SSIM_SMALLEST, ms_ssim, psnr, ssim


class SquaredErrors(MetricState):
    """Mean squared error of each example, and the variance of the examples."""

    mergeable = True

    def __init__(self, context: EvalContext) -> None:
        super().__init__(context)
        self.errors, self.x = RunningMoments(), RunningMoments()

    def update(self, batch: EvalBatch) -> None:
        self.errors.update(batch.mse)
        self.x.update(batch.original.flatten(1))

    def mse(self) -> MetricResult:
        return MetricResult.over_examples(self.errors)

    def reconstruction_r2(self) -> MetricResult:
        variance = float(self.x.variance.sum())
        if not variance:
            raise MetricUnavailable("all examples are equal")
        error = float(self.errors.mean) * self.context.model.data.numel
        return MetricResult(1.0 - error / variance)


class Psnr(ExampleMoments):
    """Peak signal-to-noise ratio."""

    def measure(self, batch: EvalBatch) -> Tensor:
        # An error below 8-bit rounding counts as none: of no error the ratio would be infinite.
        return psnr(batch.reconstruction, batch.original).clamp(max=-10 * math.log10(1e-10))

    psnr = ExampleMoments.mean


class Ssim(ExampleMoments):
    """Structural similarity."""

    def measure(self, batch: EvalBatch) -> Tensor:
        return ssim(batch.reconstruction.clamp(0, 1), batch.original)

    ssim = ExampleMoments.mean


class MsSsim(ExampleMoments):
    """Structural similarity at five scales."""

    def measure(self, batch: EvalBatch) -> Tensor:
        height, width = batch.x.shape[-2:]
        if min(height, width) < MS_SSIM_SMALLEST:
            needed = f"its five scales need images of {MS_SSIM_SMALLEST} pixels and more"
            raise MetricUnavailable(f"{needed}, not {height}×{width}")
        return ms_ssim(batch.reconstruction.clamp(0, 1), batch.original)

    ms_ssim = ExampleMoments.mean
