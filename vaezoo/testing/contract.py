"""Checks a model, a loss or a data set by a call, or as a pytest test for each check."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from vaezoo.errors import OptionError, VaezooError, nearest
from vaezoo.plugins.registry import registry
from vaezoo.plugins.sources import kind_of_class
from vaezoo.plugins.specs import LossSpec, ModelSpec, Spec
from vaezoo.testing import dataset_checks, multi_process, output_checks, training_checks
from vaezoo.testing.check import Check, Result, Subject
from vaezoo.testing.subjects import LoadedDataset, ModelWithLoss, Named, ReferenceVAE

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

NAMES = {check.name for check in (*MODEL_CHECKS, *DATASET_CHECKS)}


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
    options: options of the model and the loss. Shared ones (`hidden`, `latent_dim`) have small
        defaults here, so that checks are fast.
    expected_failures: check -> reason. Such a check must fail.
    slow: whether to run the slow checks (compiled, processes). only: the checks to run.
    """
    pair = ModelWithLoss(model, loss, options=options)
    return _run_all(Contract(pair, MODEL_CHECKS, expected_failures or {}, slow, tuple(only)))


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
    pair = ModelWithLoss(model or _default_model(loss), loss, about="loss", options=options)
    return _run_all(Contract(pair, LOSS_CHECKS, expected_failures or {}, slow, tuple(only)))


def check_dataset(
    dataset: Named,
    *,
    options: Mapping[str, Any] | None = None,
    expected_failures: Mapping[str, str] | None = None,
    only: Iterable[str] = (),
) -> list[Result]:
    """Check a data set, as check_model does for a model. It is loaded several times.

    options: options of the data set. Choose a small root, or few examples.
    """
    data = LoadedDataset(dataset, options)
    return _run_all(Contract(data, DATASET_CHECKS, expected_failures or {}, only=tuple(only)))


def make_contract(
    named: Named,
    options: Mapping[str, Any] | None = None,
    slow: bool = False,
    only: tuple[str, ...] = (),
) -> Contract:
    """The contract of a model, loss or data set."""
    kind = named.kind if isinstance(named, Spec) else _kind(named)
    if kind == "dataset":
        return Contract(LoadedDataset(named, options), DATASET_CHECKS, {}, slow, only)
    if kind == "model":
        return Contract(ModelWithLoss(named, options=options), MODEL_CHECKS, {}, slow, only)
    pair = ModelWithLoss(_default_model(named), named, about="loss", options=options)
    return Contract(pair, LOSS_CHECKS, {}, slow, only)


def parametrize_with_checks(*subjects: Named, slow: bool = False) -> Any:
    """A pytest decorator that makes one test of each check of each subject.

        @parametrize_with_checks("my_vae", "my_loss")
        def test_keeps_the_contract(check):
            check()

    subjects: names, specs or classes of models, losses and data sets. slow: the slow checks too.
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


def _run_all(contract: Contract) -> list[Result]:
    results = list(contract.results())
    failed = [result for result in results if result.status == "failed"]
    if failed:
        lines = "".join(f"\n  {_line(result)}" for result in failed)
        error = next((result.error for result in failed if result.error), None)
        raise ContractError(f"{contract.subject.name} breaks the contract:{lines}") from error
    return results


def _line(result: Result) -> str:
    return f"{result.check}: {result.reason} ({result.hint})"


def _kind(named: str | type) -> str:
    if isinstance(named, type):
        kind = kind_of_class(named)
        if kind is None:
            raise VaezooError(f"{named.__name__} is no BaseVAE, BaseLoss or BaseDataset class")
        return kind.kind
    kinds = [spec.kind for spec in registry().find(named)]
    if len({*kinds}) > 1:
        raise OptionError(f"{named!r} is a {' and a '.join(kinds)}: give its spec, or a class")
    return kinds[0]


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
