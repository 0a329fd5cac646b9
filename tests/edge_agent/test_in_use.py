from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mas_edge.edge_agent.in_use import worse
from mas_edge.wire.messages import InferenceProfile, Score

MEANS = st.floats(0, 100)


def profile(**means):
    """Each task's mean loss, over two examples; None: not one of them has a label."""
    return InferenceProfile(
        scores=tuple(
            Score(task=task, count=0.0 if mean is None else 2.0, loss_sum=0.0 if mean is None else 2 * mean)
            for task, mean in means.items()
        )
    )


def test_a_model_is_worse_if_its_total_loss_is_greater_by_more_than_the_margin():
    old = profile(gravity=1.0, jerk=1.0)
    assert worse(profile(gravity=1.05, jerk=1.05), old, 0.05) == ""
    assert worse(profile(gravity=0.1, jerk=2.0), old, 0.05) == ""  # the sum counts
    assert worse(profile(gravity=1.0, jerk=1.2), old, 0.05) == (
        "its held-out loss here is 2.2, that of the model in use 2: worse by more than 0.05 of it"
    )


def test_tasks_that_only_one_of_them_has_labels_of_count_for_neither():
    assert worse(profile(gravity=1.0, jerk=9.0), profile(gravity=1.0), 0.0) == ""
    assert worse(profile(gravity=1.0, jerk=9.0), profile(gravity=1.0, jerk=None), 0.0) == ""
    assert worse(profile(jerk=9.0), profile(gravity=1.0), 0.0) == ""


@given(MEANS, MEANS, st.floats(0, 1))
def test_of_two_models_at_most_one_is_worse_and_a_better_one_never(one, other, margin):
    a, b = profile(gravity=one), profile(gravity=other)
    assert not (worse(a, b, margin) and worse(b, a, margin))
    assert not worse(profile(gravity=min(one, other)), profile(gravity=max(one, other)), margin)
