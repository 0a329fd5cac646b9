"""How much a network's parts compute for one example, counted.

``torch.utils.flop_counter`` counts the floating-point operations of matrix products and convolutions, twice a
multiplication and addition; normalisations, activations and losses are left out. Of a training step backward
is about twice the forward pass in every part, so what a task group costs beside another one is the ratio of
these numbers; how well, docs/decisions/0015 says.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.utils.flop_counter import FlopCounterMode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn

    from mas_edge.models.net import MultiTaskNet


def forward_flops(net: MultiTaskNet, input_shape: Sequence[int]) -> dict[str, int]:
    """FLOPs of an example's forward pass by part (``encoder``, ``decoder.TASK``); the network is unchanged.

    Raises what the network raises for an input (1, *input_shape).
    """
    training = net.training
    net.eval()  # running statistics are left alone
    try:
        with torch.no_grad():
            features, encoder = _counted(net.encoder, torch.zeros(1, *input_shape))
            decoders = {f"decoder.{task}": _counted(net.decoder[task], features)[1] for task in net.tasks}
    finally:
        net.train(training)
    return {"encoder": encoder, **decoders}


def _counted(module: nn.Module, inputs: Tensor) -> tuple[Tensor, int]:
    with FlopCounterMode(display=False) as counter:
        outputs = module(inputs)
    return outputs, counter.get_total_flops()
