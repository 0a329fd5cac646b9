"""The network that MAS was published with: an Xception-like encoder and a separable decoder per dense task.

The encoder takes a picture to a sixteenth of its size in 256 channels: two convolutions, three blocks that
each halve the size, four blocks of 512 channels, a separable convolution. A decoder doubles the size four
times with transposed convolutions between separable ones; 16 channels go past them, enlarged bilinearly.
Everything is normalised over the batch: running means and variances are buffers that travel and are
averaged like weights, and a batch may not be cut into micro-batches without changing what is learnt.
Pictures of 128 to 256 pixels are what it is for; sides must be multiples of 16.

Source: the default network of the code released with MAS (EasyFL, applications/mas, Apache-2.0), layer by
layer with its initialisation; there a variant of Chollet 2017 (arXiv 1610.02357). Unlike there, the
shortcut in a decoder is enlarged to the picture's size rather than to 256 pixels.
"""

from __future__ import annotations

from math import sqrt

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

_DOWN = 16
"""How much smaller the representation is than the picture."""

FEATURES = 256
"""Channels of the representation."""


class Separable(nn.Sequential):
    """(B, C, H, W) -> (B, C', H, W): a convolution of each channel, then a mixture of channels."""

    def __init__(self, channels: int, out: int, kernel: int = 3) -> None:
        depthwise = nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=channels, bias=False)
        super().__init__(depthwise, nn.Conv2d(channels, out, 1, bias=False))


class Block(nn.Module):
    """Two separable convolutions beside a linear path; ``stride`` 2 halves the size."""

    def __init__(self, channels: int, out: int, *, stride: int = 1, activate: bool = True) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.ReLU()] if activate else []
        layers += [Separable(channels, out), nn.BatchNorm2d(out)]
        layers += [nn.ReLU(), Separable(out, out), nn.BatchNorm2d(out)]
        self.skip: nn.Module = nn.Identity()
        if stride > 1:
            layers.append(nn.Conv2d(out, out, stride, stride))
            self.skip = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))
        self.layers = nn.Sequential(*layers)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """The block's output, (B, C', H/stride, W/stride)."""
        out: Tensor = self.layers(x_BCHW) + self.skip(x_BCHW)
        return out


class Encoder(nn.Sequential):
    """x (B, 3, H, W) -> features (B, FEATURES, H/16, W/16).

    ``last_block``, which gram looks at, is the last block and the separable convolution after it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            *(nn.Conv2d(3, 24, 3, 2, 1, bias=False), nn.BatchNorm2d(24), nn.ReLU()),
            *(nn.Conv2d(24, 48, 3, 1, 1, bias=False), nn.BatchNorm2d(48), nn.ReLU()),
        )
        self.down = nn.Sequential(
            Block(48, 96, stride=2, activate=False), Block(96, 192, stride=2), Block(192, 512, stride=2)
        )
        self.middle = nn.Sequential(*(Block(512, 512) for _ in range(3)))
        end = (Separable(512, FEATURES), nn.BatchNorm2d(FEATURES), nn.ReLU())
        self.last_block = nn.Sequential(Block(512, 512), *end)
        _initialise(self)


class Decoder(nn.Module):
    """Features (B, FEATURES, H/16, W/16) -> (B, outputs, H, W)."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.past = nn.Sequential(Separable(FEATURES, 16), nn.BatchNorm2d(16))
        self.up = nn.Sequential(
            *(Separable(FEATURES, 96), nn.BatchNorm2d(96)),
            *(*_double(96, 96), nn.ReLU(), Separable(96, 64), nn.BatchNorm2d(64), nn.ReLU()),
            *(*_double(64, 64), nn.ReLU(), Separable(64, 64, 5), nn.BatchNorm2d(64), nn.ReLU()),
            *(*_double(64, 32), nn.ReLU(), Separable(32, 32, 5), nn.BatchNorm2d(32), nn.ReLU()),
            *_double(32, 32),
        )
        self.out = Separable(32 + 16, outputs, 5)
        _initialise(self)

    def forward(self, features_BCHW: Tensor) -> Tensor:
        """The picture, (B, outputs, H, W)."""
        past = interpolate(self.past(features_BCHW), scale_factor=_DOWN, mode="bilinear")
        out: Tensor = self.out(torch.cat([self.up(features_BCHW), past], 1).relu())
        return out


def _double(channels: int, out: int) -> tuple[nn.Module, nn.Module]:
    return nn.ConvTranspose2d(channels, out, 2, 2), nn.BatchNorm2d(out)


def _initialise(module: nn.Module) -> None:
    """Convolutions get normal weights of variance 2 / (kernel area times outputs), as published."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            area = part.kernel_size[0] * part.kernel_size[1]
            nn.init.normal_(part.weight, 0.0, sqrt(2 / (area * part.out_channels)))
