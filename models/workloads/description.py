"""``dataset.toml``: what the files of a folder mean, so that a workload can be made of them.

    pixels = 64                         # pictures are reduced to 64 x 64
    clients = ["attic", "barn"]         # buildings that train
    unseen = ["cabin"]                  # buildings that nobody trains on

    [tasks.segment_semantic]            # the folder's name is the task's name
    kind = "classes"
    channels = 18                       # how many classes
    ignore = [0]                        # stored values that are no label

    [tasks.depth_zbuffer]
    kind = "regression"
    channels = 1
    mean = [1500.0]                     # target = (stored value - mean) / std, per channel
    std = [1000.0]
    masked = true                       # counts only where the mask says so

    [mask]
    domain = "depth_zbuffer"            # a pixel is valid where this stored value
    below = 8192                        # is above and below these, where given

It describes and checks; it opens no picture. Both daemons load it, so numpy waits until there are arrays.
"""

from __future__ import annotations

import json
import sys
from functools import reduce
from math import inf, isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec

from mas_edge.models.tasks import Array, DataRefused

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    Normaliser: TypeAlias = Callable[[Array], Array]

FILE = "dataset.toml"

VERSION = 1
"""Of what is made of the files; another one makes other caches and other fingerprints."""

Count = Annotated[int, msgspec.Meta(ge=1)]
Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_]+$")]
Building = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]+$")]


class _Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A table of the file; a key that it does not know is an error."""


class Values(_Table, frozen=True, kw_only=True):
    """What stored values mean: target = (value - mean) / std, per channel; one number serves all."""

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    def normaliser(self) -> Normaliser:
        """A function that makes targets of stored values of any kind, both (B, C, H, W), in float32."""
        import numpy as np  # noqa: PLC0415 - the daemons do without

        mean = np.array(self.mean, np.float32).reshape(-1, 1, 1)
        scale = (1 / np.array(self.std)).astype(np.float32).reshape(-1, 1, 1)
        shift, factor = (each.item() if each.size == 1 else each for each in (mean, scale))

        def normalised(values_BCHW: Array) -> Array:
            target = values_BCHW.astype(np.float32, order="C")
            target -= shift
            target *= factor
            return target

        return normalised


class Picture(Values, frozen=True, kw_only=True):
    """The input: a colour picture. ``domain`` is its folder; by default it is scaled to -1..1."""

    domain: Name = "rgb"
    mean: tuple[float, ...] = (127.5,)
    std: tuple[float, ...] = (127.5,)


class Label(Values, frozen=True, kw_only=True):
    """A task's labels. ``channels`` counts classes, or a regression's values per pixel; of a file with more
    channels the first count. ``normals`` is a regression of three that is judged by the angle.

    ``ignore`` names stored values that are no label; ``masked`` labels count only where the mask is
    valid, by default under the loss ``masked-l1``. ``constant`` is the best constant prediction as a
    target (of classes: logits), if known.
    """

    kind: Literal["classes", "regression", "normals"]
    channels: Count
    title: str = ""
    ignore: tuple[int, ...] = ()
    masked: bool = False
    loss: Literal["l1", "mse", "masked-l1", "shifted-masked-l1"] | None = None
    constant: tuple[float, ...] = (0.0,)


class Mask(_Table, frozen=True, kw_only=True):
    """A pixel is valid where this domain's stored value is above and below these, where given."""

    domain: Name
    above: float | None = None
    below: float | None = None

    def valid(self, stored: Array) -> Array:
        """True where the mask is, of the same shape."""
        import numpy as np  # noqa: PLC0415 - the daemons do without

        limits = [] if self.above is None else [stored > self.above]
        limits += [] if self.below is None else [stored < self.below]
        return reduce(np.logical_and, limits) if limits else np.ones(stored.shape, bool)


class Description(_Table, frozen=True, kw_only=True):
    """A whole ``dataset.toml``."""

    pixels: Annotated[int, msgspec.Meta(ge=8, multiple_of=8)]
    clients: tuple[Building, ...]
    tasks: dict[Name, Label]
    unseen: tuple[Building, ...] = ()
    input: Picture = Picture()
    mask: Mask | None = None

    @property
    def domains(self) -> tuple[str, ...]:
        """Every kind of file that is read, by its folder's name; the input first."""
        mask = () if self.mask is None else (self.mask.domain,)
        return tuple(dict.fromkeys((self.input.domain, *self.tasks, *mask)))


def load(path: Path) -> Description:
    """The description in this file; raises DataRefused with the file, the key and what is wrong."""
    try:
        table: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
        described = msgspec.convert(table, Description)
    except FileNotFoundError as error:
        raise DataRefused(f"{path}: there is no such file; it says what the folder's files mean") from error
    except (OSError, ValueError, msgspec.ValidationError) as error:
        raise DataRefused(f"{path}: {' '.join(str(error).split())}") from error
    _check(path, described)
    return described


def text(described: Description) -> str:
    """The description as a ``dataset.toml``; ``load`` gives it back equal."""
    top: dict[str, Any] = msgspec.to_builtins(described)
    tables = {f"tasks.{name}": table for name, table in top.pop("tasks").items()}
    tables |= {name: top.pop(name) for name in ("input", "mask") if name in top}
    lines = [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in top.items()]
    for name, table in tables.items():
        lines += [
            "",
            f"[{name}]",
            *(f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in table.items()),
        ]
    return "\n".join(lines) + "\n"


def _check(path: Path, described: Description) -> None:
    """Raises DataRefused for what each key allows, but not together."""
    if not described.tasks:
        raise DataRefused(f"{path}: no [tasks.NAME] table; name at least one folder of labels")
    if not described.clients:
        raise DataRefused(f"{path}: clients: name at least one building to train on")
    named = (*described.clients, *described.unseen)
    if repeated := {name for name in named if named.count(name) > 1}:
        raise DataRefused(f"{path}: clients, unseen: {', '.join(sorted(repeated))} is there twice")
    if len(described.input.mean) not in {1, 3} or len(described.input.std) not in {1, 3}:
        raise DataRefused(f"{path}: [input] mean, std: give one number or three")
    _check_scale(f"{path}: [input]", described.input)
    for name, label in described.tasks.items():
        _check_label(f"{path}: [tasks.{name}]", label)
        if name == described.input.domain and label.channels != 3:
            raise DataRefused(f"{path}: [tasks.{name}] channels: a picture has 3, not {label.channels}")
        if label.masked and described.mask is None:
            raise DataRefused(f"{path}: [tasks.{name}] masked: there is no [mask] table")


def _check_scale(where: str, values: Values) -> None:
    if not all(map(isfinite, values.mean)):
        raise DataRefused(f"{where} mean: must be a number")
    if not all(0 < value < inf for value in values.std):
        raise DataRefused(f"{where} std: must be positive")


def _check_label(where: str, label: Label) -> None:
    rows = {"mean": label.mean, "std": label.std, "constant": label.constant}
    for key, row in rows.items():
        if len(row) not in {1, label.channels}:
            raise DataRefused(f"{where} {key}: {len(row)} numbers for {label.channels} channels")
    _check_scale(where, label)
    if label.kind == "normals" and label.channels != 3:
        raise DataRefused(f"{where} channels: normals have 3, not {label.channels}")
    if label.kind == "classes" and label.loss:
        raise DataRefused(f"{where} loss: classes are learnt with cross-entropy; remove the key")
