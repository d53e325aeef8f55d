"""The contract that models, losses and data sets keep, as checks: for authors of plugins.

`vaezoo check NAME` runs them on the command line. hypothesis, where it is installed, looks at more
kinds of data; pytest is needed for parametrize_with_checks alone.
"""

from vaezoo.testing.check import Result
from vaezoo.testing.contract import (
    ContractError,
    check_dataset,
    check_loss,
    check_model,
    parametrize_with_checks,
)

__all__ = [
    "ContractError",
    "Result",
    "check_dataset",
    "check_loss",
    "check_model",
    "parametrize_with_checks",
]
