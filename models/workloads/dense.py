"""The networks of every workload whose tasks give an output per pixel of a picture.

``micro`` is for demos and boards at 32 pixels (0.14 million parameters with the nine tasks of Taskonomy),
``small`` for 64 to 128 (0.8 million), ``xception`` is the network that MAS was published with, for 128 to
256 (5.1 million). Sides must be multiples of 8, for ``xception`` of 16. Importing this loads no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mas_edge.models.tasks import UnknownChoice

if TYPE_CHECKING:
    from torch import nn

    from mas_edge.models.tasks import Task


@dataclass(frozen=True)
class Size:
    """Of ``conv2d``: channels at 1/2, 1/4 and 1/8, further blocks there, a decoder's channels."""

    widths: tuple[int, int, int]
    deep: int
    hidden: int


_SIZES = {"micro": Size((16, 32, 40), 1, 12), "small": Size((32, 64, 96), 2, 24)}

NETWORKS = (*_SIZES, "xception")


def encoder(network: str) -> nn.Module:
    """A fresh encoder of pictures (B, 3, H, W); raises UnknownChoice."""
    from mas_edge.models import conv2d, xception  # noqa: PLC0415 - imports torch

    if network == "xception":
        return xception.Encoder()
    size = _size(network)
    return conv2d.Encoder(3, size.widths, deep=size.deep)


def decoder(network: str, task: Task) -> nn.Module:
    """A fresh decoder that gives (B, *task.shape); raises UnknownChoice."""
    from mas_edge.models import conv2d, xception  # noqa: PLC0415 - imports torch

    if network == "xception":
        return xception.Decoder(task.shape[0])
    size = _size(network)
    return conv2d.Decoder(size.widths[1], task.shape[0], hidden=size.hidden)


def _size(network: str) -> Size:
    if network not in _SIZES:
        raise UnknownChoice(f"there is no network {network!r}; there are {', '.join(NETWORKS)}")
    return _SIZES[network]
