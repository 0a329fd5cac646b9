"""What a device does, in one line for people: systemd shows it, and ``mas-agent`` logs it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from mas_edge.edge_agent.session import Session
    from mas_edge.wire.messages import Assign, Key, Progress


def in_words(
    session: Session, progress: Mapping[Key, Progress], waiting: Collection[Key] = (), trying: str = ""
) -> str:
    """All slots; ``progress`` holds the workers' last words, ``waiting`` what waits for memory.

    ``trying`` is the group whose model is judged before it comes into use; trainings wait for that too.
    """
    doing = [f"trying a model of {trying}"] if trying else []
    wait = "its turn" if trying else "memory"
    doing += [_doing(slot.doing, slot.stage, progress, waiting, wait) for slot in session.slots if slot.doing]
    if doing:
        return "; ".join(doing)
    idle = f"may not train now: {session.verdict.words}" if session.verdict.reasons else "idle"
    return f"delivering {len(session.spooled)} answer(s); {idle}" if session.spooled else idle


def _doing(
    assign: Assign, stage: str, progress: Mapping[Key, Progress], waiting: Collection[Key], wait: str
) -> str:
    key = assign.key
    where = f"{key.group}, round {key.round + 1}"
    if stage == "fetching":
        return f"fetching the weights of {where}"
    if key in waiting:
        return f"waiting for {wait} for {where}"
    said = progress.get(key)
    return f"training {where}" + (f", step {said.step} of {said.steps}" if said else "")
