"""Checks of the contract of models, parts, losses and data sets, for authors of plugins.

`vaezoo check NAME` runs them on the command line. If hypothesis is installed, more data shapes are
tried. Only parametrize_with_checks needs pytest.
"""

from vaezoo.testing.check import Result
from vaezoo.testing.contract import (
    ContractError,
    check_dataset,
    check_loss,
    check_model,
    check_part,
    parametrize_with_checks,
)

__all__ = [
    "ContractError",
    "Result",
    "check_dataset",
    "check_loss",
    "check_model",
    "check_part",
    "parametrize_with_checks",
]
