"""Stochastic gradient descent in a few lines, because torch's own brings its compiler along.

``torch.optim.SGD(...)`` imports 70 to 127 MB of a board's memory; this computes the same bits as its
``fused=True`` with the same ``torch._fused_sgd_``, which reads and writes every number once
(tests/edge_agent/test_train.py compares). It has no schedule. With ``prox_mu`` the weights are drawn towards
those that they had at the start, as in FedProx: Li et al., "Federated Optimization in Heterogeneous
Networks", MLSys 2020, equation 2, whose gradient has the term mu (w - w0).
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

    def __init__(
        self, parameters: Sequence[Tensor], *, momentum: float, weight_decay: float, prox_mu: float = 0.0
    ) -> None:
        self._parameters = list(parameters)
        self._momentum = momentum
        self._weight_decay = weight_decay
        self._prox_mu = prox_mu
        self._received = [p.detach().clone() for p in self._parameters] if prox_mu else []
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
        if self._prox_mu:
            torch._foreach_add_(gradients, weights, alpha=self._prox_mu)
            torch._foreach_add_(gradients, [self._received[index] for index in at], alpha=-self._prox_mu)
        moving = at if self._momentum else []  # without momentum torch takes no buffers
        fresh = [index for index in moving if index not in self.velocity]
        self.velocity |= {index: torch.zeros_like(self._parameters[index]) for index in fresh}
        torch._fused_sgd_(
            weights,
            gradients,
            [self.velocity[index] for index in moving],
            weight_decay=self._weight_decay,
            momentum=self._momentum,
            lr=lr,
            dampening=0.0,
            nesterov=False,
            maximize=False,
            is_first_step=False,
        )
        for p in weights:
            p.grad = None
