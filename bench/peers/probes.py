"""Four faults, each on a fresh site: what became of the job, in seconds and in the system's own words.

    restart   the orchestrator is killed (SIGKILL, with all that it started) in the second round and started
              again two seconds later: the job ends well, with the losses of an undisturbed run
    lost      one of two nodes is killed after the first round and does not come back: the job ends well, or
              the system's own command names who it waits for
    upload    one of four nodes is killed in the middle of its upload and started again at once: the round
              ends within a minute
    state     the orchestrator is killed and asked about, then started again: nothing says that the job runs
              while nobody is there, and afterwards it comes to an end, good or bad

Every probe has a limit in seconds; what goes on then has failed it.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Literal, TypeAlias

import msgspec

from bench.peers.sites import SERVER, Links, Site, Work, node_name

if TYPE_CHECKING:
    from collections.abc import Callable

LIMIT_S, ROUND_LIMIT_S, PAUSE_S, LOOK_S = 300.0, 60.0, 2.0, 3.0
UPLOAD_BYTES_PER_S, CUT_BYTES = 200_000.0, 300_000
TOLERANCE = 1e-5

Name: TypeAlias = Literal["restart", "lost", "upload", "state"]
PROBES: tuple[Name, ...] = ("restart", "lost", "upload", "state")


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a system stood the probe, how long it took, and what became of the job."""

    passed: bool
    seconds: float
    words: str


def probe(
    name: Name, make: Callable[[Work, Links], Site], undisturbed: dict[str, float] | None = None
) -> Outcome:
    """Run one; ``make`` gives a fresh site, ``undisturbed`` are the losses that a restart must not change."""
    match name:
        case "restart":
            return _restart(make(Work(), Links()), undisturbed)
        case "lost":
            return _lost(make(Work(reproducible=False), Links()))
        case "upload":
            return _upload(make)
        case "state":
            return _state(make(Work(), Links()))


def _restart(site: Site, undisturbed: dict[str, float] | None) -> Outcome:
    try:
        _first_round(site)
        site.processes.kill(SERVER)
        time.sleep(PAUSE_S)
        site.processes.start(SERVER)
        passed, seconds, words = _until_over(site)
        if passed and undisturbed is not None:
            apart = difference(site.losses(), undisturbed)
            words += f"; losses within {apart:.0e} of an undisturbed run"
            passed = apart <= TOLERANCE
        return Outcome(passed=passed, seconds=seconds, words=words)
    finally:
        site.close()


def _lost(site: Site) -> Outcome:
    lost = node_name(2)
    try:
        _first_round(site)
        site.processes.kill(lost)
        done, seconds, words = _until_over(site)
        return Outcome(passed=done or lost in words, seconds=seconds, words=words)
    finally:
        site.close()


def _upload(make: Callable[[Work, Links], Site]) -> Outcome:
    cut = node_name(4)
    sites: list[Site] = []
    sent: list[int] = []

    def again() -> None:
        sent.append(sites[0].links.proxies[cut].up_bytes)
        sites[0].processes.kill(cut)
        sites[0].processes.start(cut)

    def shape(node: str) -> dict[str, object]:
        if node != cut:
            return {}
        return {"up_bytes_per_s": UPLOAD_BYTES_PER_S, "trigger_bytes": CUT_BYTES, "trigger": again}

    site = make(Work(nodes=4, reproducible=False), Links(shape))
    sites.append(site)
    try:
        seconds = _first_round(site, LIMIT_S)
        took = f"took {seconds:.0f} s" if seconds else f"was not over after {LIMIT_S:.0f} s"
        if not sent:  # the probe itself failed: nothing was cut
            raise SystemExit(f"{cut} was never killed: the round {took}")
        words = f"killed with {sent[0] / 1e3:.0f} kB sent: the round {took}"
        return Outcome(
            passed=bool(seconds and seconds <= ROUND_LIMIT_S), seconds=seconds or LIMIT_S, words=words
        )
    finally:
        site.close()


def _state(site: Site) -> Outcome:
    try:
        _first_round(site)
        site.processes.kill(SERVER)
        time.sleep(LOOK_S)
        gone = site.said()
        site.processes.start(SERVER)
        _done, seconds, words = _until_over(site)
        over = "not over" not in words
        words = f"while it is gone: {_short(gone.words)}; after the start: {words}"
        return Outcome(passed=over and not gone.goes_on, seconds=seconds, words=words)
    finally:
        site.close()


def difference(one: dict[str, float], other: dict[str, float]) -> float:
    """The greatest distance between losses of one name; infinite if the names differ."""
    if one.keys() != other.keys():
        return float("inf")
    return max(abs(one[name] - other[name]) for name in one)


def _first_round(site: Site, limit_s: float = LIMIT_S) -> float | None:
    """Start the site; seconds of the first round when it is over, None if it is not in time."""
    site.begin()
    until_s = time.monotonic() + limit_s
    while time.monotonic() < until_s:
        if (seconds := site.round_s()) is not None:
            return seconds
        time.sleep(0.1)
    return None


def _until_over(site: Site) -> tuple[bool, float, str]:
    """Ask until the job is over: whether it ended well, after how many seconds, in the system's words."""
    began_s = time.monotonic()
    while (seconds := time.monotonic() - began_s) < LIMIT_S:
        said = site.said()
        if said.over:
            end = "ended" if said.done else "ended badly"
            return said.done, seconds, f"{end} after {seconds:.0f} s ({_short(said.words)})"
        time.sleep(LOOK_S)
    return False, LIMIT_S, f"not over after {LIMIT_S:.0f} s ({_short(said.words)})"


def _short(words: str) -> str:
    """What stands in a table."""
    plain = " ".join(words.replace("|", "/").split())
    return plain if len(plain) <= 160 else plain[:159] + "…"
