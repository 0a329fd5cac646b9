"""Policies that train groups in order to choose among them, in real processes: kill -9 changes no weight."""

from __future__ import annotations

import contextlib
import time

import pytest
from test_demo import LIMIT_S, child, demo, finished

from mas_edge.orchestrator.demos.demo import STATE
from mas_edge.orchestrator.job import Planned
from mas_edge.orchestrator.rounds import Heard, Merged
from mas_edge.orchestrator.service import read_store
from mas_edge.orchestrator.store import StoreError

pytestmark = pytest.mark.slow

HOA = ("--policy", "hoa", "--tasks", "gravity,jerk", "--rounds", "2", "--clients", "2")
AUTO = ("--groups", "auto", "--tasks", "gravity,jerk", "--rounds", "8", "--clients", "2")
VERIFIED = ("--policy", "mas-verified", "--tasks", "gravity,jerk", "--rounds", "84", "--clients", "1")


def stored(out) -> list:
    """The events of the run so far."""
    with contextlib.suppress(StoreError), contextlib.closing(read_store(out / STATE)) as store:
        return [event for _, _, event in store.events("demo")]
    return []


def wait_for(out, reached) -> list:
    """The events of the run as soon as they are so."""
    end_s = time.monotonic() + LIMIT_S
    while time.monotonic() < end_s:
        if reached(events := stored(out)):
            return events
        time.sleep(0.05)
    raise TimeoutError(f"not in {LIMIT_S} s: {reached.__doc__}")


def kill_both(process) -> None:
    """kill -9 of the orchestrator and of a device at once."""
    victims = [child(process, "orchestrator.cli serve"), child(process, "edge-1.toml")]
    for victim in victims:
        victim.kill()


def test_what_hoa_compares_survives_a_kill_of_the_orchestrator_and_of_a_device(tmp_path):
    def within(events) -> bool:
        """Pairs are being trained."""
        return sum(isinstance(event, Heard) for event in events) >= 5

    undisturbed = finished(demo(tmp_path / "undisturbed", *HOA))
    process = demo(tmp_path / "killed", *HOA)
    wait_for(tmp_path / "killed", within)
    kill_both(process)
    report = finished(process)
    assert report["final_digests"] == undisturbed["final_digests"]
    assert merged(stored(tmp_path / "killed")) == merged(stored(tmp_path / "undisturbed"))
    assert {point["group"] for point in report["report"]["curve"]} == {"gravity", "jerk", "gravity+jerk"}


def test_tasks_that_go_on_together_until_it_is_decided_again_survive_the_same(tmp_path):
    def within(events) -> bool:
        """It was decided twice that they go on."""
        return sum(isinstance(event, Planned) and event.decision.again > 0 for event in events) >= 2

    undisturbed = finished(demo(tmp_path / "undisturbed", *AUTO))
    assert within(stored(tmp_path / "undisturbed"))
    process = demo(tmp_path / "killed", *AUTO)
    wait_for(tmp_path / "killed", within)
    kill_both(process)
    report = finished(process)
    assert report["final_digests"] == undisturbed["final_digests"]
    assert decided(stored(tmp_path / "killed")) == decided(stored(tmp_path / "undisturbed"))


def test_a_trial_survives_a_kill_of_the_orchestrator_and_of_a_device(tmp_path):
    def tried(events) -> bool:
        """A trial was decided on."""
        return any(isinstance(event, Planned) and event.decision.trial for event in events)

    def within(events) -> bool:
        """It is being trained."""
        return tried(events) and len(merged(events)) >= 5

    def settled(events) -> bool:
        """It is over."""
        return any(isinstance(event, Planned) and event.stage == "split" for event in events)

    ends = []
    for name in ("undisturbed", "killed"):
        process = demo(tmp_path / name, *VERIFIED)
        try:
            if name == "killed":
                wait_for(tmp_path / name, within)
                kill_both(process)
            events = wait_for(tmp_path / name, settled)
        finally:
            process.terminate()
            process.communicate(timeout=LIMIT_S)
        ends.append((merged(events), decided(events)))
    assert tried(events)
    assert ends[0] == ends[1]


def merged(events) -> dict[tuple[str, int], str]:
    """What each round of each group brought."""
    return {(event.group, event.round): event.weights.digest for event in events if isinstance(event, Merged)}


def decided(events) -> list:
    """The groups of each stage."""
    return [event.decision.groups for event in events if isinstance(event, Planned)]
