"""torch's Adam, without what it brings in for torch.compile."""

from __future__ import annotations

import inspect

import torch
from torch import optim


class Adam(optim.Adam):
    """The same numbers to the bit. It takes no part in a compiled graph, and has no need to.

    The first call of a method of an optimizer imports `torch._dynamo`, because torch wraps the
    method for torch.compile: two of the six seconds from a command to its first step. So the
    methods stand here without their wrappings. Only objectives are compiled, never optimizers.
    """

    step = torch.no_grad()(inspect.unwrap(optim.Adam.step))
    zero_grad = inspect.unwrap(optim.Optimizer.zero_grad)
    add_param_group = inspect.unwrap(optim.Optimizer.add_param_group)
    state_dict = inspect.unwrap(optim.Optimizer.state_dict)
    load_state_dict = inspect.unwrap(optim.Optimizer.load_state_dict)
