"""Which training a device does next, where several jobs want it."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from mas_edge.orchestrator.events import GaveUp
from mas_edge.orchestrator.rounds import Ask
from mas_edge.orchestrator.schedule import Contender, Schedule
from mas_edge.orchestrator.storage.usage import DAY_S, Usage
from mas_edge.wire.messages import BlobRef, Key, Profile, Spend

W = BlobRef(digest="w", size_bytes=1, chunk_bytes=1)


def ask(job: str, round_: int = 0, group: str = "g", device: str = "d") -> Ask:
    key = Key(job=job, group=group, round=round_, attempt=0, device=device)
    return Ask(key=key, tasks=(group,), weights=W, train=True, evaluate=False, measure=False)


def job(name: str, *asks: Ask, priority: int = 0) -> Contender:
    return Contender(job=name, priority=priority, asks=asks or (ask(name),))


def choose(schedule, contenders, sent=(), used=None):
    return schedule.choose(contenders, sent, lambda _device: used or {}, {"d": 1})[0].key


def test_what_was_sent_stays_even_where_a_job_of_higher_priority_comes():
    contenders = [job("a"), job("b", priority=5)]
    assert choose(Schedule(), contenders).job == "b"
    assert choose(Schedule(), contenders, sent={ask("a").key}).job == "a"


def test_what_was_sent_goes_when_nobody_asks_for_it_any_more():
    assert choose(Schedule(), [job("a", ask("a", 1))], sent={ask("a", 0).key}).round == 1


def test_within_a_job_the_earliest_round_goes_first_and_groups_in_the_plans_order():
    asks = (ask("a", 3, "late"), ask("a", 2, "first"), ask("a", 2, "second"))
    assert choose(Schedule(), [job("a", *asks)]).group == "first"


def test_of_equal_jobs_the_one_goes_first_that_has_had_less_of_the_device():
    schedule = Schedule()
    choose(schedule, [job("a"), job("b")])
    assert choose(schedule, [job("a"), job("b")], used={"a": 10.0, "b": 9.0}).job == "b"
    assert choose(schedule, [job("a"), job("b")], used={"a": 10.0, "b": 11.0}).job == "a"


def test_each_device_is_by_itself():
    contenders = [job("a", ask("a", device="d1"), ask("a", device="d2")), job("b", ask("b", device="d2"))]
    used = {"d1": {"a": 50.0}, "d2": {"a": 50.0}}
    schedule = Schedule()
    slots = {"d1": 1, "d2": 1}
    schedule.choose(contenders, (), lambda _: {}, slots)
    made = schedule.choose(contenders, (), used.__getitem__, slots)
    assert {each.key.device: each.key.job for each in made} == {"d1": "a", "d2": "b"}


def test_a_device_with_two_slots_does_two_trainings_and_one_nobody_knows_does_none():
    contenders = [job("a", ask("a", 3, "late"), ask("a", 2, "first"), ask("a", 2, "second"))]
    choose = Schedule().choose
    made = choose(contenders, (), lambda _: {}, {"d": 2})
    assert [each.key.group for each in made] == ["first", "second"]
    kept = choose(contenders, {contenders[0].asks[0].key}, lambda _: {}, {"d": 2})
    assert [each.key.group for each in kept] == ["late", "first"]
    assert choose(contenders, (), lambda _: {}, {}) == ()


def served(rounds: int, names, seconds, used, schedule, priority=None) -> Counter:
    """How often each job has its turn when each turn takes so many seconds of the device."""
    turns: Counter = Counter()
    for _ in range(rounds):
        contenders = [job(name, priority=(priority or {}).get(name, 0)) for name in names]
        name = choose(schedule, contenders, used=dict(used)).job
        used[name] = used.get(name, 0.0) + seconds[name]
        turns[name] += 1
    return turns


@given(st.dictionaries(st.sampled_from("abcd"), st.floats(1.0, 50.0), min_size=2), st.integers(20, 60))
def test_device_seconds_are_shared_equally_up_to_one_turn(seconds, rounds):
    turns = served(rounds, sorted(seconds), seconds, {}, Schedule())
    had_s = [turns[name] * each for name, each in seconds.items()]
    assert max(had_s) - min(had_s) <= max(seconds.values()) + 1e-6


def test_a_job_that_comes_hours_later_neither_waits_for_ever_nor_takes_the_device_for_itself():
    schedule, seconds, used = Schedule(), {"old": 10.0, "new": 10.0}, {}
    served(500, ["old"], seconds, used, schedule)
    turns = served(20, ["old", "new"], seconds, used, schedule)
    assert turns == {"old": 10, "new": 10}


def test_after_a_restart_old_and_new_jobs_go_on_in_turns():
    used = {"old": 5000.0, "new": 30.0}
    assert served(20, ["old", "new"], {"old": 10.0, "new": 10.0}, used, Schedule()) == {"old": 10, "new": 10}


def test_a_job_of_lower_priority_has_its_turn_when_the_higher_one_wants_nothing():
    schedule = Schedule()
    both = [job("low"), job("high", priority=1)]
    assert choose(schedule, both, used={"high": 999.0}).job == "high"
    assert choose(schedule, both[:1]).job == "low"


def test_joules_of_a_day_are_those_of_that_day_alone_and_the_jobs_are_all():
    usage = Usage()
    for attempt, (time_s, energy_j) in enumerate(((10.0, 5.0), (20.0, 6.0), (DAY_S + 1.0, 7.0))):
        key = Key(job="j", group="a", round=0, attempt=attempt, device="d")
        row = Spend(
            job="j", group="a", round=0, phase="forward", wall_s=1.0, cpu_s=1.0, attributed_energy_j=energy_j
        )
        usage.add("j", GaveUp(key=key, reason="r", profile=Profile(rows=(row,))), time_s)
        assert usage.counted(key)
        assert usage.today_j("j", "d", time_s) == (5.0, 11.0, 7.0)[attempt]
    assert usage.today_j("j", "d", 2 * DAY_S) == 0.0
    assert usage.used_j("j") == 18.0
