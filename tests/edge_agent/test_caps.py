"""What the agent may take: read from trees as kernels show them, and held to by this machine's kernel."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mas_edge.edge_agent.caps import CapsConfig, Fence, in_words, threads
from mas_edge.wire.messages import Caps

MB = 1 << 20
V1 = {
    "proc/self/mountinfo": """
        35 31 0:32 / /sys/fs/cgroup/memory rw shared:9 - cgroup cgroup rw,memory
        36 31 0:33 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
        41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
        12 1 8:1 / / rw - ext4 /dev/sda1 rw
    """,
    "proc/7/cgroup": """
        4:memory:/system.slice/a.service
        2:cpu,cpuacct:/system.slice
        0::/system.slice/a.service
    """,
    "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712",
    "sys/fs/cgroup/memory/system.slice/memory.limit_in_bytes": str(900 * MB),
    "sys/fs/cgroup/memory/system.slice/a.service/memory.limit_in_bytes": str(300 * MB),
    "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1",
    "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000",
    "sys/fs/cgroup/cpu,cpuacct/system.slice/cpu.cfs_quota_us": "150000",
    "sys/fs/cgroup/cpu,cpuacct/system.slice/cpu.cfs_period_us": "100000",
    "sys/fs/cgroup/unified/cgroup.controllers": "",
    "sys/fs/cgroup/unified/system.slice/a.service/cgroup.procs": "7",
}
V2 = {
    "proc/self/mountinfo": "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n",
    "proc/7/cgroup": "0::/system.slice/a.service\n",
    "sys/fs/cgroup/cgroup.controllers": "cpu io memory pids",
    "sys/fs/cgroup/system.slice/memory.max": str(200 * MB),
    "sys/fs/cgroup/system.slice/cpu.max": "max 100000",
    "sys/fs/cgroup/system.slice/a.service/memory.max": "max",
    "sys/fs/cgroup/system.slice/a.service/memory.high": str(400 * MB),
    "sys/fs/cgroup/system.slice/a.service/cpu.max": "50000 100000",
}


def tree(root, files) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text).lstrip("\n"))
    return root


def fence(root, files) -> Fence:
    return Fence(tree(root, files), pid=7)


# --- what is in force already ---------------------------------------------------------------------


def test_the_units_own_limits_are_found_on_v1(tmp_path):
    caps = fence(tmp_path, V1).set(CapsConfig())
    assert caps == Caps(
        memory_bytes=300 * MB,
        memory_source="memory.limit_in_bytes of /system.slice/a.service",
        cpus=1.5,
        cpus_source="cpu.cfs_quota_us of /system.slice",
    )


def test_the_least_limit_up_the_tree_counts_on_v2(tmp_path):
    caps = fence(tmp_path, V2).set(CapsConfig())
    assert (caps.memory_bytes, caps.memory_source) == (200 * MB, "memory.max of /system.slice")
    assert (caps.cpus, caps.cpus_source) == (0.5, "cpu.max of /system.slice/a.service")
    narrower = {"sys/fs/cgroup/system.slice/a.service/memory.high": str(100 * MB)}
    assert fence(tmp_path, narrower).set(CapsConfig()).memory_source.startswith("memory.high")


def test_a_container_that_sees_its_group_as_the_top_finds_its_limit(tmp_path):
    files = {
        "proc/self/mountinfo": "30 23 0:26 /docker/ab /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n",
        "proc/7/cgroup": "4:memory:/docker/ab\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": str(300 * MB),
    }
    caps = fence(tmp_path, files).set(CapsConfig())
    assert (caps.memory_bytes, caps.memory_source) == (300 * MB, "memory.limit_in_bytes of /")


def test_where_nothing_limits_nothing_is_said(tmp_path):
    assert fence(tmp_path, {}).set(CapsConfig()) == Caps()
    assert in_words(Caps()) == "memory: no limit; processor time: no limit"


def test_what_is_in_force_and_less_than_what_is_asked_stays(tmp_path):
    caps = fence(tmp_path, V2).set(CapsConfig(memory_bytes=250 * MB, cpus=1.0))
    assert caps.memory_source == "memory.max of /system.slice"
    assert not list(tmp_path.rglob("mas-edge-agent-*"))


# --- groups of our own ----------------------------------------------------------------------------


def test_in_a_delegated_subtree_the_agent_moves_into_a_group_of_its_own(tmp_path):
    own = "sys/fs/cgroup/system.slice/a.service"
    caps = fence(tmp_path, V2).set(CapsConfig(memory_bytes=100 * MB, cpus=0.25))
    group = tmp_path / own / "mas-edge-agent-7"
    assert (group / "cgroup.procs").read_text() == "7"
    assert (group / "memory.max").read_text() == str(100 * MB)
    assert (tmp_path / own / "cgroup.subtree_control").read_text() in {"+memory", "+cpu"}
    assert caps.memory_bytes == 100 * MB
    assert caps.memory_enforced


GROUPS = """
    import json, os, sys
    import msgspec
    from mas_edge.edge_agent.caps import CapsConfig, Fence
    fence = Fence()
    for asked in json.loads(sys.argv[1]):
        told = msgspec.json.encode(fence.set(msgspec.convert(asked, CapsConfig))).decode()
        print(told, flush=True)
    print(open("/proc/self/cgroup").read().replace("\\n", ";"), flush=True)
    {more}
"""


def in_a_process(asked, more="") -> tuple[list[Caps], str, str]:
    """Caps after each [caps] table, the groups that the process is then in, and what it printed after."""
    code = textwrap.dedent(GROUPS).replace("{more}", textwrap.dedent(more))
    command = [sys.executable, "-c", code, json.dumps(asked)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    *lines, last = done.stdout.splitlines()[: len(asked) + 1]
    rest = "\n".join(done.stdout.splitlines()[len(asked) + 1 :])
    return [msgspec.json.decode(line, type=Caps) for line in lines], last, rest + done.stderr


@pytest.fixture
def our_groups():
    """Skips where this process may not make groups; removes what the test's processes have left."""
    if os.geteuid():
        pytest.skip("needs root, to make control groups")
    yield
    for path in Path("/sys/fs/cgroup").rglob("mas-edge-agent-*"):
        if not (path / "cgroup.procs").read_text():
            path.rmdir()


def need_groups(caps: Caps) -> None:
    if not (caps.memory_enforced and caps.cpus_enforced):
        pytest.skip("needs a memory and a cpu control group that can be divided")


@pytest.mark.usefixtures("our_groups")
def test_root_is_held_by_a_group_of_its_own_and_changes_it_later():
    first, second = {"memory_bytes": 200 * MB, "cpus": 0.5}, {"memory_bytes": 300 * MB, "cpus": 1.5}
    caps, groups, _ = in_a_process([first, second, {}])
    need_groups(caps[0])
    assert [(c.memory_bytes, c.cpus) for c in caps] == [(200 * MB, 0.5), (300 * MB, 1.5), (None, None)]
    assert "mas-edge-agent-" in caps[0].memory_source
    assert "mas-edge-agent-" in groups


EATER = """
    import subprocess
    eat = "open('/proc/self/oom_score_adj', 'w').write('1000'); x = bytearray(400 << 20); print('ate')"
    print(subprocess.run([sys.executable, "-c", eat]).returncode, "and I live")
"""


@pytest.mark.usefixtures("our_groups")
def test_a_child_that_takes_more_is_killed_by_the_kernel_and_we_live():
    caps, _, printed = in_a_process([{"memory_bytes": 150 * MB}], EATER)
    need_groups(caps[0])
    assert printed.strip() == "-9 and I live"


BURNER = """
    import time
    start_s, first_s = time.monotonic(), time.process_time()
    while time.monotonic() - start_s < 1.0:
        pass
    print(time.process_time() - first_s)
"""


@pytest.mark.usefixtures("our_groups")
def test_processor_time_is_held_to_its_quota():
    caps, _, printed = in_a_process([{"cpus": 0.2}], BURNER)
    need_groups(caps[0])
    assert float(printed) < 0.3


def test_where_groups_are_refused_the_worker_gets_a_limit_of_its_own_and_that_is_said(tmp_path):
    made = fence(tmp_path, {})
    caps = made.set(CapsConfig(memory_bytes=200 * MB, cpus=1.5))
    assert (caps.memory_bytes, caps.memory_enforced) == (200 * MB, False)
    assert caps.memory_source == "[caps], by RLIMIT_DATA of the worker"
    assert (caps.cpus, caps.cpus_enforced) == (1.5, False)
    eater = "import sys; sys.stdin.read(1); x = bytearray(400 << 20)"
    with subprocess.Popen(
        [sys.executable, "-c", eater], stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as worker:
        made.around(worker.pid, 30 * MB)
        assert "MemoryError" in worker.communicate("x")[1]


def test_without_a_limit_of_its_own_a_worker_is_left_alone(tmp_path):
    made = fence(tmp_path, V1)
    made.set(CapsConfig())
    made.around(os.getpid(), 0)  # would be the end of this test
    assert bytearray(MB)


@given(st.floats(0.01, 64), st.integers(1, 64), st.booleans())
def test_threads_follow_the_processor_time_and_the_processors(cpus, processors, enforced):
    n = threads(Caps(cpus=cpus, cpus_enforced=enforced), processors)
    assert 1 <= n <= processors
    if not enforced:
        assert n == 1 or n <= cpus
    elif n < processors:
        assert n - 1 < cpus <= n or n == 1


@given(st.floats(0.01, 64), st.integers(1, 64), st.integers(1, 4), st.booleans())
def test_trainings_beside_each_other_share_the_processor_time(cpus, processors, slots, enforced):
    caps = Caps(cpus=cpus, cpus_enforced=enforced)
    n = threads(caps, processors, slots)
    assert 1 <= n <= threads(caps, processors)
    assert n == 1 or n * slots <= processors
    assert n == 1 or (n - enforced) * slots <= cpus


def test_one_thread_trains_where_nothing_limits_the_processor_time():
    assert threads(Caps(), 8) == 1


@pytest.mark.parametrize("table", [{"memory_bytes": 1000}, {"cpus": 0}, {"cpus": -1.0}, {"cpus": math.inf}])
def test_caps_that_cannot_be_are_refused(table):
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(table, CapsConfig)
