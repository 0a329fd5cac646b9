"""Numbers of a refusal, a fit and a bill that cannot be, and words that no terminal should see."""

from __future__ import annotations

import pytest

from mas_edge.orchestrator.rounds import Ask
from mas_edge.orchestrator.sound import (
    AnswerRefused,
    check,
    sound_bill,
    sound_shortage,
    sound_words,
    unsound_inference,
)
from mas_edge.wire.messages import (
    Baseline,
    BlobRef,
    Deployed,
    Fit,
    InferenceProfile,
    InUse,
    Key,
    Model,
    Profile,
    Score,
    Shortage,
    TaskBytes,
    Trace,
    Update,
)

KEY = Key(job="j", group="a", round=0, attempt=0, device="d1")
ASK = Ask(
    key=KEY,
    tasks=("a",),
    weights=BlobRef(digest="0" * 64, size_bytes=1, chunk_bytes=1),
    train=False,
    evaluate=True,
    measure=False,
)
HUGE = 2**60


def test_a_refusals_numbers_are_kept_as_they_are_if_they_can_be():
    short = Shortage(micro_batch=1, needed_bytes=9, decoders=(TaskBytes(task="a", bytes=4),))
    assert sound_shortage(short) == short
    assert sound_shortage(None) is None


@pytest.mark.parametrize(
    "wrong", [{"needed_bytes": HUGE}, {"decoders": (TaskBytes(task="a", bytes=-HUGE),)}, {"peak_bytes": HUGE}]
)
def test_numbers_that_cannot_be_leave_the_refusal_without_any(wrong):
    assert sound_shortage(Shortage(micro_batch=2, **wrong)) == Shortage(micro_batch=2)


def test_an_update_whose_fit_cannot_be_is_refused():
    check(Update(key=KEY, fit=Fit(micro_batch=8, allowed_bytes=5)), ASK)
    with pytest.raises(AnswerRefused, match="how it was made to fit"):
        check(Update(key=KEY, fit=Fit(micro_batch=8, allowed_bytes=HUGE)), ASK)


@pytest.mark.parametrize(
    "wrong",
    [
        {"trace": Trace(t_ns=(0, 10**400), energy_j=(0.0, 1.0), variance_j2=(0.0, 0.0))},
        {"idle_w": 1.0, "idle_u_w": 1e200},
        {"shared_gpu_j": 1.0, "shared_gpu_u_j": 1e200},
        {"baseline": Baseline(power_w=1.0, u_w=1e200, how="measured")},
    ],
)
def test_a_bill_with_a_number_that_cannot_be_is_refused_wherever_it_stands(wrong):
    assert sound_bill(Profile())
    assert not sound_bill(Profile(**wrong))


def test_a_devices_words_are_one_line_without_control_characters_and_not_endless():
    assert sound_words("needs 5 MB ([caps], °C)") == "needs 5 MB ([caps], °C)"
    assert sound_words("a\n\x1b[2Jb") == "a  [2Jb"
    assert len(sound_words("x" * 10**6)) == 1000


FAST = InferenceProfile(
    scores=(Score(task="a", count=4.0, loss_sum=2.0),), latency_p50_s=0.1, method="counter"
)
MODEL = Model(workload="w", job="j", group="a", round=1, tasks=("a",), file=ASK.weights)


def deployed(**changes) -> Deployed:
    return Deployed(request="s-1.0", job="j", group="a", verdict="in use", **changes)


def test_a_measurement_that_can_be_is_sound():
    assert unsound_inference(deployed()) == ""
    used = InUse(model=MODEL, profile=FAST)
    assert unsound_inference(deployed(profile=FAST, running=FAST, in_use=used)) == ""


@pytest.mark.parametrize(
    "wrong",
    [
        InferenceProfile(latency_p95_s=-0.1),
        InferenceProfile(peak_rss_bytes=10**200),
        InferenceProfile(energy_j=1e200),
        InferenceProfile(scores=FAST.scores * 2),
        InferenceProfile(scores=(Score(task="a", count=-1.0, loss_sum=2.0),)),
        InferenceProfile(scores=(Score(task="a", count=1.0, loss_sum=2.0, intersection=(1,)),)),
    ],
)
@pytest.mark.parametrize("where", ["profile", "running", "in_use"])
def test_a_measurement_that_cannot_be_is_named_wherever_it_stands(where, wrong):
    said = InUse(model=MODEL, profile=wrong) if where == "in_use" else wrong
    assert "number that cannot be" in unsound_inference(deployed(**{where: said}))
