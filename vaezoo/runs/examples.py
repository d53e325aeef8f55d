"""Examples that a run encodes and scores, in batches; and latents that it decodes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor

from vaezoo.data.base import Batch, Split, Splits, Standardizer, TensorSplit, check_examples
from vaezoo.distributed import local_only, rank, world_size
from vaezoo.distributed.launch import gather_objects
from vaezoo.errors import DataError, OptionError, VaezooError
from vaezoo.evaluation.metric import POSTERIOR_NOISE, EvalBatch, EvalContext
from vaezoo.models.base import BaseVAE
from vaezoo.models.distributions import mode
from vaezoo.runtime import report_progress
from vaezoo.runtime.device import evaluation_mode, seeded

LatentKind = Literal["mean", "std", "sample", "indices"]

SCORES = {
    "elbo": "elbo",
    "log_likelihood": "importance",
    "rate": "elbo",
    "distortion": "elbo",
    "mse": "",
}
"""The scores of an example, attributes of EvalBatch, and what each requires of the model."""

_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


@dataclass(frozen=True)
class ExampleBatch:
    """What was found for some examples, in order, on the CPU.

    index: their positions, int64 [n]. values: by name, [n, ...] each. labels: int64 [n] (-1:
    unknown), or None. factors: int64 [n, factors], or None. names: of their files, or None.
    """

    index: Tensor
    values: dict[str, Tensor]
    labels: Tensor | None
    factors: Tensor | None
    names: Sequence[str] | None


class Examples:
    """Examples as a run's model encodes and scores them, in batches: memory does not grow.

    `encode` and `score` are iterators. Processes of a process group share the batches: all must
    iterate, and rank 0 gets every batch, in order; the others get none. The noise of an example
    follows from the seed and its position, however many processes there are.

    context: its model, and the split with its loader.
    """

    def __init__(self, context: EvalContext) -> None:
        self.context = context
        assert context.splits is not None
        assert context.loaded is not None
        self.splits, self.split = context.splits, context.loaded

    def __len__(self) -> int:
        """The number of examples."""
        return len(self.split)

    def encode(self, what: Sequence[LatentKind], *, seed: int = 0) -> Iterator[ExampleBatch]:
        """Yield what the posteriors are: see `Run.encode`. OptionError if there is no such value.

        A sample is the one that `Run.evaluate` uses of this split with the same seed.
        """
        context = replace(self.context, seed=seed)
        return self._batches(
            context, "encoding", lambda batch: {kind: _latent(batch, kind) for kind in what}
        )

    def score(self, *, importance_samples: int = 0, seed: int = 0) -> Iterator[ExampleBatch]:
        """Yield the scores of the examples, without those in `missing_scores`: see `Run.score`."""
        context = replace(self.context, seed=seed, importance_samples=importance_samples)
        missing = {*self.missing_scores(1), *(() if importance_samples else ("log_likelihood",))}
        wanted = [name for name in SCORES if name not in missing]
        return self._batches(
            context, "scoring", lambda batch: {name: getattr(batch, name) for name in wanted}
        )

    def missing_scores(self, importance_samples: int = 0) -> dict[str, str]:
        """The scores that this model does not have, and why: the log-likelihood if asked for."""
        context = self.context
        return {
            name: context.why_not(need)
            for name, need in SCORES.items()
            if need and not context.has(need) and (importance_samples or name != "log_likelihood")
        }

    def get(self, index: Tensor) -> Batch:
        """Examples by their positions, int64 [n], in the data's units, on the CPU."""
        batch = self.context.batches.batch(index)
        inverse = Standardizer(self.context.model.data).to(batch.x.device).inverse
        return Batch(inverse(batch.x).cpu(), None if batch.y is None else batch.y.cpu())

    def _batches(
        self, context: EvalContext, doing: str, measure: Callable[[EvalBatch], dict[str, Tensor]]
    ) -> Iterator[ExampleBatch]:
        """Measure a batch in each process at a time, and yield those of all of them on rank 0."""
        total, size, processes = len(self), context.batches.batch_size, world_size()
        for start in range(0, total, size * processes):
            found: ExampleBatch | VaezooError | None = None
            first = start + rank() * size
            if first < total:
                index = torch.arange(first, min(first + size, total))
                try:
                    with local_only(), evaluation_mode(context.model), torch.no_grad():
                        found = self._measure(context, index, first // size, measure)
                except VaezooError as error:
                    found = error
            for each in [found] if processes == 1 else gather_objects(found):
                if isinstance(each, VaezooError):
                    raise each
                if each is not None:
                    yield each
            report_progress(doing, min(start + size * processes, total), total)

    def _measure(
        self,
        context: EvalContext,
        index: Tensor,
        number: int,
        measure: Callable[[EvalBatch], dict[str, Tensor]],
    ) -> ExampleBatch:
        batch = EvalBatch(context, context.batches.batch(index), index, number)
        labels = None if batch.labels is None else batch.labels.cpu()
        if context.model.conditional:
            classes = len(context.model.data.class_names)
            known = torch.zeros(0) if labels is None else (labels >= 0) & (labels < classes)
            if labels is None or not known.all():
                which = int(index[0] if labels is None else index[~known][0])
                raise DataError(f"this model is conditional, and example {which} has no class")
        with batch.noise(POSTERIOR_NOISE):
            if context.has("elbo"):
                _ = batch.z  # drawn first, as in evaluation
            values = {name: value.cpu() for name, value in measure(batch).items()}
        there = index.to(self.split.device)
        factors, names = self.split.factors(there), self.split.names(there)
        return ExampleBatch(
            index, values, labels, None if factors is None else factors.cpu(), names
        )


def _latent(batch: EvalBatch, kind: LatentKind) -> Tensor:
    posterior, context = batch.posterior, batch.context
    if kind == "indices":
        indices = getattr(posterior, "indices", None)
        if indices is None:
            raise OptionError("indices: the latents of this model are no codes")
        return cast(Tensor, indices)
    if kind == "mean":
        return mode(posterior).float()
    if kind == "sample":
        return batch.z.float()
    try:
        for need in ("continuous", "density"):
            if not context.has(need):
                raise OptionError(f"std: {context.why_not(need)}")
        return posterior.stddev.float()
    except NotImplementedError:
        raise OptionError(
            "std: the standard deviation of this model's posterior has no closed form"
        ) from None


def as_splits(
    data: Any, y: Any, model: BaseVAE, check_labels: Callable[[Any, int], Tensor | None]
) -> Splits:
    """Splits, a Split or examples, [n, *shape], as Splits. DataError if they do not fit."""
    spec = model.data
    if not isinstance(data, Splits | Split):
        x = check_examples(data, spec)
        split: Split = TensorSplit(x, check_labels(y, len(x)))
    elif y is not None:
        raise OptionError("y goes with arrays: a split has its own classes")
    elif isinstance(data, Splits):
        if data.spec.shape != spec.shape or data.spec.domain != spec.domain:
            kinds = [f"{each.describe()}, {each.domain}" for each in (spec, data.spec)]
            raise DataError(f"this run is of {kinds[0]}; the data is of {kinds[1]}")
        if model.conditional and data.spec.class_names != spec.class_names:
            raise DataError("this model is conditional, and the data has other classes")
        return data
    else:
        split = data
    if not len(split):
        raise DataError("there are no examples: give one or more")
    first, _ = split.get_batch(torch.arange(1))
    if first.shape[1:] != spec.shape or (first.dtype == torch.uint8 and not spec.is_bounded):
        found = f"{first.dtype} of shape {list(first.shape[1:])}"
        raise DataError(f"this run is of {spec.describe()}, {spec.domain}; the data is {found}")
    return Splits(spec, split, split, split, "given")


def collect(batches: Iterable[ExampleBatch], like: Any) -> dict[str, Any]:
    """The values of all batches by name, [n, ...]; arrays if `like` is one, else tensors."""
    values = [batch.values for batch in batches]
    names = values[0] if values else ()
    return {name: as_given(torch.cat([each[name] for each in values]), like) for name in names}


def as_given(values: Tensor, like: Any) -> Any:
    """The values as an array if `like` is one, else as they are."""
    return values.numpy() if isinstance(like, np.ndarray) else values


def decode_latents(
    model: BaseVAE, z: Tensor, y: Tensor | None, *, sample: bool, seed: int, batch_size: int
) -> Tensor:
    """Decode what `check_latents` gives: see `Run.decode`. y: class numbers, [n], or None."""
    inverse = Standardizer(model.data).inverse
    parts = [torch.zeros(0, *model.data.shape)]
    with evaluation_mode(model), seeded(seed, model.device), torch.no_grad():
        for rows in torch.arange(len(z)).split(batch_size):
            part = z[rows].to(model.device)
            if not part.is_floating_point() and model.codebook is not None:
                part = model.codebook.indices_to_codes(part)
            likelihood = model.decode(part, None if y is None else y[rows].to(model.device))
            parts.append(
                inverse((likelihood.sample() if sample else likelihood.mean).float().cpu())
            )
    return torch.cat(parts)


def check_latents(model: BaseVAE, z: Any) -> Tensor:
    """Latents as float32, [n, *latent_shape], or indices of codes as int64. DataError otherwise."""
    try:
        given = torch.as_tensor(z)
    except (TypeError, ValueError, RuntimeError):
        raise DataError(f"z is no array of numbers: {type(z).__name__}") from None
    codes, shape = model.codebook, tuple(model.latent_shape)
    if codes is not None and given.dtype in _INTEGERS:
        grid = (*((codes.codebooks,) if codes.codebooks > 1 else ()), *shape[1:])
        if given.dim() and given.shape[1:] == grid:
            if len(given) and not 0 <= int(given.min()) <= int(given.max()) < codes.num_codes:
                raise DataError(f"codes of this model are numbered from 0 to {codes.num_codes - 1}")
            return given.long()
    if not given.dim() or given.shape[1:] != shape or given.is_complex():
        expected, found = ("×".join(map(str, each)) for each in (("n", *shape), given.shape))
        raise DataError(f"latents of this model are {expected}, not {found or 'one number'}")
    if not given.isfinite().all():
        raise DataError("the latents hold NaN or infinity")
    return given.float()
