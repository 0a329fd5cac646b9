from __future__ import annotations

from dataclasses import dataclass, field

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mas_edge.edge_agent import train
from mas_edge.models import net as nets
from mas_edge.models.evaluate import evaluate
from mas_edge.models.net import MultiTaskNet
from mas_edge.models.tasks import Batch, Source, Task, find
from mas_edge.models.workloads.watch import workload
from mas_edge.wire.messages import Fit, Key, Training

METHODS = ("gram", "gram-full", "lookahead", "lookahead-momentum")
ONE = Task("one", "", "mse", "mae", (2,), np.zeros(1))
TWO = Task("two", "", "cross-entropy", "accuracy", (3,), np.zeros(3))
KEY = Key(job="j", group="g", round=0, attempt=0, device="d")
PLAIN = Training(workload="watch", network="micro", rounds=10, epochs=1, batch=8, lr=0.1, seed=7)


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    threads = torch.get_num_threads()
    train.use_device("cpu", threads=1)
    yield
    torch.set_num_threads(threads)
    torch.set_deterministic_debug_mode("default")


@dataclass
class Points:
    """Twenty random examples of the toy tasks, with masks."""

    valid: dict[str, np.ndarray] = field(default_factory=dict)
    labels: frozenset[str] = frozenset({"one", "two"})
    size: int = 20

    def __len__(self):
        return self.size

    def batch(self, index):
        rng = np.random.default_rng(1)
        x = rng.normal(size=(self.size, 3)).astype(np.float32)
        targets = {"one": x[:, :2] * 2, "two": (x[:, 0] > 0).astype(np.int64) + (x[:, 1] > 0)}
        return Batch(
            x[index],
            {name: target[index] for name, target in targets.items() if name in self.labels},
            {name: mask[index] for name, mask in self.valid.items()},
        )


class Noisy(nn.Module):
    """An encoder with running statistics and dropout."""

    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.2))
        self.last_block = nn.Linear(8, 4)

    def forward(self, x):
        return self.last_block(self.first(x))


class Quiet(nn.Module):
    """An encoder without either."""

    def __init__(self):
        super().__init__()
        self.last_block = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 4))

    def forward(self, x):
        return self.last_block(x)


def toy(encoder=Quiet):
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(11)
        return MultiTaskNet(encoder(), {"one": nn.Linear(4, 2), "two": nn.Linear(4, 3)})


def run(net, data, training=PLAIN, **change):
    arguments = {
        "tasks": (ONE, TWO),
        "training": training,
        "key": KEY,
        "measure": False,
        "enter": lambda _: None,
        "stop": lambda: False,
        "beat": lambda *_: None,
    }
    return train.local_round(net, data, **arguments | change)


def but(**change):
    return msgspec.structs.replace(PLAIN, **change)


def equal(one, other):
    return all(
        torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    )


# --- the optimiser -------------------------------------------------------------------------------


@pytest.mark.parametrize(("momentum", "decay"), [(0.9, 1e-4), (0.0, 0.0), (0.5, 0.1), (0.9, 0.0)])
def test_sgd_computes_the_same_bits_as_torchs(momentum, decay):
    ours, theirs = toy(), toy()
    sgd = train.SGD(list(ours.parameters()), momentum=momentum, weight_decay=decay)
    reference = torch.optim.SGD(
        theirs.parameters(), lr=1.0, momentum=momentum, weight_decay=decay, fused=True
    )
    for step in range(6):
        lr = 0.1 / (step + 1)
        reference.param_groups[0]["lr"] = lr
        generator = torch.Generator().manual_seed(step)
        for here, there in zip(ours.parameters(), theirs.parameters(), strict=True):
            # now and then a parameter has no gradient: it must be left alone; torch cannot begin so
            missing = step and torch.rand((), generator=generator) < 0.3
            gradient = torch.randn(here.shape, generator=generator)
            here.grad = None if missing else gradient.clone()
            there.grad = None if missing else gradient.clone()
        sgd.step(lr)
        reference.step()
        assert equal(ours, theirs)
    assert all(parameter.grad is None for parameter in ours.parameters())


def test_fedprox_draws_towards_the_received_weights_as_computed_by_hand():
    """Two steps on one weight: d = g + mu (w - w0) + decay w; v = m v + d; w -= lr v."""
    weight = nn.Parameter(torch.tensor([2.0]))
    sgd = train.SGD([weight], momentum=0.5, weight_decay=0.1, prox_mu=3.0)
    weight.grad = torch.tensor([4.0])
    sgd.step(0.1)  # d = v = 4 + 3 * 0 + 0.2 = 4.2
    assert weight.item() == pytest.approx(2.0 - 0.42)
    weight.grad = torch.tensor([4.0])
    sgd.step(0.1)  # d = 4 + 3 * (-0.42) + 0.158 = 2.898; v = 2.1 + 2.898 = 4.998
    assert weight.item() == pytest.approx(1.58 - 0.4998)


def test_fedprox_without_a_pull_is_the_same_round_to_the_bit_and_with_one_goes_less_far():
    nets_, start = [toy() for _ in range(4)], toy()
    run(nets_[0], Points(), but(epochs=3, lr=0.02))
    for net, mu in zip(nets_[1:], (0.0, 1.0, 10.0), strict=True):
        run(net, Points(), but(epochs=3, lr=0.02, prox_mu=mu))
    assert equal(nets_[0], nets_[1])
    far = [
        sum(
            float((p - q).detach().square().sum())
            for p, q in zip(net.parameters(), start.parameters(), strict=True)
        )
        for net in nets_[1:]
    ]
    assert far[0] > far[1] > far[2] > 0


def test_a_parameter_whose_first_gradient_comes_late_begins_then():
    late, fresh = (torch.ones(5, requires_grad=True) for _ in range(2))
    other = torch.ones(3, requires_grad=True)
    one, two = (train.SGD(ps, momentum=0.9, weight_decay=0.1) for ps in ([other, late], [fresh]))
    other.grad = torch.ones(3)
    one.step(0.1)
    assert torch.equal(late, torch.ones(5))
    for here in (late, fresh):
        here.grad = torch.arange(5.0)
    one.step(0.1)
    two.step(0.1)
    assert torch.equal(late, fresh)


def test_a_round_equals_plain_sgd_written_out():
    data, training = Points(), but(epochs=2, weight_decay=0.01)
    net, other = toy(), toy()
    run(net, data, training)
    optimiser = torch.optim.SGD(other.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    order = np.random.default_rng(train.random_seed(training, KEY))
    for _ in range(2):
        indices = order.permutation(20)
        for start in (0, 8, 16):
            batch = data.batch(indices[start : start + 8])
            outputs = other(torch.tensor(batch.inputs))
            one = (outputs["one"] - torch.tensor(batch.targets["one"])).square().mean()
            two = nn.functional.cross_entropy(outputs["two"], torch.tensor(batch.targets["two"]))
            optimiser.zero_grad()
            (one + two).backward()
            optimiser.step()
    for here, there in zip(net.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(here, there, rtol=1e-4, atol=1e-6)


@given(st.integers(1, 200), st.data())
def test_one_schedule_runs_over_the_whole_job(rounds, data):
    r = data.draw(st.integers(0, rounds - 1))
    training = but(rounds=rounds, lr=0.2, lr_power=0.9)
    assert train.learning_rate(training, r) == pytest.approx(0.2 * (1 - r / rounds) ** 0.9)
    assert train.learning_rate(training, 0) == 0.2
    assert train.learning_rate(training, rounds - 1) > 0


@pytest.mark.parametrize("scale", ["one", "rsqrt-tasks"])
def test_the_encoders_gradient_is_scaled_as_asked_and_the_decoders_is_not(scale):
    data = Points(size=8)
    start, net = toy(), toy()
    run(net, data, but(encoder_gradient_scale=scale, weight_decay=0.0))  # one batch, one step
    reference = toy()
    run(reference, data, but(weight_decay=0.0))
    factor = {"one": 1.0, "rsqrt-tasks": 2**-0.5}[scale]
    for name, weight in net.named_parameters():
        before, plain = start.get_parameter(name), reference.get_parameter(name)
        expected = (plain - before) * (factor if name.startswith("encoder.") else 1.0)
        torch.testing.assert_close(weight - before, expected, rtol=1e-4, atol=1e-6)


# --- determinism and measuring -------------------------------------------------------------------


def test_the_same_assignment_gives_the_same_bits_and_a_retry_repeats_it():
    nets_ = [toy(Noisy) for _ in range(3)]
    keys = (KEY, msgspec.structs.replace(KEY, attempt=5), KEY)
    results = [run(net, Points(), key=key) for net, key in zip(nets_, keys, strict=True)]
    assert equal(nets_[0], nets_[1])
    assert equal(nets_[0], nets_[2])
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize("change", [{"job": "k"}, {"group": "h"}, {"round": 1}, {"device": "e"}])
def test_other_jobs_groups_rounds_and_devices_draw_other_numbers(change):
    other = msgspec.structs.replace(KEY, **change)
    assert train.random_seed(PLAIN, KEY) != train.random_seed(PLAIN, other)
    assert train.random_seed(PLAIN, KEY) != train.random_seed(but(seed=8), KEY)


def test_the_callers_random_state_is_left_alone():
    state = torch.get_rng_state()
    run(toy(Noisy), Points(), measure=True)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("scale", ["one", "rsqrt-tasks"])
@pytest.mark.parametrize("method", METHODS)
def test_training_with_and_without_measurement_ends_in_identical_weights(method, scale):
    training = but(affinity=method, affinity_every=1, epochs=2, encoder_gradient_scale=scale)
    plain, measured = toy(Noisy), toy(Noisy)
    without = run(plain, Points(), training)
    with_ = run(measured, Points(), training, measure=True)
    assert equal(plain, measured)  # running statistics and dropout included
    assert without.losses == with_.losses
    assert without.affinity is None
    assert with_.affinity is not None
    assert with_.affinity.batches == (6, 6, 6, 6)


def test_lookahead_momentum_sees_the_buffers_of_this_round():
    results = [
        run(toy(), Points(), but(affinity=method, affinity_every=1), measure=True).affinity
        for method in ("lookahead", "lookahead-momentum")
    ]
    assert results[0].wz != results[1].wz
    first = [
        run(toy(), Points(size=8), but(affinity=method), measure=True).affinity.wz
        for method in ("lookahead", "lookahead-momentum")
    ]
    assert first[0] == first[1]  # in a round's first step the momentum is zero


@given(st.integers(0, 50), st.integers(1, 40), st.integers(1, 40))
def test_every_rho_th_batch_of_the_job_is_measured_and_one_a_round_at_least(round_, per_round, every):
    found = train.measured_batches(round_, per_round, every)
    due = {
        n - round_ * per_round for n in range(0, (round_ + 1) * per_round, every) if n >= round_ * per_round
    }
    assert found == (due or {0})


def test_a_measured_batch_weighs_its_examples():
    affinity = run(toy(), Points(), but(affinity_every=1), measure=True).affinity
    assert affinity.tasks == ("one", "two")
    assert affinity.w == (20.0,) * 4
    assert affinity.ww == (8.0**2 + 8**2 + 4**2,) * 4


# --- masks, micro-batches, missing labels --------------------------------------------------------


@settings(max_examples=25)
@given(st.integers(1, 8), st.integers(0, 2**32 - 1))
def test_cutting_into_micro_batches_with_uneven_masks_changes_the_update_by_rounding_only(micro, seed):
    rng = np.random.default_rng(seed)
    valid = {"one": rng.random((20, 2)) < 0.4, "two": rng.random(20) < 0.3}
    whole, cut = toy(), toy()
    expected = run(whole, Points(valid))
    found = run(cut, Points(valid), but(micro_batch=micro))
    for here, there in zip(cut.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(here, there, rtol=1e-4, atol=1e-6)
    assert [score.count for score in found.losses] == [score.count for score in expected.losses]


class Holey:
    """The first examples of a data set, with labels missing at random, unevenly."""

    def __init__(self, data, size, seed):
        self.labels, self._data, self._size, self._seed = data.labels, data, size, seed

    def __len__(self):
        return self._size

    def batch(self, index):
        given = self._data.batch(index)
        rng = np.random.default_rng(self._seed)
        kept = {name: rng.random(self._size) < rng.random() for name in sorted(given.targets)}
        valid = dict(given.valid)
        for name, mask in kept.items():
            rows = mask[index].reshape(-1, *(1,) * (valid[name].ndim - 1 if name in valid else 0))
            valid[name] = valid[name] & rows if name in valid else rows
        return Batch(given.inputs, given.targets, valid)


@pytest.mark.parametrize("micro", [1, 5, 16])
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("name", ["watch", "buildings"])
def test_cutting_real_batches_with_uneven_masks_changes_update_and_affinity_by_rounding_only(
    name, checkpointing, micro
):
    found = find(name)
    tasks = found.choose(None)
    data = Holey(found.dataset(Source(found.clients[:2]), "train", 0.2), 32, seed=5)
    training = but(workload=name, batch=16, affinity_every=1)
    results = []
    for way in (Fit(micro_batch=16), Fit(micro_batch=micro, checkpointing=checkpointing)):
        net = nets.build(found, "micro", [task.name for task in tasks], seed=0)
        start = nets.state(net)
        trained = run(net, data, training, tasks=tasks, measure=True, fit=way)
        results.append(({n: a - start[n] for n, a in nets.state(net).items()}, trained))
    (whole, whole_round), (cut, cut_round) = results
    for key, moved in whole.items():
        assert np.abs(cut[key] - moved).max() <= 1e-4 * np.abs(moved).max() + 1e-8, key
    assert [s.count for s in cut_round.losses] == [s.count for s in whole_round.losses]
    for field_ in ("batches", "w", "ww"):
        assert getattr(cut_round.affinity, field_) == getattr(whole_round.affinity, field_)
    scale = np.abs(whole_round.affinity.wz).max()
    np.testing.assert_allclose(cut_round.affinity.wz, whole_round.affinity.wz, rtol=1e-3, atol=1e-4 * scale)
    if micro == 16:
        assert all(np.array_equal(cut[key], moved) for key, moved in whole.items())  # not a bit
        assert cut_round == whole_round


def test_micro_batches_of_a_network_with_batchnorm_are_refused_before_anything_is_trained():
    net, start = toy(Noisy), toy(Noisy)
    with pytest.raises(train.TrainingBroke, match="micro-batches of 4 instead of 8"):
        run(net, Points(), but(micro_batch=4))
    assert equal(net, start)
    run(net, Points(), but(micro_batch=8))  # whole batches
    assert not equal(net, start)
    run(toy(Noisy), Points(), but(micro_batch=4, cut_statistics=True))
    assert train.cuts_statistics(net, PLAIN, 4)
    assert not train.cuts_statistics(net, PLAIN, 8)
    assert not train.cuts_statistics(toy(), PLAIN, 4)


@pytest.mark.parametrize("method", METHODS)
def test_computing_activations_twice_changes_no_bit(method):
    training = but(affinity=method, affinity_every=1, epochs=2)
    plain, forgetful = toy(Noisy), toy(Noisy)
    once = run(plain, Points(), training, measure=True)
    twice = run(forgetful, Points(), training, measure=True, fit=Fit(micro_batch=8, checkpointing=True))
    assert equal(plain, forgetful)
    assert once == twice


def test_gram_of_a_batch_that_is_cut_is_that_of_the_whole_batch():
    found = [run(toy(), Points(size=8), how, measure=True) for how in (PLAIN, but(micro_batch=3))]
    whole, cut = (trained.affinity for trained in found)
    assert cut.w == whole.w == (8.0,) * 4
    np.testing.assert_allclose(cut.wz, whole.wz, rtol=1e-4)


def test_lookahead_of_a_batch_that_is_cut_is_that_of_its_first_part():
    training = but(micro_batch=3, affinity="lookahead")
    affinity = run(toy(), Points(size=8), training, measure=True).affinity
    assert affinity.w == (3.0,) * 4


def test_scores_count_the_examples_that_had_the_label():
    valid = {"two": np.arange(20) < 5}
    trained = run(toy(), Points(valid), but(epochs=3))
    assert trained.examples == 60
    assert [(score.task, score.count) for score in trained.losses] == [("one", 60), ("two", 15)]
    assert all(score.loss_sum > 0 for score in trained.losses)


def test_a_task_without_labels_here_keeps_its_decoder_and_has_no_score():
    net, start = toy(), toy()
    trained = run(net, Points(labels=frozenset({"one"})), measure=True)
    assert equal(net.decoder["two"], start.decoder["two"])
    assert not equal(net.encoder, start.encoder)
    assert [score.task for score in trained.losses] == ["one"]
    assert trained.affinity.batches == (1, 0, 0, 0)


def test_batches_without_any_label_change_nothing_and_are_never_nan():
    none = {"one": np.zeros((20, 2), bool), "two": np.zeros(20, bool)}
    net, start = toy(), toy()
    trained = run(net, Points(none), but(weight_decay=0.0), measure=True)
    assert equal(net, start)
    assert [(score.count, score.loss_sum) for score in trained.losses] == [(0, 0), (0, 0)]
    assert trained.affinity.batches == (0, 0, 0, 0)


def test_no_examples_train_nothing():
    net, start = toy(), toy()
    assert run(net, Points(size=0), measure=True).examples == 0
    assert equal(net, start)


# --- the caller's hooks --------------------------------------------------------------------------


def test_phases_are_entered_in_order_and_beats_count_steps():
    phases, beats = [], []
    run(toy(), Points(), measure=True, enter=phases.append, beat=lambda *at: beats.append(at))
    step = ["load", "forward", "backward", "step"]
    assert phases == ["load", "forward", "affinity", "backward", "step", *step, *step]
    assert beats == [(1, 3), (2, 3), (3, 3)]


def test_it_stops_before_the_next_micro_batch():
    asked = []

    def stop():
        asked.append(None)
        return len(asked) == 3

    with pytest.raises(train.Cancelled):
        run(toy(), Points(), but(micro_batch=4), stop=stop)
    assert len(asked) == 3


def test_a_loss_that_is_not_finite_names_task_and_batch():
    with pytest.raises(train.Diverged, match=r"'one'.*batch \d+; lower the lr"):
        run(toy(), Points(), but(lr=1e30, epochs=5))


def test_a_gpu_that_is_not_there_is_refused():
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert train.use_device("auto", threads=1) == torch.device("cpu")
    with pytest.raises(train.TrainingBroke, match="no GPU"):
        train.use_device("cuda", threads=1)


# --- on the watch data ---------------------------------------------------------------------------


class First:
    """The first windows of a data set."""

    def __init__(self, data, size):
        self.labels = data.labels
        self._data, self._size = data, size

    def __len__(self):
        return self._size

    def batch(self, index):
        return self._data.batch(index)


@pytest.mark.parametrize("network", workload.networks)
@pytest.mark.parametrize("size", range(1, len(workload.tasks) + 1))
def test_every_network_trains_every_number_of_tasks_and_exports_its_state(network, size):
    tasks = workload.tasks[-size:]
    data = First(workload.dataset(Source(("3",)), "train", 0.2), 8)
    net = nets.build(workload, network, [task.name for task in tasks], seed=0)
    before = nets.state(net)
    trained = run(net, data, tasks=tasks, measure=True)
    after = nets.state(net)
    assert all(np.isfinite(array).all() for array in after.values())
    assert all(not np.array_equal(array, before[name]) for name, array in after.items())
    assert trained.affinity.batches == (1,) * size**2
    nets.load(net, after)


def test_a_short_training_beats_the_constant_predictor_on_every_task():
    tasks = workload.choose(None)
    seen = Source(("3", "4"))
    net = nets.build(workload, "micro", [task.name for task in tasks], seed=0)
    training = but(epochs=4, batch=32, lr=0.08)
    run(net, workload.dataset(seen, "train", 0.2), training, tasks=tasks)
    held_out = evaluate(net, workload.dataset(seen, "held-out", 0.2), tasks, 256)
    for score in held_out:
        assert score.loss_sum < 0.9 * score.constant_loss_sum, score.task
