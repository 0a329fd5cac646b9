"""The judgement of task groups: on tables that were made up so that the right answer is known."""

from __future__ import annotations

import dataclasses
import math
from contextlib import closing

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from study import judge, methods
from study.records import Book, StudyRefused, read
from study.table import CRITERIA, partitions, tables
from study.train import LONGER, WAYS, groups, train
from tables_made_up import (
    ONE_BY_ONE,
    SETTING,
    TABLE,
    TASKS,
    alone,
    in_group,
    made_up,
    merged_on,
    sums,
    trained,
)

from mas_edge.orchestrator.affinity import Affinity


@pytest.mark.parametrize(("count", "bell"), [(0, 1), (1, 1), (3, 5), (5, 52)])
def test_there_are_as_many_partitions_as_bell_numbers_say(count, bell):
    found = list(partitions(TASKS[:count]))
    assert len(set(found)) == len(found) == bell
    assert all(sorted(t for g in p for t in g) == sorted(TASKS[:count]) for p in found)


def test_the_partitions_are_those_that_the_product_knows():
    flat = Affinity(TASKS, np.zeros((5, 5)), np.zeros((5, 5)), np.ones((5, 5), np.int64))
    assert set(methods.by_affinity(flat)) == set(TABLE.partitions)


def test_a_partition_loses_what_its_groups_lose():
    pair, rest = TASKS[:2], TASKS[2:]
    both = sum(in_group(t, pair) for t in pair) + sum(in_group(t, rest) for t in rest)
    assert TABLE.loss((pair, rest)) == pytest.approx(both)
    assert TABLE.loss((pair, rest), CRITERIA["unseen"]) == pytest.approx(2 * both)
    assert TABLE.loss((pair, rest), CRITERIA["held-out, relative"]) == pytest.approx(both / 2)


def test_costs_are_those_of_encoders_and_decoders():
    assert TABLE.cost((TASKS,)) == pytest.approx(1)
    assert TABLE.cost(ONE_BY_ONE) == pytest.approx(15 / 7)


def test_not_splitting_is_known_where_it_was_trained_and_lies_between_elsewhere():
    whole = TABLE.loss((TASKS,))
    assert TABLE.together(1.0) == pytest.approx(whole)
    assert [TABLE.together(factor) for factor in LONGER] == pytest.approx([whole / f for f in LONGER])
    assert whole / LONGER[1] < TABLE.together(2.0) < whole / LONGER[0]
    assert TABLE.together(9.0) == TABLE.together(LONGER[-1])


def test_pairs_predict_losses_that_are_made_of_pairs():
    assert judge.correlation(TABLE, methods.by_pairs(TABLE)) == pytest.approx(1)
    for groups_, chosen in judge.picks(TABLE, {"hoa": methods.by_pairs(TABLE), **_affinities()})[
        "hoa"
    ].items():
        assert len(chosen.partition) == groups_
        assert judge.standing(TABLE, chosen.partition).regret == pytest.approx(0)


def test_entries_that_say_what_pairs_do_to_each_other_are_recognised():
    saved = np.array([[alone(j) - in_group(j, (i, j)) if i != j else 0.0 for j in TASKS] for i in TASKS])
    share = saved / [alone(j) for j in TASKS]
    honest = Affinity(TASKS, share, share, np.ones((5, 5), np.int64))
    assert judge.pair_agreement(TABLE, honest) == pytest.approx(1)
    assert judge.pair_agreement(TABLE, Affinity(TASKS, -share, share, honest.batches)) == pytest.approx(-1)


def _affinities():
    """Scores under the names that verification starts from; they rank partitions at random."""
    rng = np.random.default_rng(0)
    some = {p: float(rng.normal()) for p in TABLE.partitions}
    return {judge.affinity_name("gram", norm, judge.EVERY): some for norm in ("raw", "self")}


def test_ranks_and_regrets_count_from_the_best():
    order = sorted((p for p in TABLE.partitions if len(p) == 3), key=TABLE.loss)
    found = [judge.standing(TABLE, p) for p in order]
    assert [each.rank for each in found] == list(range(1, 26))
    assert found[0].regret == 0
    assert np.mean([each.regret for each in found]) == pytest.approx(found[0].random_regret)


def test_verification_finds_the_best_of_what_it_is_given():
    some = list(TABLE.partitions[3:7])
    found = methods.halving(TABLE, some, by_energy=False)
    assert found.partition == min(some, key=TABLE.loss)


def test_verification_of_a_single_candidate_costs_nothing():
    assert methods.halving(TABLE, [(TASKS,)], by_energy=False) == methods.Choice((TASKS,), 0.0)


def test_verification_pays_once_for_a_group_that_two_candidates_share():
    first, a, b = TASKS[:1], (TASKS[1:3], TASKS[3:]), (TASKS[1:2], TASKS[2:])
    found = methods.halving(TABLE, [(first, *a), (first, *b)], by_energy=False)
    lost = b if found.partition == (first, *a) else a
    assert found.wasted == pytest.approx(sum(TABLE.costs[group] for group in lost) / 4)  # a round of four


matrices = st.integers(0, 2**32 - 1).map(lambda seed: np.random.default_rng(seed).normal(size=(5, 5)))
scales = st.lists(st.sampled_from([0.25, 0.5, 2.0, 8.0]), min_size=5, max_size=5)


@given(matrices, matrices, scales, scales)
def test_z_does_not_mind_how_fast_a_tasks_loss_falls(one, two, scale, shift):
    plain = methods.affinity([[sums(one)], [sums(two)]], "z")
    moved = methods.affinity([[sums(one * scale + shift)], [sums(two * scale + shift)]], "z")
    assert np.allclose(plain.mean, moved.mean)
    columns = np.where(np.eye(5, dtype=bool), 0.0, plain.mean).sum(0)
    assert np.allclose(columns, 0)


def measured_table(ways):
    """A table whose 4 merged and 4 later rounds were measured, a batch a round by each of two devices.

    The first entry of what was measured is the round's number.
    """
    made = merged_on(TABLE).trained
    whole = made["group", TASKS, "", 0, 1.0]
    merged = next(each for each in made.values() if each.what == "merged")

    def matrix(number):
        entries = np.random.default_rng(number).normal(size=(5, 5))
        entries[0, 0] = number
        return entries

    def measured(one, first):
        steps = tuple(
            msgspec.structs.replace(step, measured=(sums(matrix(first + at)),) * 2)
            for at, step in enumerate(one.steps)
        )
        return msgspec.structs.replace(one, steps=steps)

    kinds = [msgspec.structs.replace(measured(merged, 0), method=m, every=every) for m, every in ways]
    return dataclasses.replace(
        TABLE, trained=made | {each.name: each for each in (*kinds, measured(whole, 4))}
    )


def turned(table, change):
    """A table with other held-out losses of its groups; what was measured stays."""
    made = made_up(lambda t, g: change(in_group(t, g))).trained
    steps = {
        name: tuple(
            msgspec.structs.replace(new, measured=old.measured)
            for new, old in zip(each.steps, table.trained[name].steps, strict=True)
        )
        for name, each in made.items()
    }
    given = {name: msgspec.structs.replace(each, steps=steps[name]) for name, each in made.items()}
    return dataclasses.replace(table, trained={**table.trained, **given})


def test_windows_take_the_rounds_that_they_are_named_after():
    found = methods.windows(measured_table(WAYS))
    rounds = {name: [[int(each[0].wz[0]) for each in way] for way in ways] for name, ways in found.items()}
    assert rounds["every 10th"] == [[0, 1, 2, 3]]
    assert rounds["every 10th, later half"] == [[2, 3]]
    assert rounds["every 10th of every third round"] == [[0, 3], [1], [2]]
    assert rounds["lookahead, whole run (tag)"] == [list(range(8))]
    assert rounds["lookahead, later half after the merge"] == [[6, 7]]
    assert methods.batches(found["every 10th"][0]) == 8


def test_a_table_without_the_sparsest_way_to_measure_is_judged_as_well():
    assert set(methods.windows(measured_table(WAYS))) - set(methods.windows(measured_table(WAYS[:-1]))) == {
        "every 30th, one a round at least"
    }


def test_a_table_repeats_itself_and_not_its_opposite():
    one = measured_table(WAYS)
    itself, opposite = judge.alike(one, one), judge.alike(one, turned(one, lambda v: 9 - v))
    assert list(itself.ranks.values()) == pytest.approx([1, 1, 1])
    assert (itself.apart, itself.within, itself.same_picks) == (0, 0, itself.picks)
    assert list(opposite.ranks.values()) == pytest.approx([-1, -1, -1])
    assert opposite.same_picks < opposite.picks


def test_a_shift_of_all_losses_is_not_taken_for_another_order():
    one = measured_table(WAYS)
    found = judge.alike(one, turned(one, lambda v: 1.1 * v))
    assert found.apart == pytest.approx(10)
    assert found.within == pytest.approx(0, abs=1e-9)
    assert found.same_picks == found.picks


def test_an_effect_that_every_seed_shows_is_told_from_noise():
    def seed(number, effect):
        rng = np.random.default_rng(number)
        drawn = {(t, g): rng.normal(scale=0.05) for g in groups(TASKS) for t in g}
        return made_up(lambda t, g: effect * in_group(t, g) + 5 + number + drawn[t, g])

    real, chance = ([seed(number, effect) for number in range(3)] for effect in (1.0, 0.0))
    assert judge.noise(real, 3).p < 1e-6
    assert judge.noise(real, 3).agreement > judge.noise(chance, 3).agreement
    assert judge.noise(chance, 3).p > 1e-3


def test_correlation_with_what_does_not_vary_is_unknown():
    assert math.isnan(judge.spearman([1, 1, 1], [1, 2, 3]))


# --- the file -------------------------------------------------------------------------------------


def test_a_line_that_was_cut_short_is_dropped_and_the_rest_kept(tmp_path):
    path = tmp_path / "watch-1.jsonl"
    one, two = (trained("group", (task,), {task: 1.0}) for task in TASKS[:2])
    with closing(Book(path, SETTING)) as book:
        book.add(one)
    path.write_bytes(path.read_bytes() + msgspec.json.encode(two)[:-9])
    assert read(path) == (SETTING, [one], None)
    with closing(Book(path, SETTING)) as book:
        book.add(two)
    assert read(path) == (SETTING, [one, two], None)
    assert set(book.trained) == {one.name, two.name}


def test_a_file_of_other_settings_is_refused(tmp_path):
    Book(tmp_path / "f", SETTING).close()
    with pytest.raises(StudyRefused, match="other settings"):
        Book(tmp_path / "f", msgspec.structs.replace(SETTING, spec="[]"))


def test_two_processes_do_not_write_one_file(tmp_path):
    with closing(Book(tmp_path / "f", SETTING)), pytest.raises(StudyRefused, match="another process"):
        Book(tmp_path / "f", SETTING)


def test_a_file_of_something_else_is_refused(tmp_path):
    (tmp_path / "f").write_text("[1, 2]\n")
    with pytest.raises(StudyRefused, match="not a file of the study"):
        read(tmp_path / "f")


class Interrupted(Exception):
    """Stands for a kill."""


@pytest.mark.slow
def test_a_study_that_was_cut_short_goes_on_where_it_was(tmp_path):
    heard = []

    def say(text):
        heard.append(text)
        if len(heard) == 9:
            raise Interrupted

    with pytest.raises(Interrupted):
        train(tmp_path, "watch", 1, quick=True, say=say)
    _, before, _ = read(tmp_path / "watch-1.jsonl")
    train(tmp_path, "watch", 1, quick=True, say=heard.append)
    _, after, costs = read(tmp_path / "watch-1.jsonl")
    assert after[:9] == before
    assert len(heard) == len(after) == len(WAYS) + 31 + 3
    assert costs
    assert len(tables(tmp_path)["watch"]) == 1
