"""Stochastic gradient descent in fifteen lines, because torch's own brings its compiler along.

``torch.optim.SGD(...)`` imports 70 to 127 MB of a board's memory; this computes the same bits with the same
``torch._foreach_*`` functions (tests/edge_agent/test_train.py compares). It has no schedule.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


class SGD:
    """Stochastic gradient descent with momentum and weight decay, as ``torch.optim.SGD`` computes it.

    Like it, parameters without a gradient are left alone, and the first step's momentum is the gradient.
    """

    def __init__(self, parameters: Sequence[Tensor], *, momentum: float, weight_decay: float) -> None:
        self._parameters = list(parameters)
        self._momentum = momentum
        self._weight_decay = weight_decay
        self.velocity: dict[int, Tensor] = {}
        """Momentum buffers by the parameter's position."""

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """Apply the parameters' gradients, and drop them."""
        at = [index for index, p in enumerate(self._parameters) if p.grad is not None]
        weights = [self._parameters[index] for index in at]
        if not weights:
            return
        gradients = [p.grad for p in weights if p.grad is not None]
        directions = torch._foreach_add(gradients, weights, alpha=self._weight_decay)  # noqa: SLF001 - as torch.optim
        fresh = [index for index in at if index not in self.velocity]
        self.velocity |= {index: torch.zeros_like(self._parameters[index]) for index in fresh}
        velocity = [self.velocity[index] for index in at]
        torch._foreach_mul_(velocity, self._momentum)
        torch._foreach_add_(velocity, directions)
        torch._foreach_add_(weights, velocity, alpha=-lr)
        for p in weights:
            p.grad = None
