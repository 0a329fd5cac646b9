"""What `mas-agent doctor` makes of the facts that it found: each is ok, a warning or an error, with a remedy.

A warning trains, but not as well as it could or with something that nobody knows; an error does not train at
all. The thresholds stand below with where they are from. Values in, values out: the facts are gathered in
``edge_agent.doctor``.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal, TypeAlias

import msgspec

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from mas_edge.wire.messages import Baseline, Caps, Refusal, Sensor

Level: TypeAlias = Literal["ok", "warning", "error"]

WORKER_BYTES = 350 << 20
"""A training process with torch, before it has data or a network (291 MB), and the daemon (31 MB)."""

LEAST_DISK_BYTES, GOOD_DISK_BYTES = 100 << 20, 1 << 30
"""Below the first the next weights or updates may not fit; below the second a few large ones will not."""

LIMITS = "/etc/systemd/system/mas-agent.service.d/limits.conf"

MEASURE = "leave the host alone and warm, and say --baseline 60: it is kept for the agent"
"""How a device gets an idle power."""


class Finding(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line of the page: what was looked at, how it is, and what to do if it is not ok."""

    about: str
    level: Level
    text: str
    remedy: str | None = None


class RoundCost(msgspec.Struct, frozen=True, kw_only=True):
    """What one round of a workload will take, extrapolated from ``steps`` of its ``of`` steps.

    ``energy_j`` is all that the sensor saw, ``above_idle_j`` what is left without the idle power; None where
    nobody knows. ``u_j`` and ``above_idle_u_j`` are standard uncertainties of the sensor, extrapolated: they
    know nothing of how rounds differ.
    """

    workload: str
    wall_s: float
    start_s: float
    steps: int
    of: int
    energy_j: float | None = None
    u_j: float | None = None
    above_idle_j: float | None = None
    above_idle_u_j: float | None = None
    peak_rss_bytes: int | None = None


def worst(found: Iterable[Finding]) -> Level:
    """The level of the whole page."""
    levels = {finding.level for finding in found}
    return "error" if "error" in levels else "warning" if "warning" in levels else "ok"


def page(found: Sequence[Finding]) -> str:
    """For people, a remedy below what it remedies."""
    width = max(len(finding.about) for finding in found)
    lines = []
    for finding in found:
        lines.append(f"{finding.level:8}{finding.about:{width}}  {finding.text}")
        if finding.remedy:
            lines.append(f"{'':{8 + width}}  -> {finding.remedy}")
    return "\n".join(lines)


def memory(available_bytes: int, cap_bytes: int | None) -> Finding:
    """Whether a training process fits into what is free, and into what the agent may have."""
    text = f"{_mb(available_bytes)} available"
    if cap_bytes is not None and cap_bytes < WORKER_BYTES:
        return Finding(
            about="memory",
            level="error",
            text=f"{text}, but the agent may have {_mb(cap_bytes)}: torch alone takes {_mb(WORKER_BYTES)}",
            remedy=f"raise MemoryMax in {LIMITS}, or [caps] memory_bytes",
        )
    if available_bytes < WORKER_BYTES:
        remedy = f"free some: a training process needs {_mb(WORKER_BYTES)} before it has a network"
        return Finding(about="memory", level="error", text=text, remedy=remedy)
    if cap_bytes is not None and available_bytes < cap_bytes:
        text += f", less than the {_mb(cap_bytes)} that the agent may have"
        remedy = "lower the limit to what the other work leaves, so that groups are fitted to it"
        return Finding(about="memory", level="warning", text=text, remedy=remedy)
    return Finding(about="memory", level="ok", text=text)


def slots(number: int, cap_bytes: int | None, threads: int) -> Finding:
    """Whether so many training processes fit beside each other."""
    text = f"{number} trainings at a time, {threads} thread{'s' * (threads > 1)} each"
    if cap_bytes is None:
        remedy = f"MemoryMax in {LIMITS}, or [caps] memory_bytes: without a limit none waits for another"
        return Finding(about="slots", level="warning", text=f"{text}, whatever they take", remedy=remedy)
    if cap_bytes < number * WORKER_BYTES:
        text = (
            f"{text}, but the agent may have {_mb(cap_bytes)} and torch takes {_mb(WORKER_BYTES)} a process"
        )
        remedy = f"[train] slots = {max(cap_bytes // WORKER_BYTES, 1)}, or more memory: they wait for another"
        return Finding(about="slots", level="warning", text=text, remedy=remedy)
    return Finding(about="slots", level="ok", text=text)


def abilities(*, trains: bool, infers: bool) -> Finding:
    """What is installed for, by whether torch and onnxruntime are there."""
    can = [what for what, able in (("trains", trains), ("infers", infers)) if able]
    missing = [name for name, there in (("torch", trains), ("onnxruntime", infers)) if not there]
    text = " and ".join(can) or "can neither train nor infer"
    if not missing:
        return Finding(about="abilities", level="ok", text=text)
    text += f": not installed: {', '.join(missing)}"
    remedy = "for both: pip install 'mas-edge[train,infer]'"
    return Finding(about="abilities", level="ok" if can else "error", text=text, remedy=remedy)


def disk(free_bytes: int, folder: str) -> Finding:
    """Whether weights and finished updates have room."""
    text = f"{_mb(free_bytes)} free in {folder}"
    if free_bytes < GOOD_DISK_BYTES:
        level: Level = "error" if free_bytes < LEAST_DISK_BYTES else "warning"
        return Finding(about="disk", level=level, text=text, remedy="free some, or name another [state]")
    return Finding(about="disk", level="ok", text=text)


def caps(found: Caps, text: str) -> Finding:
    """Which limits hold here (``text`` says them), and whether they are ones that the kernel holds."""
    if not (found.memory_enforced and found.cpus_enforced):
        remedy = f"run it as a service and say MemoryMax, CPUQuota in {LIMITS}: the kernel holds those"
        return Finding(about="caps", level="warning", text=text, remedy=remedy)
    if found.memory_bytes is None:
        remedy = f"MemoryMax in {LIMITS}, or [caps] memory_bytes: nothing keeps training from taking it all"
        return Finding(about="caps", level="warning", text=text, remedy=remedy)
    return Finding(about="caps", level="ok", text=text)


def clock(*, synchronised: bool | None) -> Finding:
    """What can be said of the time; MQTT 3.1.1 carries none to compare with."""
    if synchronised:
        text = "synchronised by NTP, says the kernel; against the broker's unknown (MQTT carries no time)"
        return Finding(about="clock", level="ok", text=text)
    text = "not synchronised by NTP" if synchronised is False else "nobody says whether it is synchronised"
    return Finding(
        about="clock",
        level="warning",
        text=f"{text}; its error is unknown (MQTT carries no time)",
        remedy="timedatectl set-ntp true: certificates, time windows and joules per day go by this clock",
    )


def sensor(found: Sensor, refused: Sequence[Refusal]) -> Finding:
    """Where joules come from, and why not from something better."""
    text = f"{found.name}: {found.method}, {found.scope}; {found.detail}"
    if found.method != "estimated":
        return Finding(about="sensor", level="ok", text=text)
    reasons = "; ".join(f"{r.sensor}: {r.reason}" + (f" ({r.remedy})" if r.remedy else "") for r in refused)
    remedy = reasons or "mas-profile list shows which sensors this machine has"
    return Finding(about="sensor", level="warning", text=text, remedy=remedy)


def data(workload: str, train: int, held_out: int, labels: Collection[str], tasks: Sequence[str]) -> Finding:
    """What a workload has to learn from here, task by task."""
    about = f"data {workload}"
    have = [task for task in tasks if task in labels]
    lack = [task for task in tasks if task not in labels]
    text = f"{train} examples to train and {held_out} held out, labelled for {', '.join(have) or 'nothing'}"
    if not (train and have):
        remedy = f"[data.{workload}] clients and root: this device has nothing to teach"
        return Finding(about=about, level="error", text=text, remedy=remedy)
    if lack:
        text += f"; not for {', '.join(lack)}"
    if not held_out:
        remedy = "more data: without held-out examples this device says nothing about how good a network is"
        return Finding(about=about, level="warning", text=text, remedy=remedy)
    return Finding(about=about, level="ok", text=text)


def baseline(idle: Baseline | None, wrong: str | None = None) -> Finding:
    """The host's idle power, and why what was measured once does not hold any more."""
    if idle is None:
        text = "the idle power is not known: nor will be what a task group itself has of the joules"
        return Finding(about="baseline", level="warning", text=text, remedy=MEASURE)
    during = "" if idle.wall_s is None else f" over {idle.wall_s:.0f} s"
    drift = "" if idle.drift_w is None else f", {idle.drift_w:+.2g} W since the one before"
    text = f"{_figure(idle.power_w, idle.u_w)} W, {idle.how}{during}{drift}"
    if wrong:
        text = f"{text}, does not hold: {wrong}"
        return Finding(about="baseline", level="warning", text=text, remedy=MEASURE)
    return Finding(about="baseline", level="ok", text=text)


def round_cost(cost: RoundCost, method: str) -> Finding:
    """Seconds and joules of one round."""
    energy = "joules unknown"
    if cost.energy_j is not None:
        energy = f"{_figure(cost.energy_j, cost.u_j)} J ({method}, all that the sensor sees)"
    if cost.above_idle_j is not None:
        energy += f", {_figure(cost.above_idle_j, cost.above_idle_u_j)} J of it above idle"
    text = (
        f"all tasks: {cost.wall_s:.3g} s, {energy}; from {cost.steps} of {cost.of} steps,"
        f" the first round {cost.start_s:.3g} s more"
    )
    return Finding(about=f"round {cost.workload}", level="ok", text=text)


def extrapolated(  # noqa: PLR0913 - the measured numbers of one dry round
    workload: str,
    *,
    start_s: float,
    wall_s: float,
    steps: int,
    of: int,
    energy_j: float | None,
    u_j: float | None,
    gain_u: float,
    idle: Baseline | None,
    peak_rss_bytes: int | None,
) -> RoundCost:
    """The whole round from ``steps`` steps that took ``wall_s`` and ``energy_j``; needs at least one step.

    ``u_j`` leaves out the sensor's common relative uncertainty ``gain_u``, as ``idle`` does.
    """
    scale = of / steps
    above_j = above_u_j = None
    if energy_j is not None and idle is not None:
        above_j = (energy_j - idle.power_w * wall_s) * scale
        above_u_j = scale * math.hypot(u_j or 0.0, idle.u_w * wall_s, gain_u * above_j / scale)
    return RoundCost(
        workload=workload,
        wall_s=wall_s * scale,
        start_s=start_s,
        steps=steps,
        of=of,
        energy_j=None if energy_j is None else energy_j * scale,
        u_j=None if energy_j is None else scale * math.hypot(u_j or 0.0, gain_u * energy_j),
        above_idle_j=above_j,
        above_idle_u_j=above_u_j,
        peak_rss_bytes=peak_rss_bytes,
    )


def _figure(value: float, u: float | None) -> str:
    """With twice its standard uncertainty."""
    return f"{value:.3g}" + (f" ±{2 * u:.2g}" if u else "")


def _mb(size: int) -> str:
    return f"{size / 1e6:.0f} MB"
