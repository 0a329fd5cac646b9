"""Two busy processes under a 1:3 quota of processor time are attributed 1:3 of the dynamic energy.

Processes, quotas and processor times are the kernel's; the meter plays a constant power, so that what is
tested is the attribution and nothing of a sensor.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time

import pytest
from quotas import quota

from mas_edge.profiling.cpu import host_time, process_cpu_ns
from mas_edge.profiling.ledger import Ledger, Use, charge, metered, rows
from mas_edge.profiling.meters import between, open_one

pytestmark = pytest.mark.slow


@contextlib.contextmanager
def busy_process(name: str, share: float):
    with quota(name, share) as door:
        process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
        try:
            door.write_text(str(process.pid))
            yield process.pid
        finally:
            process.kill()
            process.wait()


@pytest.fixture
def meter(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("t_s,power_w\n" + "".join(f"{k / 10},9\n" for k in range(11)))
    opened = open_one(f"replay:{path},idle_w=3")
    yield opened
    opened.close()


def test_two_processes_under_a_quota_of_one_to_three_have_one_to_three_of_the_joules(meter):
    with busy_process("mas-test-one", 0.15) as one, busy_process("mas-test-three", 0.45) as three:
        ledger, groups = Ledger(), {"one": one, "three": three}
        used_ns = {name: process_cpu_ns(pid) for name, pid in groups.items()}
        reading, busy_s = meter.read(), host_time().busy_s
        for _ in range(40):
            time.sleep(0.25)
            energy = between(reading, reading := meter.read())
            now_ns = {name: process_cpu_ns(pid) for name, pid in groups.items()}
            uses = tuple(
                Use(
                    job="j",
                    group=name,
                    round=0,
                    phase="step",
                    wall_s=energy.wall_s,
                    cpu_s=(now_ns[name] - used_ns[name]) / 1e9,
                )
                for name in groups
            )
            used_ns = now_ns
            piece = metered(energy, host_time().busy_s - busy_s, uses)
            busy_s += piece.busy_s
            ledger = charge(ledger, piece, meter.idle.power_w)
    first, second = rows(ledger)
    assert second.attributed_energy_j / first.attributed_energy_j == pytest.approx(3.0, rel=0.05)
    assert first.window_energy_j == second.window_energy_j
    parts_j = first.attributed_energy_j + second.attributed_energy_j
    assert parts_j + ledger.background.value_j + ledger.idle.value_j == pytest.approx(ledger.total.value_j)
    assert parts_j <= ledger.total.value_j - ledger.idle.value_j
