"""Small residual networks over 1-d signals: one encoder, and a head per shape of output.

The encoder halves the time axis with every stage; each stage is a pre-activation residual block, whose
linear path is never normalised, so that an absolute level (which way is down?) reaches the heads.
GroupNorm keeps no statistics of other examples: what a device learns does not depend on how a batch is
cut, and there are no running averages to merge. Heads are light, the encoder carries most of the work;
heads use SiLU, because with ReLU a narrow one, trained alone, died at a rate that the others liked.

Source: pre-activation blocks of He et al. 2016 (arXiv 1603.05027); GroupNorm of Wu & He 2018
(arXiv 1803.08494). It knows no task and no data set.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from torch import nn
from torch.nn.functional import silu

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

_GROUP = 8
"""Channels that are normalised together."""


class Residual(nn.Module):
    """x (B, C, T) -> (B, C', T/stride): two normalised convolutions beside a linear path."""

    def __init__(self, channels: int, out: int, *, stride: int, kernel: int = 5) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(channels // _GROUP, channels)
        self.conv1 = nn.Conv1d(channels, out, kernel, stride, kernel // 2, bias=False)
        self.norm2 = nn.GroupNorm(out // _GROUP, out)
        self.conv2 = nn.Conv1d(out, out, kernel, padding=kernel // 2, bias=False)
        self.skip = nn.Conv1d(channels, out, stride, stride, bias=False)
        nn.init.kaiming_normal_(self.conv1.weight, nonlinearity="relu")
        nn.init.kaiming_normal_(self.skip.weight, nonlinearity="linear")  # by default it shrinks to a third

    def forward(self, x_BCT: Tensor) -> Tensor:
        """The block's output, (B, C', T/stride)."""
        y = self.conv1(self.norm1(x_BCT).relu())
        y = self.conv2(self.norm2(y).relu())
        out: Tensor = self.skip(x_BCT) + y
        return out


class Encoder(nn.Module):
    """x (B, C, T) -> features (B, widths[-1], T / 2 ** len(widths)).

    ``last_block`` is the part that gram looks at: the last residual block and the norm after it, without
    which a learning rate of 0.1 diverged on the watch data.
    """

    def __init__(self, channels: int, widths: Sequence[int]) -> None:
        super().__init__()
        *early, last = pairwise(widths)
        self.stem = nn.Conv1d(channels, widths[0], 7, 2, 3)
        nn.init.kaiming_normal_(self.stem.weight, nonlinearity="linear")
        self.blocks = nn.Sequential(*(Residual(here, there, stride=2) for here, there in early))
        norm = nn.GroupNorm(widths[-1] // _GROUP, widths[-1])
        self.last_block = nn.Sequential(Residual(*last, stride=2), norm)

    def forward(self, x_BCT: Tensor) -> Tensor:
        """Features, (B, widths[-1], T / 2 ** len(widths))."""
        features: Tensor = self.last_block(self.blocks(self.stem(x_BCT)))
        return features


class Summary(nn.Sequential):
    """Features (B, C, T) -> (B, outputs): a value or class logits for the whole window."""

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__(nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(channels, outputs))


class Envelope(nn.Sequential):
    """Features (B, C, T) -> (B, T): one value per stretch of time."""

    def __init__(self, channels: int, *, hidden: int = 16) -> None:
        super().__init__(nn.Conv1d(channels, hidden, 1), nn.SiLU(), nn.Conv1d(hidden, 1, 1), nn.Flatten())


class Ahead(nn.Module):
    """Features (B, C, T) -> (B, signals, steps): what comes after the window, from its last features."""

    def __init__(self, channels: int, signals: int, steps: int, *, tail: int = 4, hidden: int = 32) -> None:
        super().__init__()
        self.tail = tail
        self.shape = (signals, steps)
        self.squeeze = nn.Conv1d(channels, hidden, 1)
        self.out = nn.Linear(hidden * tail, signals * steps)

    def forward(self, x_BCT: Tensor) -> Tensor:
        """The signals' next values, (B, signals, steps)."""
        tail = silu(self.squeeze(x_BCT[..., -self.tail :]))
        ahead: Tensor = self.out(tail.flatten(1)).unflatten(1, self.shape)
        return ahead


class Upsample(nn.Module):
    """Features (B, C, T) -> (B, signals, T * factor): every position paints its own stretch of time."""

    def __init__(self, channels: int, signals: int, factor: int, *, hidden: int = 32) -> None:
        super().__init__()
        self.signals = signals
        self.squeeze = nn.Conv1d(channels, hidden, 3, padding=1)
        self.out = nn.Conv1d(hidden, signals * factor, 1)

    def forward(self, x_BCT: Tensor) -> Tensor:
        """The signals at full rate, (B, signals, T * factor)."""
        y_BSFT: Tensor = self.out(silu(self.squeeze(x_BCT))).unflatten(1, (self.signals, -1))
        return y_BSFT.transpose(2, 3).flatten(2)
