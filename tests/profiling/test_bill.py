from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mas_edge.profiling.bill import billed, fleet, sum_spend
from mas_edge.profiling.drivers import replay
from mas_edge.profiling.ledger import Ledger, Slice, Use, charge, rows
from mas_edge.profiling.meters import DriverOptions, between
from mas_edge.wire.messages import Baseline, Machine, Profile, Rail, Refusal, Sampling, Sensor, Spend, Trace

SENSOR = Sensor(name="s", method="counter", scope="board", sensor_host="h", gain_u=0.05)


def spend(group="a", phase="step", joules=1.0, **more):
    fields = {"job": "j", "round": 0, "wall_s": 1.0, "cpu_s": 0.5, "attributed_energy_j": joules}
    return Spend(group=group, phase=phase, **{**fields, **more})


def profile(*spent, t_s=(), energy_j=(), sensor=SENSOR, idle_w=1.0):
    trace = Trace(
        t_ns=tuple(round(t * 1e9) for t in t_s), energy_j=tuple(energy_j), variance_j2=(0.0,) * len(t_s)
    )
    return Profile(rows=tuple(spent), sensor=sensor, idle_w=idle_w, trace=trace, shared_gpu_j=0.0)


def test_one_device_total_is_groups_idle_and_background():
    bill = fleet([("d", profile(spend(joules=3.0), t_s=(0, 4), energy_j=(100, 110)))])
    assert (bill.total_j, bill.idle_j, bill.attributed_j, bill.background_j) == (10, 4, 3, 3)
    assert bill.closing_error_j == pytest.approx(0, abs=1e-12)
    assert bill.total_u_j == pytest.approx(0.5)


def test_devices_with_sensors_of_their_own_add_up():
    other = msgspec.structs.replace(SENSOR, sensor_host="elsewhere")
    bill = fleet(
        [
            ("d", profile(t_s=(0, 1), energy_j=(0, 5))),
            ("e", profile(t_s=(0, 1), energy_j=(0, 7), sensor=other)),
        ]
    )
    assert (bill.total_j, bill.idle_j) == (12, 2)


def test_overlapping_traces_of_one_sensor_count_no_joule_twice():
    bill = fleet(
        [
            ("d", profile(t_s=(0, 6), energy_j=(50, 110))),
            ("e", profile(t_s=(4, 10), energy_j=(7, 67))),
            ("d", profile(t_s=(20, 21), energy_j=(300, 310))),
        ]
    )
    assert bill.total_j == pytest.approx(110)
    assert bill.idle_j == pytest.approx(11)
    (host,) = bill.hosts
    assert (host.metered_s, host.devices) == (11, ("d", "e"))


def test_a_step_without_energy_is_time_that_was_not_metered():
    bill = fleet([("d", profile(t_s=(0, 1, 5, 6), energy_j=(0, 10, 10, 20)))])
    assert (bill.total_j, bill.idle_j) == (20, 2)


def test_another_agents_trace_fills_what_the_first_did_not_meter():
    bill = fleet(
        [
            ("d", profile(t_s=(0, 1, 5, 6), energy_j=(0, 10, 10, 20))),
            ("e", profile(t_s=(1, 5), energy_j=(0, 40))),
        ]
    )
    assert (bill.total_j, bill.idle_j) == (60, 6)


def test_a_sum_with_an_unknown_part_is_unknown_and_flagged():
    cost = sum_spend(billed([("d", profile(spend(joules=1.0), spend(joules=None)))]))
    assert cost.attributed_energy_j is None
    assert cost.flags == ("partial",)


def test_a_device_without_a_meter_leaves_the_fleets_total_unknown():
    bill = fleet(
        [
            ("d", profile(spend(), t_s=(0, 1), energy_j=(0, 5))),
            ("e", profile(spend(joules=None), sensor=None, idle_w=None)),
        ]
    )
    assert bill.total_j is bill.background_j is None
    assert "partial" in bill.flags
    assert [host.total_j for host in bill.hosts] == [5, None]


def test_estimates_among_measurements_are_marked_as_mixed():
    estimated = msgspec.structs.replace(SENSOR, method="estimated", sensor_host="x")
    bill = fleet([("d", profile(spend())), ("e", profile(spend(), sensor=estimated))])
    assert bill.methods == ("counter", "estimated")
    assert "mixed" in bill.flags


def test_errors_of_rows_add_up_without_averaging_away():
    cost = sum_spend(billed([("d", profile(*[spend(attributed_u_j=0.3)] * 4))]))
    assert cost.attributed_u_j == pytest.approx(1.2)


def test_a_row_is_not_exclusive_where_a_neighbour_on_the_host_was_metered():
    pairs = [
        ("d", profile(spend(exclusive_fraction=1.0), t_s=(0, 10), energy_j=(0, 1))),
        ("e", profile(spend(exclusive_fraction=1.0), t_s=(6, 10), energy_j=(0, 1))),
    ]
    first, second = (row.spend for row in billed(pairs))
    assert (first.exclusive_fraction, second.exclusive_fraction) == pytest.approx((0.6, 0.0))
    assert first.flags == second.flags == ("overlapping",)


def test_what_groups_shared_of_a_gpu_is_neither_theirs_nor_background():
    told = msgspec.structs.replace(
        profile(spend(joules=3.0), t_s=(0, 4), energy_j=(100, 110)), shared_gpu_j=2.0
    )
    bill = fleet([("d", told)])
    assert (bill.total_j, bill.idle_j, bill.attributed_j, bill.shared_gpu_j, bill.background_j) == (
        10,
        4,
        3,
        2,
        1,
    )
    assert bill.closing_error_j == pytest.approx(0, abs=1e-12)


def test_what_a_gpu_used_unknown_leaves_the_background_unknown():
    unknown = msgspec.structs.replace(profile(spend(), t_s=(0, 4), energy_j=(0, 9)), shared_gpu_j=None)
    bill = fleet([("d", unknown)])
    assert bill.shared_gpu_j is bill.background_j is bill.closing_error_j is None
    assert bill.total_j == 9.0


def test_a_host_tells_what_its_joules_rest_on():
    early = msgspec.structs.replace(
        profile(t_s=(0, 1), energy_j=(0, 5)),
        machine=Machine(governor="performance", temperature_c=71.0, throttled=True),
        baseline=Baseline(power_w=2.0, u_w=0.1, how="measured"),
        sampling=Sampling(wall_s=1.0, samples=9, gaps=1),
        profiler_cpu_s=0.25,
        refused=(Refusal(sensor="rapl", reason="not here"),),
    )
    late = msgspec.structs.replace(
        profile(t_s=(2, 3), energy_j=(9, 12)),
        machine=Machine(governor="schedutil", temperature_c=50.0, throttled=False),
        sampling=Sampling(wall_s=1.0, samples=10, failed_reads=2),
        profiler_cpu_s=0.5,
        refused=(Refusal(sensor="rapl", reason="not here"),),
    )
    (host,) = fleet([("d", late), ("d", early)]).hosts
    assert (host.machine.governor, host.temperature_max_c, host.throttled) == ("schedutil", 71.0, True)
    assert host.baseline.power_w == 2.0
    assert host.sampling == Sampling(wall_s=2.0, samples=19, gaps=1, failed_reads=2)
    assert host.sampling.rate_hz == 9.5
    assert host.profiler_cpu_s == 0.75
    assert len(host.refused) == 1


def test_of_peaks_the_greatest_counts_and_rails_add_up():
    gpu = Rail(name="GPU", energy_j=2.0)
    cost = sum_spend(
        billed([("d", profile(spend(peak_w=9.0, rails=(gpu,)), spend(), spend(peak_w=4.0, rails=(gpu,))))])
    )
    assert cost.peak_w == 9.0
    assert cost.rails == (Rail(name="GPU", energy_j=4.0),)


def test_nothing_costs_nothing_that_is_known():
    bill = fleet([("d", Profile())])
    assert bill.total_j is None
    assert bill.hosts == ()


class Agent:
    """A virtual device: reads the shared meter when told and charges what it used to its ledger."""

    def __init__(self, path, t_ns, group):
        self.now_ns = t_ns
        options = DriverOptions(argument=f"{path},idle_w=1.5", clock_ns=lambda: self.now_ns)
        self.meter, self.group, self.ledger = replay.open_meter(options), group, Ledger()
        self.reading = self.meter.read()

    def work_until(self, t_ns, cpus, busy_cpus):
        wall_s = (t_ns - self.now_ns) / 1e9
        self.now_ns = t_ns
        energy = between(self.reading, reading := self.meter.read())
        used = Use(job="j", group=self.group, round=0, phase="step", wall_s=wall_s, cpu_s=cpus * wall_s)
        piece = Slice(
            t0_ns=energy.t0_ns,
            t1_ns=energy.t1_ns,
            energy_j=energy.energy_j,
            busy_s=busy_cpus * wall_s,
            uses=(used,),
        )
        self.ledger, self.reading = charge(self.ledger, piece, self.meter.idle.power_w), reading

    def profile(self):
        return Profile(
            rows=rows(self.ledger),
            sensor=self.meter.sensor,
            idle_w=self.meter.idle.power_w,
            trace=self.ledger.trace,
            shared_gpu_j=self.ledger.shared_gpu.value_j,
        )


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    path = tmp_path_factory.mktemp("recording") / "log.csv"
    powers = [2 + (7 * k) % 5 + (3 if k % 9 > 4 else 0) for k in range(97)]
    path.write_text("t_s,power_w\n" + "".join(f"{k / 10},{power}\n" for k, power in enumerate(powers)))
    return path


def virtual_fleet(recording, count, steps, *, end_s=30.0):
    """``count`` agents over the same 30 s, each reading at moments of its own, sharing one processor."""
    agents = [Agent(recording, 10**9, f"g{k}") for k in range(count)]
    for k, agent in enumerate(agents):
        moments = sorted(
            {round(1e9 + share * end_s * 1e9) for share in steps[k :: len(agents)] if 0 < share < 1}
        )
        for t_ns in (*moments, round((1 + end_s) * 1e9)):
            agent.work_until(t_ns, cpus=1.0 / count, busy_cpus=1.5)
    return fleet((f"d{k}", agent.profile()) for k, agent in enumerate(agents))


@given(st.lists(st.floats(0.01, 0.99), min_size=4, max_size=40))
def test_one_two_and_four_virtual_devices_on_one_replay_meter_report_the_same_fleet_total(recording, steps):
    bills = [virtual_fleet(recording, count, steps) for count in (1, 2, 4)]
    for bill in bills[1:]:
        assert bill.total_j == pytest.approx(bills[0].total_j, rel=1e-9)
        assert bill.idle_j == pytest.approx(bills[0].idle_j, rel=1e-9)
    for bill in bills:
        assert bill.attributed_j + bill.background_j + bill.idle_j == pytest.approx(bill.total_j, rel=1e-9)
        assert abs(bill.closing_error_j) <= 1e-9 * bill.total_j
    assert len({len(bill.hosts) for bill in bills}) == 1


def test_virtual_devices_that_come_and_go_cost_what_the_meter_counted(recording):
    windows_s = [(1, 9), (4, 15), (14, 22), (21.5, 31)]
    agents = [Agent(recording, round(start * 1e9), "a") for start, _ in windows_s]
    for agent, (start, end) in zip(agents, windows_s, strict=True):
        for k in range(1, 51):
            agent.work_until(round((start + (end - start) * k / 50) * 1e9), cpus=0.5, busy_cpus=1.5)
    bill = fleet((f"d{k}", agent.profile()) for k, agent in enumerate(agents))
    counted = Agent(recording, 10**9, "a")
    counted.work_until(31 * 10**9, cpus=0, busy_cpus=0)
    whole_j = counted.ledger.total.value_j
    # Three cuts fall between readings 0.2 s apart, where the power moves by up to 5 W.
    assert bill.total_j == pytest.approx(whole_j, abs=3 * 5 * 0.2)
    assert bill.hosts[0].metered_s == pytest.approx(30)


@given(st.permutations(range(5)))
def test_the_order_of_profiles_changes_no_sum(order):
    pairs = [
        (f"d{k}", profile(spend(joules=k / 3), t_s=(k, k + 1.5), energy_j=(k, k + 1 + k / 7)))
        for k in range(5)
    ]
    one, other = fleet(pairs), fleet(pairs[k] for k in order)
    assert (other.total_j, other.attributed_j) == (one.total_j, one.attributed_j)
