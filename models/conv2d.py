"""Small residual networks over pictures: one encoder with a wide view, and a light decoder per dense task.

The encoder goes down to an eighth of the picture's size, where convolutions are cheap and see far, and comes
back up to a quarter, where its last block joins both; that is what all decoders read. Its linear path is
never normalised, so that an absolute level reaches the decoders. A decoder looks at 3 x 3 features and
paints a 4 x 4 patch of the output from them (sub-pixel convolution). Decoders that read one representation
run together: their first convolutions are computed as a single wide one, from each decoder's own weights.
GroupNorm keeps no statistics of other examples: what a device learns does not depend on how a batch is cut,
and there are no running averages to merge.

Source: pre-activation blocks of He et al. 2016 (arXiv 1603.05027); GroupNorm of Wu & He 2018 (arXiv
1803.08494); sub-pixel convolution of Shi et al. 2016 (arXiv 1609.05158). bench/train_step.py measures what
running together saves. It knows no task and no data set; heights and widths must be multiples of 8.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn.functional import conv2d, pixel_shuffle, silu

from mas_edge.models.net import JointDecoder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

_GROUP = 8
"""Channels that are normalised together."""

_PATCH = 4
"""Pixels of output, in either direction, per position of the representation."""


class Residual(nn.Module):
    """x (B, C, H, W) -> (B, C', H/stride, W/stride): two normalised convolutions beside a linear path."""

    def __init__(self, channels: int, out: int, *, stride: int = 1) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(channels // _GROUP, channels)
        self.conv1 = nn.Conv2d(channels, out, 3, stride, 1, bias=False)
        self.norm2 = nn.GroupNorm(out // _GROUP, out)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1, bias=False)
        self.skip: nn.Module = nn.Identity()
        nn.init.kaiming_normal_(self.conv1.weight, nonlinearity="relu")
        if stride > 1 or channels != out:
            self.skip = nn.Conv2d(channels, out, stride, stride, bias=False)
            nn.init.kaiming_normal_(self.skip.weight, nonlinearity="linear")

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """The block's output, (B, C', H/stride, W/stride)."""
        y = self.conv1(self.norm1(x_BCHW).relu())
        y = self.conv2(self.norm2(y).relu())
        out: Tensor = self.skip(x_BCHW) + y
        return out


class Encoder(nn.Module):
    """x (B, C, H, W) -> features (B, widths[1], H/4, W/4).

    ``widths`` are the channels at half, a quarter and an eighth of the size, ``deep`` is the number of
    further blocks at an eighth. ``last_block`` is the part that gram looks at: the last residual block
    and the norm after it.
    """

    def __init__(self, channels: int, widths: tuple[int, int, int], *, deep: int) -> None:
        super().__init__()
        half, quarter, eighth = widths
        self.stem = nn.Conv2d(channels, half, 3, 2, 1)
        nn.init.kaiming_normal_(self.stem.weight, nonlinearity="linear")
        self.down = Residual(half, quarter, stride=2)
        further = (Residual(eighth, eighth) for _ in range(deep))
        self.context = nn.Sequential(Residual(quarter, eighth, stride=2), *further)
        self.up = nn.Sequential(nn.Conv2d(eighth, 4 * quarter, 1, bias=False), nn.PixelShuffle(2))
        norm = nn.GroupNorm(quarter // _GROUP, quarter)
        self.last_block = nn.Sequential(Residual(quarter, quarter), norm)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Features, (B, widths[1], H/4, W/4)."""
        near = self.down(self.stem(x_BCHW))
        features: Tensor = self.last_block(near + self.up(self.context(near)))
        return features


class Decoder(JointDecoder):
    """Features (B, C, H/4, W/4) -> (B, outputs, H, W): every position paints its own patch."""

    def __init__(self, channels: int, outputs: int, *, hidden: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, hidden, 3, padding=1)
        self.out = nn.Conv2d(hidden, outputs * _PATCH**2, 1)

    def forward(self, features_BCHW: Tensor) -> Tensor:
        """The picture, (B, outputs, H, W)."""
        return self._paint(silu(self.squeeze(features_BCHW)))

    @classmethod
    def together(cls, decoders: Sequence[Decoder], features: Tensor) -> list[Tensor]:
        """What each decoder gives, with the first convolutions as one."""
        weight = torch.cat([each.squeeze.weight for each in decoders])
        bias = torch.cat([each.squeeze.bias for each in decoders if each.squeeze.bias is not None])
        hidden = silu(conv2d(features, weight, bias, padding=1))
        parts = torch.split(hidden, [each.squeeze.out_channels for each in decoders], dim=1)
        return [each._paint(part) for each, part in zip(decoders, parts, strict=True)]  # noqa: SLF001 - its own

    def _paint(self, hidden_BCHW: Tensor) -> Tensor:
        return pixel_shuffle(self.out(hidden_BCHW), _PATCH)
