"""Recordings of a smartwatch, cut into windows with a label per task; numpy only.

Ten people wore a watch (accelerometer in g, gyroscope in rad/s, 50 Hz) while they did seven shoulder
exercises with each arm: 140 recordings of 19 to 52 s. A *span* is 145 samples, every 64: one sample before
the window (jerk is a difference), the window of 128 that is the input, and 16 samples after it (the
forecast). That gives 3,567 spans. Held out is the last part of each recording, never random windows:
neighbours overlap by half, so the spans that reach into the held-out part are in neither view.

Source: D. Burns et al. 2018 (arXiv 1802.01489), by way of the PyPI package seglearn 1.2.5 (BSD-3; see
watch.NOTICE.txt); scripts/make_watch_data made the file. It knows no network and no loss.
"""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from mas_edge.models.tasks import Array, Batch, DataRefused, UnknownChoice
from mas_edge.models.workloads.watch_numbers import (
    BEFORE,
    BLOCK,
    CLIENTS,
    FLOOR,
    JERK,
    MEAN,
    RATE_HZ,
    ROTATION,
    SPAN,
    STD,
    STRIDE,
    WINDOW,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from mas_edge.models.tasks import Source, View

SHIPPED = Path(__file__).with_name("watch.npz")


@dataclass(frozen=True)
class Recording:
    """One person doing one exercise with one arm; ``signal`` is (samples, 6) float32."""

    person: str
    exercise: int
    side: int
    signal: NDArray[np.float32]


class Windows:
    """The windows of some people in one view: a ``Dataset`` with every task's labels."""

    def __init__(self, inputs: Array, targets: dict[str, Array]) -> None:
        self._inputs = inputs
        self._targets = targets
        self.labels = frozenset(targets)

    def __len__(self) -> int:
        return len(self._inputs)

    def batch(self, index: NDArray[np.int64]) -> Batch:
        """The windows at these positions, all labels valid."""
        return Batch(self._inputs[index], {task: target[index] for task, target in self._targets.items()}, {})


def dataset(source: Source, view: View, held_out_share: float) -> Windows:
    """The clients' windows; raises DataRefused for a damaged file or an impossible share, UnknownChoice."""
    if not 0 <= held_out_share < 1:
        raise DataRefused(f"held-out share {held_out_share}: use a number from 0 up to, not including, 1")
    for client in source.clients:
        if client not in CLIENTS:
            raise UnknownChoice(f"watch has no client {client!r}; it has {', '.join(CLIENTS)}")
    path = SHIPPED if source.root is None else source.root / SHIPPED.name
    chosen = [r for r in recordings(path) if r.person in source.clients]
    cut = [spans(r.signal)[in_view(r, view, held_out_share)] for r in chosen]
    times = [len(part) for part in cut]
    together = np.concatenate([np.empty((0, 6, SPAN), np.float32), *cut])
    whole = {"exercise": [r.exercise for r in chosen], "side": [r.side for r in chosen]}
    repeated = {task: np.repeat(np.array(values, np.int64), times) for task, values in whole.items()}
    return Windows(normalised(together[..., BEFORE : BEFORE + WINDOW]), repeated | labels(together))


def recordings(path: Path) -> list[Recording]:
    """What the file holds, in order of person, exercise and side; raises DataRefused naming the file."""
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            signal, length = file["signal"], file["length"]
            about = zip(file["person"], file["exercise"], file["side"], strict=True)
            parts = np.split(signal.astype(np.float32), np.cumsum(length)[:-1])
            return [Recording(str(p), int(e), int(s), x) for (p, e, s), x in zip(about, parts, strict=True)]
    except FileNotFoundError as error:
        raise DataRefused(f"{path}: there is no such file; reinstall mas-edge, or give its folder") from error
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataRefused(
            f"{path}: not the watch recordings, or damaged ({error}); reinstall mas-edge"
        ) from error


def spans(signal: NDArray[np.float32]) -> NDArray[np.float32]:
    """All spans of a recording, (n, 6, 145); a view."""
    return sliding_window_view(signal, SPAN, axis=0)[::STRIDE]


def in_view(recording: Recording, view: View, held_out_share: float) -> slice:
    """Which of a recording's spans belong to the view: no sample is in both train and held-out."""
    count = (len(recording.signal) - SPAN) // STRIDE + 1
    held_out = max(1, round(count * held_out_share)) if held_out_share else 0
    match view:
        case "all":
            return slice(0, count)
        case "held-out":
            return slice(count - held_out, count)
        case "train":
            gap = -(-SPAN // STRIDE) - 1 if held_out else 0
            return slice(0, max(0, count - held_out - gap))


def normalised(signal_BCT: NDArray[np.float32]) -> NDArray[np.float32]:
    """Channels less their mean, over their standard deviation."""
    mean, std = (np.array(row, np.float32)[:, None] for row in (MEAN, STD))
    return (signal_BCT - mean) / std


def labels(span_BCT: NDArray[np.float32]) -> dict[str, Array]:
    """The targets that are computed from the signal, of spans (B, 6, 145)."""
    window = normalised(span_BCT[..., BEFORE : BEFORE + WINDOW])
    return {
        "gravity": gravity(span_BCT),
        "jerk": ((_log_jerk(span_BCT) - JERK[0]) / JERK[1]).astype(np.float32),
        "rotation": ((_log_rotation(span_BCT) - ROTATION[0]) / ROTATION[1]).astype(np.float32),
        "forecast": normalised(span_BCT[..., BEFORE + WINDOW :]),
        "autoencoder": window,
    }


def gravity(span_BCT: NDArray[np.float32]) -> NDArray[np.float32]:
    """Unit vector (B, 3) along the accelerometer's Hann-weighted mean: a low pass of about 0.8 Hz."""
    weights = np.hanning(WINDOW).astype(np.float32)
    mean = span_BCT[:, :3, BEFORE : BEFORE + WINDOW] @ weights
    length = np.linalg.norm(mean, axis=1, keepdims=True)
    unit: NDArray[np.float32] = np.divide(mean, length, where=length > 0, out=np.zeros_like(mean))
    return unit


def _log_jerk(span_BCT: NDArray[np.float32]) -> NDArray[np.float32]:
    """Log of the jerk's RMS in g/s over each 16 samples of the window, (B, 8)."""
    jerk = np.diff(span_BCT[:, :3, : BEFORE + WINDOW], axis=2) * np.float32(RATE_HZ)
    return _log_envelope(jerk)


def _log_rotation(span_BCT: NDArray[np.float32]) -> NDArray[np.float32]:
    """Log of the turning rate's RMS in rad/s over each 16 samples of the window, (B, 8)."""
    return _log_envelope(span_BCT[:, 3:, BEFORE : BEFORE + WINDOW])


def _log_envelope(axes_B3T: NDArray[np.float32]) -> NDArray[np.float32]:
    power = np.square(axes_B3T).sum(1).reshape(len(axes_B3T), WINDOW // BLOCK, BLOCK)
    envelope: NDArray[np.float32] = np.log(np.sqrt(power.mean(2)) + np.float32(FLOOR))
    return envelope


def fit(people: Sequence[str], path: Path = SHIPPED) -> dict[str, Array]:
    """The frozen constants' values on these people's windows, by name."""
    chosen = [r for r in recordings(path) if r.person in people]
    span = np.concatenate([spans(r.signal) for r in chosen])
    times = [len(spans(r.signal)) for r in chosen]
    window = span[..., BEFORE : BEFORE + WINDOW].astype(np.float64)
    jerk, rotation = _log_jerk(span), _log_rotation(span)
    return {
        "MEAN": window.mean((0, 2)),
        "STD": window.std((0, 2)),
        "JERK": np.array([jerk.mean(), jerk.std()]),
        "ROTATION": np.array([rotation.mean(), rotation.std()]),
        "GRAVITY": gravity(span).mean(0),
        "EXERCISE_LOG_PRIOR": _log_prior((r.exercise for r in chosen), times),
        "SIDE_LOG_PRIOR": _log_prior((r.side for r in chosen), times),
    }


def _log_prior(classes: Iterable[int], times: Sequence[int]) -> Array:
    counts = np.bincount(np.repeat(list(classes), times))
    return np.asarray(np.log(counts / counts.sum()))
