"""How deployed models do on devices: rows of what was measured there, and tables of them.

A row is a group's model in one precision on one device, as measured there. Its loss is the sum over tasks of
the mean held-out loss, on that device's examples; None is unknown. ``mas deploy``, ``mas devices`` and the
report show the same cells, the report fp32 beside int8. Nothing here decides.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, get_args

import msgspec

from mas_edge.orchestrator.deployment import outcomes
from mas_edge.profiling.report import UNKNOWN, Table, joules, method
from mas_edge.wire.messages import InferenceProfile, InUse, Precision

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from mas_edge.orchestrator.deployment import Deployment, Outcome
    from mas_edge.orchestrator.views.status_values import DeviceStatus


HEADS = ("loss", "p50 ms", "p95 ms", "inputs/s", "memory MB", "mJ each")
"""What is shown of a model on a device; ``cells`` has the figures."""


class Served(msgspec.Struct, frozen=True, kw_only=True):
    """A model on a device. ``state``: in use, refused, or replaced by another one since.

    ``round`` counts the rounds that are in it, ``size_bytes`` is its file's, ``max_abs_error`` the file's
    greatest difference from torch where that was proved, ``why`` the device's words if it refused.
    """

    group: str
    device: str
    precision: Precision
    state: str
    round: int
    loss: float | None
    size_bytes: int
    profile: InferenceProfile
    max_abs_error: float | None = None
    why: str = ""


def served(
    deployments: tuple[Deployment, ...], job: str, in_use: Mapping[str, Iterable[InUse]]
) -> tuple[Served, ...]:
    """The models of the job that devices measured; ``in_use`` by device is what it has now.

    Of a group in one precision on a device: the one in use, else the last; and the last if it was refused.
    """
    now = {(device, each.model.file.digest) for device, own in in_use.items() for each in own}
    rows: dict[tuple[str, str, int], list[Served]] = {}
    for one in deployments:
        for outcome in outcomes(deployments, one) if one.job == job else ():
            file, profile = outcome.file, outcome.answer.profile if outcome.answer else None
            if file is None or profile is None:
                continue
            target = next(each for each in one.ordered.targets if each.group == outcome.group)
            precision = one.ordered.precision
            here = (outcome.device, file.digest) in now
            row = Served(
                group=outcome.group,
                device=outcome.device,
                precision=precision,
                state="in use" if here else "refused" if outcome.state == "refused" else "replaced",
                round=target.round,
                loss=loss(profile),
                size_bytes=file.size_bytes,
                profile=profile,
                max_abs_error=outcome.max_abs_error,
                why="" if here else outcome.why,
            )
            rows.setdefault((row.group, row.device, get_args(Precision).index(precision)), []).append(row)
    return tuple(row for _, found in sorted(rows.items()) for row in _shown(found))


def _shown(rows: Sequence[Served]) -> list[Served]:
    """Those of one place that count still, oldest first."""
    using = [row for row in rows if row.state == "in use"][-1:]
    return [*using, *([rows[-1]] if not using or rows[-1].state == "refused" else [])]


def loss(profile: InferenceProfile | None) -> float | None:
    """Sum of the mean held-out losses over the tasks that the device has labels of; None if of none."""
    means = [score.loss_sum / score.count for score in profile.scores if score.count] if profile else []
    return math.fsum(means) if means else None


def cells(profile: InferenceProfile | None) -> tuple[str, ...]:
    """Loss, latencies of one input, throughput, memory of the process, energy of one input; as ``HEADS``."""
    if profile is None:
        return (UNKNOWN,) * len(HEADS)
    return (
        _number(loss(profile), 1, ".4f"),
        _number(profile.latency_p50_s, 1e3, ".2f"),
        _number(profile.latency_p95_s, 1e3, ".2f"),
        _number(profile.inputs_per_s, 1, ".0f"),
        _number(profile.peak_rss_bytes, 1e-6, ".0f"),
        _energy(profile),
    )


def table(rows: Sequence[Served], names: Mapping[str, str]) -> Table:
    """A line per model and device, precisions below each other; ``names`` are the groups' short ones."""
    lines = tuple(
        (
            names.get(row.group, row.group),
            row.device,
            row.precision,
            row.state,
            *cells(row.profile),
            f"{row.size_bytes / 1e6:.2f}",
            _number(row.max_abs_error, 1, ".1g"),
        )
        for row in rows
    )
    heads = ("group", "device", "precision", "", *HEADS, "file MB", "off by")
    notes = tuple(f"{row.device}, {row.group}, {row.precision}: {row.why}" for row in rows if row.why)
    return Table(
        title="In use, or tried on devices. Loss: held-out, summed over tasks. Latency: one input, warm",
        headers=heads,
        rows=lines,
        keys=4,
        notes=notes,
        strong=frozenset(k for k, row in enumerate(rows) if row.state == "in use"),
    )


def everywhere(devices: Iterable[DeviceStatus], *, brief: bool = False) -> Table:
    """What each device infers with, as measured when it came; ``brief``: the chief figures."""
    lines = tuple(
        (
            device.name,
            each.model.group,
            each.model.job,
            each.model.precision,
            *_chosen(cells(each.profile), brief=brief),
        )
        for device in devices
        for each in device.in_use
    )
    heads = ("device", "group", "job", "precision", *_chosen(HEADS, brief=brief))
    return Table(title="In use", headers=heads, rows=lines, keys=4, whole=True)


def answers(title: str, found: Sequence[Outcome], *, brief: bool = False) -> Table:
    """What devices answered to an order, a line per device and group; ``brief``: the chief figures."""
    lines = []
    for each in found:
        profile, before = (each.answer.profile, each.answer.running) if each.answer else (None, None)
        was = _number(loss(before), 1, ".4f")
        figures = _chosen(cells(profile), brief=brief)
        lines.append((each.device, each.group, each.state, was, *figures))
    notes = tuple(f"{each.device}, {each.group}: {each.why}" for each in found if each.why)
    heads = ("device", "group", "", "loss\nbefore", *_chosen(HEADS, brief=brief))
    return Table(title=title, headers=heads, rows=tuple(lines), keys=3, notes=notes, whole=True)


def _chosen(figures: tuple[str, ...], *, brief: bool) -> tuple[str, ...]:
    """Loss, latency and energy alone, where there is no room for more."""
    return (figures[0], figures[1], figures[-1]) if brief else figures


def _energy(profile: InferenceProfile) -> str:
    if profile.energy_j is None:
        return UNKNOWN
    u_mj = None if profile.energy_u_j is None else profile.energy_u_j * 1e3
    marked = f" {method([profile.method])}" if profile.method == "estimated" else ""
    return f"{joules(profile.energy_j * 1e3, u_mj)}{marked}"


def _number(value: float | None, scale: float, form: str) -> str:
    return UNKNOWN if value is None else f"{value * scale:{form}}"
