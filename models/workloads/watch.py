"""The ``watch`` workload: six tasks (and a control) on one smartwatch window, ten people, two networks.

All tasks read the same 2.56 s of accelerometer and gyroscope, normalised: which exercise it is, which way
is down, how the jerk and the turning rate swell and fade, what comes next, and the window itself. ``side``
(which arm) is solved almost at once and serves as a control. People 9 and 10 are never trained on. The
networks are small 1-d residual ones: ``micro`` for demos and boards, ``small`` to compare with other
frameworks. Data and labels are made in ``watch_data``.

Importing this loads neither torch nor numpy nor the recordings: both daemons do it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mas_edge.models.tasks import Normalisation, Preset, Task, UnknownChoice, Workload
from mas_edge.models.workloads import watch_numbers as numbers

if TYPE_CHECKING:
    from torch import nn

    from mas_edge.models.tasks import Array, Dataset, Source, View

TRAINED = numbers.CLIENTS[:8]
UNSEEN = numbers.CLIENTS[8:]
EXERCISES = (
    "pendulum",
    "abduction",
    "forward elevation",
    "internal rot.",
    "external rot.",
    "trapezius",
    "row",
)

_WIDTHS = {"micro": (32, 32, 48, 64), "small": (40, 56, 72, 104)}
"""Channels of the stem and of each block, per network."""

_BLOCKS = numbers.WINDOW // numbers.BLOCK
_COLOURS = ("tab:blue", "tab:orange", "tab:green")

TASKS = (
    Task(
        "exercise",
        "which of seven exercises",
        "cross-entropy",
        "accuracy",
        (7,),
        numbers.EXERCISE_LOG_PRIOR,
    ),
    Task("gravity", "which way is down", "mse", "mae", (3,), numbers.GRAVITY),
    Task("jerk", "envelope of the jerk", "mse", "mae", (_BLOCKS,), (0.0,), "σ of ln"),
    Task("rotation", "envelope of the turning rate", "mse", "mae", (_BLOCKS,), (0.0,), "σ of ln"),
    Task("forecast", "the next 0.32 s", "mse", "mae", (6, numbers.AFTER), (0.0,), "σ"),
    Task("autoencoder", "the window itself", "mse", "mae", (6, numbers.WINDOW), (0.0,), "σ"),
    Task(
        "side",
        "which arm (a control)",
        "cross-entropy",
        "accuracy",
        (2,),
        numbers.SIDE_LOG_PRIOR,
        default=False,
    ),
)

DEFINITION = f"""watch 1
file: float16 recordings of seglearn 1.2.5, in order of person, exercise, side
span: 1 + 128 + 16 samples at 50 Hz, every 64; input = the 128, less {numbers.MEAN}, over {numbers.STD}
exercise, side: the recording's
gravity: unit vector of the accelerometer's mean over the 128, weighted by numpy.hanning(128)
jerk: 50 * backward difference of the accelerometer; Euclidean norm; RMS over each 16; ln(x + 0.01);
  less and over {numbers.JERK}
rotation: norm of the gyroscope; RMS over each 16; ln(x + 0.01); less and over {numbers.ROTATION}
forecast: the 16 after, normalised as the input
autoencoder: the input
held out: the last max(1, round(share * n)) spans of each recording; the two before them in no view
"""


def encoder(network: str) -> nn.Module:
    """A fresh encoder: (B, 6, 128) -> (B, C, 8); raises UnknownChoice."""
    from mas_edge.models import conv1d  # noqa: PLC0415 - imports torch

    return conv1d.Encoder(6, _widths(network))


def decoder(network: str, task: Task) -> nn.Module:
    """A fresh head for a task of this workload; raises UnknownChoice."""
    from mas_edge.models import conv1d  # noqa: PLC0415 - imports torch

    channels = _widths(network)[-1]
    match task.name:
        case "jerk" | "rotation":
            return conv1d.Envelope(channels)
        case "forecast":
            return conv1d.Ahead(channels, *task.shape)
        case "autoencoder":
            return conv1d.Upsample(channels, task.shape[0], numbers.WINDOW // _positions(network))
        case _:
            return conv1d.Summary(channels, task.shape[0])


def dataset(source: Source, view: View, held_out_share: float) -> Dataset:
    """The clients' windows; raises DataRefused, UnknownChoice."""
    from mas_edge.models.workloads import watch_data  # noqa: PLC0415 - imports numpy

    return watch_data.dataset(source, view, held_out_share)


def draw(task: Task, inputs: Array, target: Array, axes: Any) -> None:
    """Picture one example: its input (6, 128) in grey, and this task's target over it."""
    import numpy as np  # noqa: PLC0415 - the daemons do without

    time_s = np.arange(numbers.WINDOW) / numbers.RATE_HZ
    end_s, after_s = numbers.WINDOW / numbers.RATE_HZ, numbers.AFTER / numbers.RATE_HZ
    axes.plot(time_s, inputs.T, color="0.8", linewidth=0.7)
    match task.name:
        case "exercise" | "side":
            name = (EXERCISES if task.name == "exercise" else ("left", "right"))[int(target)]
            place = {"transform": axes.transAxes, "ha": "center", "va": "center"}
            axes.text(0.5, 0.5, name, bbox={"facecolor": "white", "edgecolor": "0.5"}, **place)
        case "gravity":  # three bars from zero, on an axis of their own from -1 to 1
            bars = axes.inset_axes((0.3, 0.15, 0.4, 0.7))
            bars.bar(range(3), target, color=_COLOURS)
            bars.set(ylim=(-1, 1), yticks=(-1, 0, 1))
            bars.set_xticks(range(3), ("x", "y", "z"))
        case "jerk" | "rotation":
            edges_s = np.linspace(0, end_s, _BLOCKS + 1)
            axes.stairs(target, edges_s, baseline=None, color="tab:red", linewidth=2, zorder=3)
        case "forecast":
            axes.axvline(end_s, color="0.3", linestyle=":")
            _three(axes, end_s + np.arange(numbers.AFTER) / numbers.RATE_HZ, target)
        case _:
            _three(axes, time_s, target)
    axes.set(xlim=(0, end_s + after_s), ylim=(-6, 6), xlabel="s", ylabel="σ")
    axes.label_outer()


def _three(axes: Any, time_s: Array, signal_CT: Array) -> None:
    """The accelerometer's axes in colour."""
    for row, colour, name in zip(signal_CT[:3], _COLOURS, ("ax", "ay", "az"), strict=True):
        axes.plot(time_s, row, color=colour, linewidth=1.2, label=name)
    axes.legend(ncols=3, fontsize="xx-small", loc="upper left", handlelength=1)


def _widths(network: str) -> tuple[int, ...]:
    if network not in _WIDTHS:
        raise UnknownChoice(f"workload 'watch' has no network {network!r}; it has {', '.join(_WIDTHS)}")
    return _WIDTHS[network]


def _positions(network: str) -> int:
    """Length of the encoder's output in time: every width halves it."""
    return numbers.WINDOW >> len(_widths(network))


PRESETS = (
    Preset(
        name="demo",
        network="micro",
        rounds=20,
        merge_rounds=8,
        epochs=2,
        batch=32,
        lr=0.05,
        affinity_every=10,
        held_out_share=0.2,
        groups=2,
    ),
    Preset(
        name="tiny",
        network="micro",
        rounds=4,
        merge_rounds=2,
        epochs=1,
        batch=64,
        lr=0.05,
        affinity_every=5,
        held_out_share=0.2,
        groups=2,
    ),
)

workload = Workload(
    name="watch",
    title="real smartwatch sensors, ten people, seven shoulder exercises",
    tasks=TASKS,
    networks=tuple(_WIDTHS),
    clients=numbers.CLIENTS,
    unseen=UNSEEN,
    input_shape=(6, numbers.WINDOW),
    definition=DEFINITION,
    encoder=encoder,
    decoder=decoder,
    dataset=dataset,
    draw=draw,
    presets=PRESETS,
    normalisation=Normalisation(numbers.MEAN, numbers.STD),
)
