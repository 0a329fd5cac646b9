"""Affinity on networks small enough for paper: a scalar encoder a, decoders d_j, y_j = d_j a x."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import nn

from mas_edge.models import affinity, losses
from mas_edge.models.affinity import Measured, Moment, Tally, measure
from mas_edge.models.net import MultiTaskNet
from mas_edge.models.tasks import Batch, Task

METHODS = ("gram", "gram-full", "lookahead", "lookahead-momentum")
ONE = Task("one", "", "mse", "mae", (1,), np.zeros(1))
TWO = Task("two", "", "mse", "mae", (1,), np.zeros(1))


class Scalar(nn.Module):
    """x -> a x, in one block."""

    def __init__(self, a=1.0):
        super().__init__()
        self.last_block = nn.Linear(1, 1, bias=False)
        nn.init.constant_(self.last_block.weight, a)

    def forward(self, x):
        return self.last_block(x)


def scalar_net(a=1.0, d1=1.0, d2=2.0):
    return MultiTaskNet(Scalar(a), {"one": Scalar(d1), "two": Scalar(d2)})


def moment(*, lr=0.1, weight_decay=0.0, momentum=0.0, velocity=None):
    return Moment(lr, weight_decay, momentum, velocity or {}, torch.get_rng_state())


def measured(method, net, batch, when=None, tasks=(ONE, TWO)):
    given_ = losses.examples(batch, tasks)
    when = when or moment()
    return measure(method, net, given_, net(given_.inputs, given_.labels), tasks, when)


def points(y1, y2, x=(1.0,), valid=None):
    column = lambda values: np.array(values, np.float32)[:, None]  # noqa: E731
    return Batch(column(x), {"one": column(y1), "two": column(y2)}, valid or {})


# With a = 1, d = (1, 2), x = 1, y = (0, 1): outputs 1 and 2, losses 1 and 1, dL/da = 2 and 4.


@pytest.mark.parametrize("method", ["gram", "gram-full"])
def test_gram_equals_the_hand_calculation(method):
    found = measured(method, scalar_net(), points([0.0], [1.0]))
    np.testing.assert_allclose(found.z, [[4, 8], [8, 16]], rtol=1e-6)
    np.testing.assert_array_equal(found.w, np.ones((2, 2)))


def test_lookahead_equals_the_hand_calculation():
    # one: a = 0.8, losses 0.64 and 0.36; two: a = 0.6, losses 0.36 and 0.04; over eta = 0.1
    found = measured("lookahead", scalar_net(), points([0.0], [1.0]))
    np.testing.assert_allclose(found.z, [[3.6, 6.4], [6.4, 9.6]], rtol=1e-5)


def test_lookahead_includes_weight_decay():
    # wd a = 0.5: steps of 2.5 and 4.5, a = 0.75 and 0.55
    found = measured("lookahead", scalar_net(), points([0.0], [1.0]), moment(weight_decay=0.5))
    np.testing.assert_allclose(found.z, [[4.375, 7.5], [6.975, 9.9]], rtol=1e-5)


def test_lookahead_momentum_steps_with_the_optimisers_momentum():
    # mu v = 0.5 * 2: steps of 3 and 5, a = 0.7 and 0.5
    velocity = {"last_block.weight": torch.full((1, 1), 2.0)}
    when = moment(momentum=0.5, velocity=velocity)
    found = measured("lookahead-momentum", scalar_net(), points([0.0], [1.0]), when)
    np.testing.assert_allclose(found.z, [[5.1, 8.4], [7.5, 10.0]], rtol=1e-5)
    plain = measured("lookahead", scalar_net(), points([0.0], [1.0]), when)
    np.testing.assert_allclose(plain.z, [[3.6, 6.4], [6.4, 9.6]], rtol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_a_harmful_step_has_a_negative_affinity(method):
    # y2 = 3: what lowers output one moves output two away from its target, dL2/da = -4
    found = measured(method, scalar_net(), points([0.0], [3.0]))
    assert found.z[0, 1] < 0
    assert found.z[1, 0] < 0
    assert found.w[0, 1] == found.w[1, 0] == 1


@pytest.mark.parametrize("method", METHODS)
def test_a_zero_loss_makes_its_column_missing_and_no_other(method):
    found = measured(method, scalar_net(), points([1.0], [1.0]))  # one is already right
    np.testing.assert_array_equal(np.isnan(found.z), [[True, False], [True, False]])
    np.testing.assert_array_equal(found.w, [[0, 1], [0, 1]])


@pytest.mark.parametrize("method", METHODS)
def test_a_loss_that_is_not_finite_poisons_nothing_else(method):
    found = measured(method, scalar_net(d2=float("inf")), points([0.0], [1.0]))
    assert np.isfinite(found.z[0, 0])
    assert np.isnan(found.z[0, 1])
    assert found.w[0, 1] == 0


@pytest.mark.parametrize("method", METHODS)
def test_an_all_invalid_task_is_missing_for_the_batch(method):
    batch = points([0.0, 0.0], [1.0, 1.0], x=(1.0, 2.0), valid={"two": np.zeros((2, 1), bool)})
    found = measured(method, scalar_net(), batch)
    np.testing.assert_array_equal(np.isnan(found.z), [[False, True], [True, True]])
    np.testing.assert_array_equal(found.w, [[2, 0], [0, 0]])


def test_a_task_without_labels_is_missing_and_keeps_its_place():
    batch = Batch(np.ones((1, 1), np.float32), {"two": np.ones((1, 1), np.float32)}, {})
    found = measured("lookahead", scalar_net(), batch)
    np.testing.assert_array_equal(np.isfinite(found.z), [[False, False], [False, True]])


def test_an_entry_weighs_the_examples_that_are_valid_for_both():
    valid = {"one": np.array([1, 1, 1, 0], bool), "two": np.array([0, 1, 1, 1], bool)}
    batch = points([0.0] * 4, [1.0] * 4, x=(1.0, 2.0, 3.0, 4.0), valid=valid)
    np.testing.assert_array_equal(measured("gram", scalar_net(), batch).w, [[3, 2], [2, 3]])


class Noisy(nn.Module):
    """An encoder with running statistics and dropout: everything that a careless measurement disturbs."""

    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.3))
        self.last_block = nn.Linear(8, 4)

    def forward(self, x):
        return self.last_block(self.first(x))


def noisy_case():
    torch.manual_seed(3)
    net = MultiTaskNet(
        Noisy(), {"one": nn.Linear(4, 1), "two": nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 1))}
    )
    rng = np.random.default_rng(0)
    draw = lambda width: rng.normal(size=(16, width)).astype(np.float32)  # noqa: E731
    return net.train(), losses.examples(Batch(draw(3), {"one": draw(1), "two": draw(1)}, {}), (ONE, TWO))


@pytest.mark.parametrize("method", METHODS)
def test_measuring_leaves_weights_buffers_gradients_and_random_state_untouched(method):
    net, batch = noisy_case()
    when = moment(lr=0.1, weight_decay=0.1, momentum=0.9)
    outputs = net(batch.inputs)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    rng_state = torch.get_rng_state()
    measure(method, net, batch, outputs, (ONE, TWO), when)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert all(parameter.grad is None for parameter in net.parameters())
    assert torch.equal(torch.get_rng_state(), rng_state)
    assert net.training
    sum(output.sum() for output in outputs.values()).backward()  # the caller's graph is still there


def test_lookahead_tends_to_the_whole_encoders_gram_as_the_step_gets_small():
    net, batch = noisy_case()
    net = net.double()
    batch = losses.Examples(
        batch.inputs.double(),
        {n: losses.Labels(x.target.double(), x.mask, x.valid) for n, x in batch.labels.items()},
    )
    when = moment(lr=1e-6)
    outputs = net(batch.inputs)
    ahead = measure("lookahead", net, batch, outputs, (ONE, TWO), when)
    full = measure("gram-full", net, batch, outputs, (ONE, TWO), when)
    np.testing.assert_allclose(ahead.z, full.z, rtol=1e-4, atol=1e-8)  # equal dropout masks, too


def test_gram_looks_at_the_last_block_alone():
    net, batch = noisy_case()
    outputs = net(batch.inputs)
    last = measure("gram", net, batch, outputs, (ONE, TWO), moment()).z
    full = measure("gram-full", net, batch, outputs, (ONE, TWO), moment()).z
    assert full[0, 0] > last[0, 0] > 0  # a longer gradient has the shorter one as a part


weights = st.floats(0, 64).map(lambda w: float(int(w)))
matrices = hnp.arrays(np.float64, (2, 2), elements=st.floats(-1e3, 1e3))


@given(st.lists(st.tuples(matrices, hnp.arrays(np.float64, (2, 2), elements=weights)), max_size=6))
def test_a_tally_is_the_weighted_sums_of_what_was_measured(batches):
    tally = Tally(("one", "two"))
    for z, w in batches:
        tally.add(Measured(np.where(w > 0, z, np.nan), w))
    sums = tally.sums()
    for at in range(4):
        entries = [(w.flat[at], z.flat[at]) for z, w in batches if w.flat[at] > 0]
        assert sums.batches[at] == len(entries)
        assert sums.w[at] == pytest.approx(sum(w for w, _ in entries))
        assert sums.ww[at] == pytest.approx(sum(w * w for w, _ in entries))
        assert sums.wz[at] == pytest.approx(sum(w * z for w, z in entries))
        assert sums.wzz[at] == pytest.approx(sum(w * z * z for w, z in entries))


def test_a_batch_of_many_examples_weighs_more_than_one_of_few():
    tally = Tally(("one",))
    tally.add(Measured(np.array([[1.0]]), np.array([[30.0]])))
    tally.add(Measured(np.array([[5.0]]), np.array([[10.0]])))
    sums = tally.sums()
    assert sums.wz[0] / sums.w[0] == 2.0


def test_two_networks_in_one_process_do_not_touch_each_other():
    alone = measured("lookahead", scalar_net(), points([0.0], [1.0])).z
    other = scalar_net(a=-2.0)
    given_ = losses.examples(points([0.0], [1.0]), (ONE, TWO))
    waiting = other(given_.inputs)  # the other one's graph is open meanwhile
    np.testing.assert_array_equal(measured("lookahead", scalar_net(), points([0.0], [1.0])).z, alone)
    assert np.isfinite(affinity.measure("gram", other, given_, waiting, (ONE, TWO), moment()).z).all()
