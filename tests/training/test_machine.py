"""The global switches of a run are set back when it is over."""

from __future__ import annotations

import pytest
from torch.distributions import Distribution, Normal

from vaezoo.training.machine import arithmetic


@pytest.mark.parametrize("checking", [True, False])
def test_distributions_check_nothing_in_a_run_and_as_before_afterwards(checking: bool) -> None:
    before = Distribution._validate_args
    Distribution.set_default_validate_args(checking)
    try:
        with arithmetic("fp32", deterministic=True):
            Normal(0.0, -1.0)
        assert Distribution._validate_args is checking
        with pytest.raises(RuntimeError), arithmetic("fp32", deterministic=True):
            raise RuntimeError
        assert Distribution._validate_args is checking
    finally:
        Distribution.set_default_validate_args(before)
