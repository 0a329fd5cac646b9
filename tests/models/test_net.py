from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch

from mas_edge.models import net as nets
from mas_edge.models import weights
from mas_edge.models.tasks import UnknownChoice, UnknownTask
from mas_edge.models.weights import WeightsRefused
from mas_edge.models.workloads.watch import workload

NAMES = [task.name for task in workload.tasks]
SOME = ("exercise", "jerk", "forecast")


def equal(one, other):
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def test_a_parts_first_weights_do_not_depend_on_the_other_tasks():
    whole = nets.state(nets.build(workload, "micro", NAMES, seed=5))
    for task in NAMES:
        alone = nets.state(nets.build(workload, "micro", [task], seed=5))
        assert equal(alone, {name: whole[name] for name in alone})


def test_first_weights_depend_on_the_seed_alone():
    first = nets.state(nets.build(workload, "micro", SOME, seed=5))
    torch.manual_seed(99)
    before = torch.get_rng_state()
    assert equal(first, nets.state(nets.build(workload, "micro", SOME[::-1], seed=5)))
    assert torch.equal(torch.get_rng_state(), before)
    assert not equal(first, nets.state(nets.build(workload, "micro", SOME, seed=6)))


@pytest.mark.parametrize("network", workload.networks)
@pytest.mark.parametrize("size", range(1, len(NAMES) + 1))
def test_every_subset_of_tasks_computes_outputs_of_the_tasks_shapes(network, size):
    inputs = torch.zeros(2, *workload.input_shape)
    for names in list(combinations(NAMES, size))[-2:]:  # also without the classification tasks
        outputs = nets.build(workload, network, names, seed=0)(inputs)
        assert {name: tuple(out.shape) for name, out in outputs.items()} == {
            task.name: (2, *task.shape) for task in workload.choose(names)
        }


def test_only_the_asked_for_decoders_are_computed():
    net = nets.build(workload, "micro", NAMES, seed=0)
    inputs = torch.randn(3, *workload.input_shape)
    some = net(inputs, ["jerk"])
    assert list(some) == ["jerk"]
    torch.testing.assert_close(some["jerk"], net(inputs)["jerk"])


def test_micro_has_at_most_150_thousand_parameters_with_all_tasks():
    assert nets.parameter_count(nets.build(workload, "micro", NAMES, seed=0)) <= 150_000


def test_small_with_three_tasks_weighs_what_other_frameworks_were_measured_with():
    count = nets.parameter_count(nets.build(workload, "small", ("exercise", "gravity", "jerk"), seed=0))
    assert 4 * count == pytest.approx(0.79e6, rel=0.01)


def test_splitting_and_merging_again_gives_the_same_network():
    net = nets.build(workload, "micro", SOME, seed=1)
    groups = [nets.split(net, names) for names in (("exercise",), ("jerk", "forecast"))]
    assert equal(nets.state(nets.merge(groups)), nets.state(net))


def test_a_split_network_is_a_copy():
    net = nets.build(workload, "micro", SOME, seed=1)
    before = nets.state(net)
    for parameter in nets.split(net, ["jerk"]).parameters():
        parameter.data.fill_(0)
    assert equal(nets.state(net), before)


def test_merging_averages_the_encoders_and_keeps_the_decoders():
    one, two = (nets.build(workload, "micro", [task], seed=seed) for task, seed in (("jerk", 1), ("side", 2)))
    merged = nets.state(nets.merge([one, two]))
    first, second = nets.state(one), nets.state(two)
    np.testing.assert_allclose(
        merged["encoder.stem.weight"],
        (first["encoder.stem.weight"] + second["encoder.stem.weight"]) / 2,
        rtol=1e-6,
    )
    assert all(np.array_equal(merged[name], first[name]) for name in first if name.startswith("decoder."))


def test_a_task_cannot_be_merged_twice_or_split_off_where_it_is_not():
    net = nets.build(workload, "micro", SOME, seed=1)
    with pytest.raises(ValueError, match="once"):
        nets.merge([net, net])
    with pytest.raises(UnknownTask, match=r"side.*exercise, jerk, forecast"):
        nets.split(net, ["side"])


def test_a_state_goes_through_a_file_and_back(tmp_path):
    net, other = (nets.build(workload, "micro", SOME, seed=seed) for seed in (1, 2))
    weights.save(tmp_path / "w", nets.state(net))
    nets.load(other, weights.load(tmp_path / "w"))
    assert equal(nets.state(other), nets.state(net))


def test_a_state_that_does_not_fit_changes_nothing():
    net = nets.build(workload, "micro", SOME, seed=1)
    before = nets.state(net)
    wrong = before | {"encoder.stem.weight": np.full_like(before["encoder.stem.weight"], np.nan)}
    with pytest.raises(WeightsRefused, match=r"encoder\.stem\.weight"):
        nets.load(net, wrong)
    with pytest.raises(WeightsRefused, match="missing"):
        nets.load(net, {name: before[name] for name in list(before)[1:]})
    assert equal(nets.state(net), before)


def test_a_state_holds_copies():
    net = nets.build(workload, "micro", SOME, seed=1)
    nets.state(net)["encoder.stem.weight"].fill(0)
    assert nets.state(net)["encoder.stem.weight"].any()


def test_an_unknown_network_is_refused_with_the_names_there_are():
    with pytest.raises(UnknownChoice, match=r"huge.*micro, small"):
        nets.build(workload, "huge", SOME, seed=0)


def test_no_output_depends_on_the_other_examples_of_the_batch():
    net = nets.build(workload, "micro", NAMES, seed=0).train()
    inputs = torch.randn(4, *workload.input_shape)
    together, alone = net(inputs), net(inputs[:1])
    for name in NAMES:
        torch.testing.assert_close(together[name][:1], alone[name], rtol=1e-4, atol=1e-5)
