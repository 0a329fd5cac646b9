"""Decisions as a specification: situations with affinities, costs and budgets, and what is decided, in words.

What is expected stands in ``decisions.txt``, a section a situation, as ``mas plan`` would print it.
"""

from __future__ import annotations

import re
from itertools import chain
from pathlib import Path

import msgspec
import pytest
from deciding import (
    FALLING,
    FASTER,
    FLEET,
    SECONDS,
    SELFISH,
    SLOWER,
    TRAINING,
    affinities,
    curve,
    declined,
    facts,
    rounds,
    situation,
)

from mas_edge.orchestrator.cost_model import figure
from mas_edge.orchestrator.decision import Decision
from mas_edge.orchestrator.explain import explain, in_short
from mas_edge.orchestrator.learning_curve import Evaluated
from mas_edge.orchestrator.policies import decide
from mas_edge.orchestrator.spec import Budget, Participation

SAME = affinities({("a", "b"): 0.1, ("a", "c"): 0.1, ("b", "c"): 0.1})
REPRODUCIBLE = msgspec.structs.replace(TRAINING, reproducible=True)

HUNDRED = msgspec.structs.replace(TRAINING, rounds=100)
LONG = msgspec.structs.replace(TRAINING, rounds=400)
VERIFIED = {"policy": "mas-verified", "training": HUNDRED}
TRIED = (decide(situation(**VERIFIED, stage="trial")),)


def tried(whole, split):
    """The losses of a trial that began after five rounds: of all tasks together, and of a+b and c."""
    parts = (curve((9.0,) * 3 + (split,) * 3, group, first=5) for group in (("a", "b"), ("c",)))
    return (*curve((9.0,) * 5 + (whole,) * 5, first=5), *chain.from_iterable(parts))


NOTHING = msgspec.structs.replace(SAME, **dict.fromkeys(("batches", "w", "ww", "wz", "wzz"), (0,) * 9))
TO_THE_END = {"evaluated": curve((1.0,) * 14)}
C_HELPS_B = affinities({("a", "b"): 0.1, ("b", "c"): 0.1, ("a", "c"): -0.2})
PAIRS = tuple(
    Evaluated(group=group, round=15, task=task, loss=loss, count=100.0)
    for group, losses in {
        ("a",): (1.0,),
        ("b",): (2.0,),
        ("c",): (0.5,),
        ("a", "b"): (0.7, 1.9),
        ("a", "c"): (1.2, 0.6),
        ("b", "c"): (1.6, 0.55),
    }.items()
    for task, loss in zip(group, losses, strict=True)
)

SITUATIONS = {
    "no limits": {},
    "no limits, two groups asked for": {"groups": 2},
    "no limits, tasks help themselves more than each other": {"affinity": SELFISH},
    "the same, and the losses of five merged rounds are known": {"affinity": SELFISH, "evaluated": FALLING},
    "the same after six rounds, and half of what was learnt carries over": {
        "affinity": SELFISH,
        "evaluated": SLOWER,
        "learnt": FASTER,
        "left": 9,
    },
    "all of it carries over": {"affinity": SELFISH, "evaluated": SLOWER, "learnt": SLOWER, "left": 9},
    "all of it carries over, a third of the rounds is left": {
        "affinity": SELFISH,
        "evaluated": SLOWER,
        "learnt": SLOWER,
        "left": 5,
    },
    "two groups asked for, and the losses of five merged rounds are known": {
        "groups": 2,
        "evaluated": FALLING,
    },
    "losses are known, c's is small: what happens to it counts for little": {
        "evaluated": (*curve((0.6,))[:2], *curve((0.01,))[2:])
    },
    "130 J in all, 40 J of it used": {"budget": Budget(energy_j=130.0), "spent_j": 40.0},
    "240 J in all, 40 J of it used": {"budget": Budget(energy_j=240.0), "spent_j": 40.0},
    "60 J in all, 45 J of it used": {"budget": Budget(energy_j=60.0), "spent_j": 45.0},
    "27 s in all, 10 s of it passed": {"budget": Budget(time_s=27.0), "spent_s": 10.0},
    "no device has the memory for all tasks": {
        "seen": (),
        "refused": [declined(device, 310) for device in FLEET],
        "affinity": SAME,
    },
    "small boards have no memory for all tasks, and nothing speaks for a split": {
        "seen": rounds({"d1": 1.0, "d2": 1.0}),
        "refused": [declined("d3", 310), declined("d4", 310)],
        "affinity": SAME,
    },
    "small boards have no memory for all tasks, three of four devices are wanted": {
        "seen": rounds({"d1": 1.0, "d2": 1.0}),
        "refused": [declined("d3", 310), declined("d4", 310)],
        "affinity": SAME,
        "participation": Participation(quorum=0.75),
    },
    "30 J a day for each device, d4 has used 10 J of it": {
        "budget": Budget(device_energy_j_per_day=30.0),
        "used_j": (("d4", 10.0),),
    },
    "30 J a day for each device, all have used 30 J": {
        "budget": Budget(device_energy_j_per_day=30.0),
        "used_j": tuple(dict.fromkeys(FLEET, 30.0).items()),
    },
    "40 J in all, and a round may take 1.7 s: d4 is three times slower": {
        "seen": rounds({**SECONDS, "d4": 3.0}),
        "participation": Participation(deadline_s=1.7),
        "budget": Budget(energy_j=40.0),
        "spent_j": 20.0,
    },
    "the partition is given, and all have used up their day": {
        "policy": "fixed",
        "partition": (("a", "b"), ("c",)),
        "budget": Budget(device_energy_j_per_day=30.0),
        "used_j": tuple(dict.fromkeys(FLEET, 30.0).items()),
    },
    "d4 has no labels for c": {"known": facts({"d4": ("a", "b")})},
    "d4 is three times slower": {"seen": rounds({**SECONDS, "d4": 3.0})},
    "d4 is twice slower, a round may take 1.7 s": {
        "seen": rounds(dict.fromkeys(FLEET[:3], 0.5) | {"d4": 1.0}),
        "participation": Participation(deadline_s=1.7),
    },
    "mas-verified, 100 rounds": {**VERIFIED, "stage": "trial"},
    "mas-verified, 400 rounds pay for trying another one": {**VERIFIED, "stage": "trial", "training": LONG},
    "mas-verified, 15 rounds are too few for a trial": {**VERIFIED, "stage": "trial", "training": TRAINING},
    "mas-verified, 100 rounds, and joules for a split but not for trying it": {
        **VERIFIED,
        "stage": "trial",
        "budget": Budget(energy_j=1650.0),
        "spent_j": 100.0,
    },
    "mas-verified, the split was better": {**VERIFIED, "decided": TRIED, "evaluated": tried(0.5, 0.4)},
    "mas-verified, the split was not better": {**VERIFIED, "decided": TRIED, "evaluated": tried(0.4, 0.4)},
    "tag": {"policy": "tag", "merge_rounds": 0, "affinity": C_HELPS_B},
    "tag, two groups": {"policy": "tag", "merge_rounds": 0, "affinity": C_HELPS_B, "groups": 2},
    "tag, one group": {"policy": "tag", "merge_rounds": 0, "affinity": C_HELPS_B, "groups": 1, **TO_THE_END},
    "tag, nothing was measured": {"policy": "tag", "merge_rounds": 0, "affinity": NOTHING, **TO_THE_END},
    "tag, one group is left after c was stopped": {
        "policy": "tag",
        "merge_rounds": 0,
        "tasks": ("a", "b"),
        "affinity": affinities({("a", "b"): 0.1}, ("a", "b")),
        "evaluated": TO_THE_END["evaluated"],
        "seen": rounds(group=("a", "b")),
    },
    "tag, a round may take 2.6 s": {
        "policy": "tag",
        "merge_rounds": 0,
        "affinity": C_HELPS_B,
        "seen": rounds({**SECONDS, "d4": 3.0}),
        "participation": Participation(deadline_s=2.6),
        "budget": Budget(energy_j=300.0),
    },
    "hoa": {"policy": "hoa", "merge_rounds": 0, "evaluated": PAIRS},
    "hoa, two groups": {"policy": "hoa", "merge_rounds": 0, "evaluated": PAIRS, "groups": 2},
    "hoa, one group": {"policy": "hoa", "merge_rounds": 0, "evaluated": PAIRS, "groups": 1},
    "the partition is given": {"policy": "fixed", "partition": (("a", "c"), ("b",))},
    "reproducible: no clock and no sensor counts": {"training": REPRODUCIBLE},
    "start, nothing is known of costs": {"stage": "start"},
    "start, a former job was like this one, 60 J": {
        "stage": "start",
        "seen": rounds(),
        "budget": Budget(energy_j=60.0),
    },
    "start, weights of all tasks are more than any memory": {"stage": "start", "known": facts(memory_mb=11)},
    "start, weights of c alone are more than any memory": {"stage": "start", "known": facts(memory_mb=9)},
    "start, nobody has labels for c": {"stage": "start", "known": facts(dict.fromkeys(FLEET, ("a", "b")))},
    "start, a former job was like this one, 20 J, a round may take 0.9 s": {
        "stage": "start",
        "policy": "one-by-one",
        "seen": rounds(),
        "budget": Budget(energy_j=20.0),
        "participation": Participation(deadline_s=0.9),
    },
    "start, a budget in joules and no sensor": {
        "stage": "start",
        "known": facts(sensor=None),
        "budget": Budget(energy_j=500.0),
    },
}

PINNED = (Path(__file__).parent / "decisions.txt").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (.+)\n((?:(?!## ).*\n)*)", PINNED, re.MULTILINE))


@pytest.mark.parametrize("name", SITUATIONS)
def test_what_is_decided_and_why(name):
    found = explain(decide(situation(**SITUATIONS[name])), FLEET)
    assert found == SECTIONS[name].rstrip("\n").split("\n")


def test_every_section_has_its_situation():
    assert list(SECTIONS) == list(SITUATIONS)


def test_a_line_for_the_log_says_what_and_why():
    assert in_short(decide(situation(groups=2))) == "a+b | c: the best partition into 2 groups"
    assert in_short(Decision(groups=(), refused="no room")) == "no room"


def test_a_decision_survives_its_json():
    made = decide(situation(budget=Budget(energy_j=130.0), known=facts({"d4": ("a",)})))
    assert msgspec.json.decode(msgspec.json.encode(made), type=Decision) == made


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (0.012345, "0.0123"), (1.0, "1.00"), (128.4, "128"), (48369.0, "48,400"), (-2.5, "-2.50")],
)
def test_figures_have_three_digits_and_no_exponent(value, text):
    assert figure(value) == text
