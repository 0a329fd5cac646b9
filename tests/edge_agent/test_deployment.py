from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from mas_edge.edge_agent import deployment as d
from mas_edge.edge_agent.in_use import find
from mas_edge.wire.messages import BlobRef, Deploy, InferenceProfile, Model, Score

TASKS = ("gravity", "jerk")
FRESH = d.State(able=frozenset(("watch", task) for task in TASKS))
GROUP = "gravity+jerk"


def model(name="a", job="j", group=GROUP, **changes):
    file = BlobRef(digest=name * 64, size_bytes=9, chunk_bytes=9)
    made = Model(workload="watch", job=job, group=group, round=1, tasks=TASKS, file=file)
    return msgspec.structs.replace(made, **changes)


def deploy(name="a", request=None, **changes):
    of = model(name, **changes)
    return Deploy(
        request=request or f"r{name}{of.group}", workload="watch", job=of.job, group=of.group, model=of
    )


def rollback(request="back", job="j"):
    return Deploy(request=request, workload="watch", job=job, group=GROUP)


def profile(loss, count=2.0):
    return InferenceProfile(scores=(Score(task="gravity", count=count, loss_sum=loss * count),))


def measured(loss, **options):
    return d.Measured(profile=profile(loss, **options), held_out_share=0.2)


def play(state, *events):
    """The state after these events, and all that they led to."""
    done = []
    for event in events:
        state, actions = d.step(state, event)
        done += actions
    return state, done


def answers(actions):
    return [action.answer for action in actions if isinstance(action, d.Keep)]


def with_a(loss=1.0):
    """A device that uses model a."""
    return play(FRESH, d.Asked(deploy=deploy("a")), d.Fetched(digest="a" * 64), measured(loss))[0]


def in_use(state):
    now = find(state.kept.in_use, "watch", GROUP)
    return now and now.model.file.digest[0]


def test_the_first_model_is_fetched_measured_and_in_use():
    state, actions = play(FRESH, d.Asked(deploy=deploy("a")))
    assert actions == [d.Fetch(ref=model("a").file)]
    state, actions = play(state, d.Fetched(digest="a" * 64))
    assert actions == [d.Measure(model=model("a"))]
    assert state.kept.in_use == ()
    state, actions = play(state, measured(1.0))
    (answer,) = answers(actions)
    assert (answer.verdict, answer.profile, answer.running) == ("in use", profile(1.0), None)
    assert answer.in_use == state.kept.in_use[0]
    assert state.needed == {"a" * 64}


def test_a_model_that_is_not_worse_takes_the_place_of_the_one_in_use_which_stays_as_the_previous():
    state, actions = play(with_a(), d.Asked(deploy=deploy("b")), d.Fetched(digest="b" * 64), measured(1.04))
    assert actions[-1] == d.Measure(model=model("a"), held_out_share=0.2)
    assert in_use(state) == "a"  # until both are known
    state, actions = play(state, measured(1.0))
    (answer,) = answers(actions)
    assert (answer.verdict, answer.profile, answer.running) == ("in use", profile(1.04), profile(1.0))
    assert in_use(state) == "b"
    assert answer.in_use.previous == model("a")
    assert state.needed == {"a" * 64, "b" * 64}


def test_a_worse_model_is_refused_with_both_numbers_and_nothing_changes():
    before = with_a()
    state, actions = play(
        before, d.Asked(deploy=deploy("b")), d.Fetched(digest="b" * 64), measured(1.06), measured(1.0)
    )
    (answer,) = answers(actions)
    assert answer.verdict == "refused"
    assert "1.06" in answer.why
    assert (answer.profile, answer.running) == (profile(1.06), profile(1.0))
    assert answer.in_use == before.kept.in_use[0]
    assert state.kept.in_use == before.kept.in_use
    assert state.needed == {"a" * 64}


def test_the_model_in_use_is_judged_anew_on_the_same_examples():
    state, actions = play(with_a(1.0), d.Asked(deploy=deploy("b")), d.Fetched(digest="b" * 64), measured(1.5))
    state, actions = play(state, measured(1.6))  # the device's data have changed since a came
    assert answers(actions)[0].verdict == "in use"


def test_an_unsound_model_is_refused_and_one_in_use_that_does_not_run_any_more_is_replaced():
    state, actions = play(
        with_a(), d.Asked(deploy=deploy("b")), d.Fetched(digest="b" * 64), d.Unsound(why="torn")
    )
    assert (answers(actions)[0].verdict, answers(actions)[0].why, in_use(state)) == ("refused", "torn", "a")
    asked = (d.Asked(deploy=deploy("c")), d.Fetched(digest="c" * 64), measured(9.0), d.Unsound(why="torn"))
    assert in_use(play(state, *asked)[0]) == "c"


def test_a_model_that_nobody_can_judge_is_refused():
    state, actions = play(
        FRESH, d.Asked(deploy=deploy("a")), d.Fetched(digest="a" * 64), measured(0, count=0)
    )
    assert answers(actions)[0].why == "this device has no held-out labels of its tasks"
    state, actions = play(d.State(able=frozenset()), d.Asked(deploy=deploy("a")))
    assert "no data of workload 'watch' here has labels of gravity, jerk" in answers(actions)[0].why
    assert state.waiting == ()


def test_a_rollback_puts_the_previous_model_back_and_then_there_is_none():
    state = play(
        with_a(), d.Asked(deploy=deploy("b")), d.Fetched(digest="b" * 64), measured(1.0), measured(1.0)
    )[0]
    state, actions = play(state, d.Asked(deploy=rollback()))
    (answer,) = answers(actions)
    assert (answer.verdict, in_use(state), answer.in_use.previous) == ("rolled back", "a", None)
    assert state.needed == {"a" * 64}
    _, actions = play(state, d.Asked(deploy=rollback("again")))
    assert answers(actions)[0].why == "there is no model from before"


def test_a_rollback_of_a_job_whose_model_is_not_in_use_is_refused():
    _, actions = play(FRESH, d.Asked(deploy=rollback()))
    assert answers(actions)[0].why == "no model of job j is in use here, but none"
    _, actions = play(with_a(), d.Asked(deploy=rollback(job="other")))
    assert answers(actions)[0].why == "no model of job other is in use here, but that of job j"


def test_a_request_that_is_repeated_changes_nothing_until_it_is_answered_and_is_then_answered_again():
    once, fetch = play(FRESH, d.Asked(deploy=deploy("a")))
    state, actions = play(once, d.Asked(deploy=deploy("a")))
    assert (state, actions) == (once, fetch)  # there may have been no room for its file
    state, actions = play(state, d.Fetched(digest="a" * 64), d.Asked(deploy=deploy("a")), measured(1.0))
    assert play(state, d.Asked(deploy=deploy("a"))) == (state, [d.Say(answer=answers(actions)[0])])


def test_a_later_request_for_the_group_outdates_one_that_still_waits():
    state, actions = play(FRESH, d.Asked(deploy=deploy("a")), d.Asked(deploy=deploy("b")))
    (answer,) = answers(actions)
    assert (answer.request, answer.verdict) == (f"ra{GROUP}", "refused")
    assert [each.request for each in state.waiting] == [f"rb{GROUP}"]


def test_a_later_request_for_the_group_ends_the_trial_of_an_earlier_one():
    asked = (d.Asked(deploy=deploy("b")), d.Fetched(digest="b" * 64))
    state, actions = play(with_a(), *asked, d.Asked(deploy=deploy("c")))
    assert [type(action) for action in actions[2:]] == [d.Stop, d.Keep, d.Fetch]
    assert (answers(actions)[0].request, answers(actions)[0].verdict) == (f"rb{GROUP}", "refused")
    state, actions = play(state, d.Fetched(digest="c" * 64))
    assert actions == [d.Measure(model=model("c"))]


def test_a_model_that_was_on_trial_does_not_come_into_use_after_a_rollback():
    state = play(
        with_a(), d.Asked(deploy=deploy("b")), d.Fetched(digest="b" * 64), measured(1.0), measured(1.0)
    )[0]
    asked = (d.Asked(deploy=deploy("c")), d.Fetched(digest="c" * 64), measured(1.0))
    state, actions = play(state, *asked, d.Asked(deploy=rollback()), measured(1.0), measured(1.0))
    assert [each.verdict for each in answers(actions)] == ["refused", "rolled back"]
    assert in_use(state) == "a"


def test_the_next_group_has_its_turn_when_a_trial_is_ended():
    asked = [d.Asked(deploy=deploy(name, group=group)) for name, group in (("a", "g1"), ("b", "g2"))]
    files = [d.Fetched(digest=name * 64) for name in "ab"]
    _, actions = play(FRESH, *asked, *files, d.Asked(deploy=deploy("c", group="g1")))
    stop, keep, measure, _ = actions[-4:]
    assert (stop, keep.answer.group, measure.model.group) == (d.Stop(), "g1", "g2")


def test_models_of_several_groups_are_judged_one_after_the_other_as_their_files_come():
    events = [d.Asked(deploy=deploy(name, group=group)) for name, group in (("a", "g1"), ("b", "g2"))]
    state, actions = play(FRESH, *events, d.Fetched(digest="b" * 64), d.Fetched(digest="a" * 64))
    assert [each.model.group for each in actions if isinstance(each, d.Measure)] == ["g2"]
    state, actions = play(state, measured(1.0))
    assert actions[-1] == d.Measure(model=model("a", group="g1"))


def test_the_model_that_is_in_use_is_not_judged_again():
    _, actions = play(with_a(), d.Asked(deploy=deploy("a", "anew")), d.Fetched(digest="a" * 64))
    assert answers(actions)[0].verdict == "in use"


def test_a_model_that_is_put_in_use_anew_serves_the_tasks_that_it_shares():
    before = play(
        with_a(), d.Asked(deploy=deploy("b", group="g2")), d.Fetched(digest="b" * 64), measured(1.0)
    )[0]
    assert [each.model.group for each in before.kept.in_use] == [GROUP, "g2"]
    state, _ = play(before, d.Asked(deploy=deploy("a", "anew")), d.Fetched(digest="a" * 64))
    assert [each.model.group for each in state.kept.in_use] == ["g2", GROUP]
    assert state.kept.before == before.kept.before


EVENTS = st.one_of(
    st.builds(
        lambda name, n, group: d.Asked(deploy=deploy(name, f"{name}{n}{group}", group=group)),
        st.sampled_from("abcd"),
        st.integers(0, 2),
        st.sampled_from([GROUP, "other"]),
    ),
    st.builds(lambda n: d.Asked(deploy=rollback(f"back{n}")), st.integers(0, 3)),
    st.builds(lambda name: d.Fetched(digest=name * 64), st.sampled_from("abcd")),
    st.builds(measured, st.sampled_from([0.5, 1.0, 2.0])),
    st.just(d.Unsound(why="torn")),
    st.just("killed"),
)


@given(st.lists(EVENTS, max_size=40))
def test_whatever_happens_every_request_has_one_answer_and_each_group_one_model_that_was_measured(events):
    state, measured_once, said = FRESH, set(), {}
    for event in events:
        if event == "killed":  # what was kept is all that is left
            state = d.State(able=state.able, kept=state.kept)
            continue
        judged = state.measuring
        if isinstance(event, d.Measured) and judged and judged.profile is None:
            measured_once.add(judged.deploy.model.file.digest)
        state, actions = d.step(state, event)
        for action in actions:
            if isinstance(action, d.Keep | d.Say):
                assert said.setdefault(action.answer.request, action.answer) == action.answer
                assert action.answer in state.kept.answers
        groups = [each.model.group for each in state.kept.in_use]
        assert len(groups) == len(set(groups))
        assert {each.file.digest for each in state.kept.models} <= measured_once & state.needed
