"""Checks a model, a part, a loss or a data set by a call, or as a pytest test for each check."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast

from vaezoo.data.base import GivenData
from vaezoo.errors import OptionError, VaezooError, nearest
from vaezoo.models.base import EncoderDecoderVAE
from vaezoo.plugins.registry import registry
from vaezoo.plugins.sources import kind_of_class
from vaezoo.plugins.specs import PARTS, DatasetSpec, Kind, LossSpec, ModelSpec, PartKind, Spec
from vaezoo.testing import dataset_checks, multi_process, output_checks, rehearsal, training_checks
from vaezoo.testing.check import Check, Result, Subject
from vaezoo.testing.part_checks import (
    BOTTLENECK_CHECKS,
    LIKELIHOOD_CHECKS,
    NETWORK_CHECKS,
    SAMPLER_CHECKS,
)
from vaezoo.testing.subjects import LoadedDataset, ModelWithLoss, Named, ReferenceVAE, find_class

LOSS_CHECKS = (
    dataset_checks.registration,
    dataset_checks.options,
    output_checks.terms,
    output_checks.extremes,
    output_checks.batch_size,
    training_checks.phases,
    training_checks.gradients,
    training_checks.seeds,
    training_checks.evaluation,
    training_checks.weights,
    training_checks.half_precision,
    training_checks.flops,
    rehearsal.rehearsal,
    training_checks.compiled,
    multi_process.processes,
)
"""What a loss must keep, with a model that it is for."""

MODEL_CHECKS = (
    output_checks.shapes,
    output_checks.rate,
    output_checks.bound,
    training_checks.overfit,
    training_checks.independence,
    output_checks.labels,
    output_checks.sampling,
    *LOSS_CHECKS,
)
"""What a model must keep, with its default loss or another."""

DATASET_CHECKS = (
    dataset_checks.registration,
    dataset_checks.options,
    dataset_checks.examples,
    dataset_checks.values,
    dataset_checks.repeatable,
    dataset_checks.disjoint,
    dataset_checks.validation,
    dataset_checks.record,
    dataset_checks.missing,
)
"""What a data set must keep."""

_REGISTERED = (dataset_checks.registration, dataset_checks.options)
_TRAINED = (
    training_checks.overfit,
    output_checks.extremes,
    training_checks.gradients,
    training_checks.weights,
    training_checks.half_precision,
    training_checks.flops,
    rehearsal.rehearsal,
    training_checks.compiled,
)
_RATES = (output_checks.rate, output_checks.bound)
_STATES = (training_checks.independence, training_checks.seeds, training_checks.evaluation)

CHECKS: Mapping[Kind, tuple[Check, ...]] = {
    "model": MODEL_CHECKS,
    "network": (*NETWORK_CHECKS, *_REGISTERED, *_STATES, *_TRAINED),
    "bottleneck": (*BOTTLENECK_CHECKS, *_RATES, *_REGISTERED, *_STATES, *_TRAINED),
    "likelihood": (*LIKELIHOOD_CHECKS, *_REGISTERED, *_TRAINED),
    "sampler": (
        *SAMPLER_CHECKS,
        output_checks.sampling,
        *_REGISTERED,
        training_checks.weights,
        rehearsal.rehearsal,
    ),
    "loss": LOSS_CHECKS,
    "dataset": DATASET_CHECKS,
}
"""What each kind must keep. A part is checked alone, and in the model that it is paired with."""

NAMES = {check.name for checks in CHECKS.values() for check in checks}


class ContractError(AssertionError):
    """Raised with the checks that failed: one line each, with what to do."""


@dataclass(frozen=True)
class Contract:
    """A subject with its checks.

    expected: check -> reason, for checks that must fail, in addition to the class's own.
    slow: whether slow checks run too. only: the checks to run; all if empty.
    """

    subject: Subject
    checks: tuple[Check, ...]
    expected: Mapping[str, str]
    slow: bool = False
    only: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        subject, own = self.subject, [check.name for check in self.checks]
        for name in (*self.only, *self.expected):
            if name not in own:
                hint = nearest(name, own) or f" (there are {', '.join(own)})"
                raise OptionError(f"there is no check {name!r} of {subject.name}{hint}")
        for name, reason in {**subject.expected_failures, **self.expected}.items():
            wrong = "" if reason.strip() else f"give a reason why check {name} is expected to fail"
            if name not in NAMES:
                wrong = f"there is no check {name!r} for expected_failures"
            if wrong:
                raise OptionError(f"{subject.name}: {wrong}")

    def selected(self) -> list[Check]:
        """The checks that were selected and apply to the subject."""
        return [
            check
            for check in self.checks
            if (check.name in self.only if self.only else self.slow or not check.slow)
            and {*check.requires} <= {*self.subject.tags}
        ]

    def result(self, check: Check) -> Result:
        """Run one check, unless it does not apply or was not selected."""
        missing = [tag for tag in check.requires if tag not in self.subject.tags]
        if missing:
            return check.result("does not apply", f"it has no tag {' or '.join(missing)}")
        if check not in self.selected():
            return check.result("left out", "it is slow: run it with --slow")
        return check.run(self.subject, self.expected)

    def results(self) -> Iterable[Result]:
        return (self.result(c) for c in self.checks if not self.only or c.name in self.only)


def check_model(
    model: Named,
    *,
    loss: Named | None = None,
    options: Mapping[str, Any] | None = None,
    expected_failures: Mapping[str, str] | None = None,
    slow: bool = False,
    only: Iterable[str] = (),
) -> list[Result]:
    """Check a model with its loss. ContractError lists the checks that failed.

    model: a registered name, `my_vae.py:MyVAE`, a ModelSpec, or a class.
    loss: likewise; by default the model's own.
    options: options of the model, its parts and the loss. Shared ones (`hidden`, `latent_dim`) have
        small defaults here, so that checks are fast.
    expected_failures: check -> reason. Such a check must fail.
    slow: whether to run the slow checks (compiled, processes). only: the checks to run.
    """
    pair = make_subject("model", model, {} if loss is None else {"loss": loss}, options)
    return _run_all("model", pair, expected_failures, slow, only)


def check_part(
    part: Named,
    *,
    kind: PartKind | None = None,
    model: Named | None = None,
    options: Mapping[str, Any] | None = None,
    expected_failures: Mapping[str, str] | None = None,
    slow: bool = False,
    only: Iterable[str] = (),
) -> list[Result]:
    """Check a network, bottleneck, likelihood or sampler, as check_model does for a model.

    kind: needed where `part` is a name that parts of several kinds have.
    model: the model to check it in; by default one of an encoder and a decoder.
    """
    kind = cast(PartKind, _kind(part, PARTS)) if kind is None else kind
    pair = make_subject(kind, part, {} if model is None else {"model": model}, options)
    return _run_all(kind, pair, expected_failures, slow, only)


def check_loss(
    loss: Named,
    *,
    model: Named | None = None,
    options: Mapping[str, Any] | None = None,
    expected_failures: Mapping[str, str] | None = None,
    slow: bool = False,
    only: Iterable[str] = (),
) -> list[Result]:
    """Check a loss, as check_model does for a model.

    model: the model to check it with. By default a small Gaussian VAE; if that lacks a tag that the
    loss requires, the first registered model that has it.
    """
    pair = make_subject("loss", loss, {} if model is None else {"model": model}, options)
    return _run_all("loss", pair, expected_failures, slow, only)


def check_dataset(
    dataset: Named,
    *,
    options: Mapping[str, Any] | None = None,
    given: GivenData | None = None,
    expected_failures: Mapping[str, str] | None = None,
    only: Iterable[str] = (),
) -> list[Result]:
    """Check a data set, as check_model does for a model. It is loaded several times.

    options: options of the data set. Choose a small root, or few examples. given: an object to read
        in place of its files, for a data set that accepts some.
    """
    data = LoadedDataset(dataset, options, given)
    return _run_all("dataset", data, expected_failures, False, only)


def make_contract(
    named: Named,
    options: Mapping[str, Any] | None = None,
    slow: bool = False,
    only: tuple[str, ...] = (),
    others: Mapping[str, Named] | None = None,
) -> Contract:
    """The contract of a model, part, loss or data set. others: see make_subject."""
    kind = _kind(named, CHECKS)
    return Contract(make_subject(kind, named, others or {}, options), CHECKS[kind], {}, slow, only)


def make_subject(
    kind: Kind, named: Named, others: Mapping[str, Named], options: Mapping[str, Any] | None = None
) -> Subject:
    """What is checked, with what it is paired with.

    others: "model", "loss", "data", and the kinds of parts -> a name, spec or class.
    """
    if kind == "dataset":
        if others:
            raise OptionError(f"a data set is checked alone: leave out --{next(iter(others))}")
        return LoadedDataset(named, options)
    given = {**others, kind: named}
    loss, data = given.pop("loss", None), given.pop("data", None)
    model = given.pop("model", None)
    own, dataset = dict(options or {}), None
    if data is not None:
        fields = find_class(data, DatasetSpec)[0].load_options().model_fields
        dataset = LoadedDataset(data, {k: own.pop(k) for k in [*own] if k in fields})
    if model is None:
        model = EncoderDecoderVAE if loss is None or kind in PARTS else _default_model(loss)

    def pair(parts: Mapping[str, Named]) -> ModelWithLoss:
        return ModelWithLoss(model, loss, parts=parts, about=kind, dataset=dataset, options=own)

    try:
        return pair(given)
    except OptionError:
        if kind != "sampler" or {*others} - {"data"}:
            raise
        for spec in registry().specs("bottleneck"):  # one whose latents it fits
            with suppress(OptionError):
                found = pair({**given, "bottleneck": spec})
                found.build()
                return found
        raise


def parametrize_with_checks(*subjects: Named, slow: bool = False) -> Any:
    """A pytest decorator that makes one test of each check of each subject.

        @parametrize_with_checks("my_vae", "my_loss")
        def test_keeps_the_contract(check):
            check()

    subjects: names, specs or classes of models, parts, losses and data sets. slow: the slow checks
        too.
    """
    try:
        import pytest
    except ImportError:
        raise VaezooError("parametrize_with_checks needs pytest: pip install pytest") from None

    def run(contract: Contract, check: Check) -> None:
        result = contract.result(check)
        if result.status == "failed":
            raise ContractError(_line(result)) from result.error
        if result.status == "does not apply":
            pytest.skip(result.reason)
        if result.status == "expected failure":
            pytest.xfail(result.reason)

    cases = [
        pytest.param(functools.partial(run, contract, c), id=f"{contract.subject.name}-{c.name}")
        for contract in (make_contract(subject, slow=slow) for subject in subjects)
        for c in contract.selected()
    ]
    return pytest.mark.parametrize("check", cases)


def _run_all(
    kind: Kind,
    subject: Subject,
    expected: Mapping[str, str] | None,
    slow: bool,
    only: Iterable[str],
) -> list[Result]:
    contract = Contract(subject, CHECKS[kind], expected or {}, slow, tuple(only))
    results = list(contract.results())
    failed = [result for result in results if result.status == "failed"]
    if failed:
        shown = [result.after(failed[:n]) for n, result in enumerate(failed)]
        lines = "".join(f"\n  {_line(result)}" for result in shown)
        error = next((result.error for result in failed if result.error), None)
        raise ContractError(f"{contract.subject.name} breaks the contract:{lines}") from error
    return results


def _line(result: Result) -> str:
    return f"{result.check}: {result.reason}" + (f" ({result.hint})" if result.hint else "")


def _kind(named: Named, kinds: Iterable[Kind]) -> Kind:
    """Of which of these kinds it is. VaezooError if of none, or of several."""
    if isinstance(named, Spec):
        return named.kind
    if isinstance(named, type):
        spec = kind_of_class(named)
        if spec is None:
            raise VaezooError(f"{named.__name__} derives from no base class of vaezoo")
        return spec.kind
    found = [spec.kind for spec in registry().find(named)]
    fitting = [kind for kind in found if kind in kinds]
    if len({*found}) > 1 and len({*fitting}) != 1:
        raise OptionError(f"{named!r} is a {' and a '.join(found)}: give its spec, or a class")
    return (fitting or found)[0]


def _default_model(loss: Named) -> Named:
    """A model with the tags that a loss requires."""
    if isinstance(loss, type):
        return ReferenceVAE
    spec = registry().resolve("loss", loss) if isinstance(loss, str) else loss
    assert isinstance(spec, LossSpec)
    if {*spec.requires} <= {"elbo", "importance"}:
        return ReferenceVAE
    for model in registry().specs("model"):
        if isinstance(model, ModelSpec) and {*spec.requires} <= {*model.tags}:
            return model
    raise OptionError(
        f"loss {spec.name} needs a model with {' and '.join(spec.requires)}, and none is "
        "installed: give the model to check it with"
    )
