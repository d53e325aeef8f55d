"""torch's Adam without its wrappers for torch.compile."""

from __future__ import annotations

import inspect

import torch
from torch import optim


class Adam(optim.Adam):
    """torch.optim.Adam, equal to the bit, that does not import `torch._dynamo`.

    torch wraps the methods of optimizers for torch.compile. The first call of a wrapped method
    imports `torch._dynamo`, which takes two of the six seconds before the first training step. Here
    the methods are unwrapped: only losses are compiled, never optimizers.
    """

    step = torch.no_grad()(inspect.unwrap(optim.Adam.step))
    zero_grad = inspect.unwrap(optim.Optimizer.zero_grad)
    add_param_group = inspect.unwrap(optim.Optimizer.add_param_group)
    state_dict = inspect.unwrap(optim.Optimizer.state_dict)
    load_state_dict = inspect.unwrap(optim.Optimizer.load_state_dict)
