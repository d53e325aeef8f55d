"""Each check passes what is right, and catches what was made wrong on purpose."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from vaezoo.plugins.sources import import_file
from vaezoo.testing import check_dataset, check_loss, check_model, check_part
from vaezoo.testing.check import Result
from vaezoo.testing.contract import CHECKS, ContractError, make_contract

HERE = Path(__file__).parent
MODELS, LOSSES, DATASETS, PARTS = (
    import_file(str(HERE / f"wrong_{kind}.py"))
    for kind in ("models", "losses", "datasets", "parts")
)

WRONG_MODELS = {
    "TooWide": ("shapes", "event_shape is (4,), not (5,)"),
    "PastOne": ("shapes", "past [0, 1]"),
    "GreyOnly": ("shapes", "on 3×28×28 unit"),
    "EvenOnly": ("shapes", "on 1×4×13 unit: the mean of decode's is (1, 1, 4, 12)"),
    "Squeezed": ("shapes", "the mean of decode's is (1, 28, 28), not (1, 1, 28, 28)"),
    "DoubleTrouble": ("shapes", "torch.float64, not torch.float32"),
    "Halved": ("rate", "the mean of log q - log p"),
    "Swapped": ("rate", "the mean of log q - log p"),
    "Negative": ("rate", "the rate of an example is -"),
    "ForgetsItsUnits": ("shapes", "log p(x|z) is of the standardised values"),
    "OffPrior": ("rate", "from the prior to itself it is 1 nats"),
    "WeighsTwice": ("bound", "of one sample"),
    "LowEstimate": ("bound", "with many samples"),
    "LogOfZero": ("extremes", "on zeros"),
    "Deaf": ("overfit", "not 0.3 or more"),
    "Idle": ("gradients", "spare.weight, spare.bias"),
    "Detached": ("gradients", "encoder.1.weight"),
    "Dice": ("seeds", "training steps"),
    "StartsByDice": ("seeds", "decoder.0.bias has other initial values"),
    "AlwaysTheSame": ("seeds", "samples do not depend on the seed"),
    "Crowd": ("independence", "the posterior's mean"),
    "CrowdDecoder": ("independence", "the likelihood's mean"),
    "Counts": ("evaluation", "calls changes"),
    "Drifts": ("evaluation", "another loss the second time"),
    "Forgets": ("weights", "is different after loading"),
    "ForgetsItsPrior": ("weights", "is different after loading"),
    "Undescribed": ("options", "width has no description"),
    "Unspeakable": ("options", "--sizes"),
    "Ignores": ("labels", "samples of two classes are the same"),
    "NeedsLabels": ("labels", "say InputSpec(labels=True)"),
    "UnfittedPrior": ("sampling", "fit the prior first"),
    "RunsAway": ("sampling", "after training sample(1) is not finite"),
    "ReadsBack": ("flops", "read back by item(), float() or a truth value: wrong_models.py, line"),
    "Unregistered": (
        "rehearsal",
        "mul meets a tensor [4] that is on the CPU: wrong_models.py, line",
    ),
    "CopiesEachStep": (
        "rehearsal",
        "a copy between CPU and GPU, which waits, and no CUDA graph can hold it: wrong_models.py",
    ),
    "BranchesInEvaluation": ("rehearsal", "float() or a truth value: wrong_models.py, line"),
    "PicksByMask": ("rehearsal", "nonzero() or a mask as an index: wrong_models.py, line"),
    "OtherwiseCompiled": ("compiled", "compiled"),
}

WRONG_LOSSES = {
    "SumsTheBatch": ("batch_size", "loss is"),
    "ColumnObjective": ("terms", "loss is (1,), not ()"),
    "WideTerms": ("terms", "rate is (3, 4), not () or (4,)"),
    "WrongElbo": ("terms", "elbo is not -(rate + distortion)"),
    "NoGradient": ("terms", "the loss of phase critic has no gradient"),
    "HalfNats": ("half_precision", "score of phase train is torch.bfloat16"),
    "Overflows": ("extremes", "loss is inf"),
    "ClipsTheCritic": ("phases", "phase train changes the loss's critic"),
    "StepsItself": ("phases", "phase critic gives"),
    "OneName": ("phases", "have the same name"),
    "ForeignParameter": ("phases", "of neither model nor loss"),
    "LeavesTheCritic": ("gradients", "the loss's critic.0.weight is in no phase"),
    "Anneals": ("evaluation", "the loss's calls changes"),
    "NeedsGradients": ("evaluation", "does not require grad"),
}

WRONG_DATASETS = {
    "Miscounts": ("examples", "spec.num_examples is 120, but there are 100"),
    "ClaimsAShape": ("examples", "its spec says shape (3, 8, 8), and it has (1, 8, 8)"),
    "OtherShape": ("examples", "its spec says shape (1, 8, 8), and it has (1, 9, 9)"),
    "WrongBatch": ("examples", "get_batch gives (100, 1, 8, 8), not (100, 1, 9, 9)"),
    "Floats": ("examples", "must be uint8, not float32"),
    "ThirdClass": ("examples", "labels go from 1 to 2"),
    "ShortLabels": ("examples", "labels are torch.int32"),
    "NotBinary": ("values", "neither 0 nor 1"),
    "AnotherEachTime": ("repeatable", "the train split changes each time"),
    "Nameless": ("repeatable", "no fingerprint"),
    "TestsOnTraining": ("disjoint", "test examples are also in the train split"),
    "NoValidation": ("validation", "requested are 10 examples, there are 20"),
    "Rambles": ("record", "`description` is not one line"),
    "UndescribedData": ("options", "size has no description"),
    "OnDisk": ("missing", "raises no DataError"),
    "OnDiskInLines": ("missing", "the error has several lines"),
}

WRONG_PARTS = {
    "OwnShape": ("out_shape", "the decoder's output is (2, 1, 28, 28), not (2, 3, 28, 28)"),
    "OtherGrid": ("grid", "the grid_encoder's output is (2, 6, 2, 2), not (2, 6, 4, 4)"),
    "NoTag": ("grid", "latent_grid is (4, 4), without a tag `grid`"),
    "OneBody": ("own_weights", "two encoders share 2 parameters"),
    "ImagesOnly": ("out_shape", "RuntimeError"),
    "BatchOfLatents": ("latent_shapes", "the posterior's batch_shape is (3, 2), not (3,)"),
    "VectorOfGrid": ("latent_shapes", "decoder_input of a sample of the posterior is (3, 12), not"),
    "AsksForMore": ("num_params", "2 of 6 parameters have no gradient"),
    "NoDensity": ("compatible", "NotImplementedError"),
    "EachValue": ("param_shape", "on binary vectors of 5 values the batch_shape is (3, 5), not"),
    "OneParameter": ("param_shape", "RuntimeError: The size of tensor"),
    "PastOneMean": ("mean_range", "past [0, 1]"),
    "BetweenLevels": ("support", "a sample is between two values"),
    "NoLogDet": ("log_det", "it is 5.493 nats away from that"),
    "Grows": ("state", "count: of another shape after fitting"),
    "ForgetsThatItIsFitted": ("fitted", "false where the state of a fitted one is loaded"),
    "BatchOfValues": ("distribution", "the event_shape is (), not (4,)"),
    "ChangesTheModel": ("frozen", "fit() changes encoder."),
    "IgnoresLatents": ("learns", "their log-probability was"),
    "OneClassOnly": ("classes", "a sample of two classes"),
}

ELSEWHERE = {"registration", "processes"}
"""Checks whose wrong subject has to be installed, or loaded elsewhere: in test_contract.py."""


def statuses(results: list[Result]) -> dict[str, str]:
    return {result.check: result.status for result in results}


def test_what_is_right_passes() -> None:
    usual = {"passed", "does not apply", "left out"}
    assert set(statuses(check_model(MODELS.Right)).values()) == usual
    assert set(statuses(check_loss(LOSSES.RightLoss, model=MODELS.Right)).values()) == usual
    found = statuses(check_dataset(DATASETS.Stripes))
    others = [name for name, status in found.items() if status != "passed"]
    assert others == ["registration", "missing"]


def test_what_is_right_compiles() -> None:
    assert statuses(check_model(MODELS.Right, only=["compiled"])) == {"compiled": "passed"}


def test_distributions_may_check_themselves_outside_of_training() -> None:
    assert statuses(check_model(MODELS.Checked, only=["flops", "shapes"])) == {
        "shapes": "passed",
        "flops": "passed",
    }


@pytest.mark.parametrize(
    ("check_subject", "subject", "check", "said"),
    [
        pytest.param(check_subject, getattr(module, name), *expected, id=name)
        for check_subject, module, wrong in (
            (check_model, MODELS, WRONG_MODELS),
            (check_loss, LOSSES, WRONG_LOSSES),
            (check_dataset, DATASETS, WRONG_DATASETS),
            (check_part, PARTS, WRONG_PARTS),
        )
        for name, expected in wrong.items()
    ],
)
def test_what_is_wrong_is_caught(check_subject: Any, subject: type, check: str, said: str) -> None:
    with pytest.raises(ContractError) as raised:
        check_subject(subject, only=[check])
    message = str(raised.value)
    assert message.splitlines()[1].strip().startswith(f"{check}: ")
    assert said in message
    assert len(message.splitlines()) == 2


RIGHT_PARTS = ("RightNetwork", "RightBottleneck", "RightLikelihood", "RightSampler")


@pytest.mark.parametrize("name", RIGHT_PARTS)
def test_a_right_part_passes(name: str) -> None:
    found = statuses(check_part(getattr(PARTS, name)))
    assert {*found.values()} <= {"passed", "does not apply", "left out"}
    assert [check for check, status in found.items() if status == "does not apply"] in (
        ["registration"],
        ["registration", "sampling"],
    )


FOLLOWS = {
    "ImagesOnly": {"grid", "own_weights"},
    "BatchOfLatents": {"compatible"},
    "EachValue": {"log_det"},
    "OneParameter": {"mean_range", "support", "log_det"},
    "Grows": {"fitted"},
}
"""Checks that fail because of the same mistake: it leaves them nothing to look at."""


@pytest.mark.parametrize("name", WRONG_PARTS)
def test_a_wrong_part_fails_no_other_check_of_its_kind(name: str) -> None:
    """The checks of the part alone, without those of the model around it."""
    contract = make_contract(getattr(PARTS, name))
    alone = [c for c in contract.checks if c.function.__module__.endswith("part_checks")]
    failed = {c.name for c in alone if contract.result(c).status == "failed"}
    assert failed - FOLLOWS.get(name, set()) <= {WRONG_PARTS[name][0]}


def test_every_check_has_something_wrong_to_catch() -> None:
    wrong = (WRONG_MODELS, WRONG_LOSSES, WRONG_DATASETS, WRONG_PARTS)
    caught = {check for subjects in wrong for check, _ in subjects.values()}
    assert {check.name for checks in CHECKS.values() for check in checks} - ELSEWHERE == caught
