"""What a process needs of its host."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import textwrap

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mas_edge.wire import host


class Broker(msgspec.Struct):
    url: str = "mqtt://localhost"
    port: int = 1883


class Config(msgspec.Struct, kw_only=True):
    device: str
    broker: Broker = msgspec.field(default_factory=Broker)
    backup: Broker | None = None
    slots: int = 1


def load(tmp_path, text):
    path = tmp_path / "agent.toml"
    path.write_text(textwrap.dedent(text))
    return host.load_config(path, Config)


def test_a_folder_is_held_by_one_process_and_let_go_with_it(tmp_path):
    program = (
        f"from pathlib import Path; from mas_edge.wire import host; held = host.hold(Path({str(tmp_path)!r}))"
    )
    waits = f"{program}; held.__enter__(); print('held', flush=True); input()"
    other = subprocess.Popen(
        [sys.executable, "-c", waits], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(host.FolderInUse, match="in use by another process"), host.hold(tmp_path):
            pass
        other.kill()
        other.wait()
    with host.hold(tmp_path):
        assert (tmp_path / "lock").exists()


def test_a_configuration_becomes_a_struct(tmp_path):
    config = load(tmp_path, 'device = "pi"\n[broker]\nport = 9\n[backup]\nurl = "x"')
    assert config == Config(device="pi", broker=Broker(port=9), backup=Broker(url="x"))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('device = "pi"\nslot = 2', r"agent\.toml: unknown key 'slot'; did you mean 'slots'\?"),
        (
            'device = "pi"\n[broker]\nprot = 2',
            r"agent\.toml: unknown key 'broker\.prot'; did you mean 'broker\.port'",
        ),
        ('device = "pi"\n[backup]\nprot = 2', r"unknown key 'backup\.prot'"),
        ('device = "pi"\nzzz = 2', r"unknown key 'zzz'; known: backup, broker, device, slots"),
        ("slots = 2", r"agent\.toml: .*`device`"),
        ("device = 5", r"agent\.toml: Expected `str`, got `int` - at `\$\.device`"),
        ('device = "pi"\nbroker = 3', r"agent\.toml: .*\$\.broker"),
        ("a = 1\ndevice = x", r"agent\.toml is not TOML: .*line 2"),
    ],
)
def test_a_configuration_that_does_not_fit_is_refused_by_file_and_key(tmp_path, text, why):
    with pytest.raises(host.ConfigError, match=why) as caught:
        load(tmp_path, text)
    assert isinstance(caught.value, ValueError)
    assert "\n" not in str(caught.value)


def test_a_configuration_that_is_not_there_is_refused_by_name(tmp_path):
    with pytest.raises(host.ConfigError, match=r"cannot read .*nowhere\.toml: No such file"):
        host.load_config(tmp_path / "nowhere.toml", Config)


def run(code, **env):
    """A Python process with our environment and these lines."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | env,
    )


LOG = """
    import logging
    from mas_edge.wire.host import setup_logs
    setup_logs()
    logging.getLogger("a.b").info("five %s", 5)
    try:
        1 / 0
    except ZeroDivisionError:
        logging.getLogger("a.b").exception("broken")
"""


def test_logs_are_one_json_object_a_line_where_nobody_looks():
    _, text = run(LOG).communicate()
    info, broken = map(json.loads, text.splitlines())
    assert (info["level"], info["logger"], info["text"]) == ("INFO", "a.b", "five 5")
    assert info["time"][10] == "T"
    assert info["time"].endswith("Z")
    assert "ZeroDivisionError" in broken["exception"]


def test_the_environment_sets_the_level_and_a_wrong_one_is_named():
    assert run(LOG, MAS_LOG="critical").communicate()[1] == ""
    assert "MAS_LOG=LOUD: use DEBUG" in run(LOG, MAS_LOG="loud").communicate()[1]


def test_a_stop_signal_is_a_flag_and_the_second_one_ends_the_process():
    child = run("""
        import time
        from mas_edge.wire.host import StopSignal
        with StopSignal(lambda: print("woken", flush=True)) as stop:
            print(stop.is_set(), flush=True)
            while not stop.wait(5):
                pass
            print(stop.is_set(), flush=True)
            time.sleep(5)
    """)
    assert child.stdout.readline() == "False\n"
    child.send_signal(signal.SIGTERM)
    assert child.stdout.readline() == "woken\n"
    assert child.stdout.readline() == "True\n"
    child.send_signal(signal.SIGTERM)
    child.communicate()
    assert child.returncode == -signal.SIGTERM


def test_the_signals_are_given_back_when_nobody_waits_for_a_stop_any_more():
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    with host.StopSignal():
        assert signal.getsignal(signal.SIGINT) is not before[1]
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux")
def test_a_child_ends_with_its_parent():
    parent = run("""
        import subprocess, sys
        code = ("import signal, time; from mas_edge.wire.host import die_with_parent;"
                "die_with_parent(signal.SIGKILL); print('ready', flush=True); time.sleep(30)")
        child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        child.stdout.readline()
        print(child.pid, flush=True)
        sys.stdin.read()
    """)
    child = int(parent.stdout.readline())
    handle = os.pidfd_open(child)
    parent.kill()
    parent.communicate()
    try:
        assert ended(handle)
    finally:
        os.close(handle)


def ended(handle, timeout_ms=5000):
    """Whether the process behind a pidfd has ended."""
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    return bool(poll.poll(timeout_ms))


def test_systemd_is_told_if_it_asked(tmp_path):
    path = str(tmp_path / "notify")
    code = "from mas_edge.wire.host import sd_notify; print(sd_notify('READY=1'))"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(path)
        systemd.settimeout(5)
        assert run(code, NOTIFY_SOCKET=path).communicate()[0] == "True\n"
        assert systemd.recv(100) == b"READY=1"
    assert run(code, NOTIFY_SOCKET="").communicate()[0] == "False\n"


def test_the_boot_id_is_the_kernels(tmp_path):
    (tmp_path / "proc/sys/kernel/random").mkdir(parents=True)
    (tmp_path / "proc/sys/kernel/random/boot_id").write_text("0f-1\n")
    assert host.boot_id(tmp_path) == "0f-1"
    with pytest.raises(OSError, match="boot_id"):
        host.boot_id(tmp_path / "elsewhere")


@given(old=st.none() | st.binary(), new=st.binary())
def test_a_file_is_replaced_whole_and_nothing_is_left_beside_it(tmp_path_factory, old, new):
    path = tmp_path_factory.mktemp("atomic") / "state"
    if old is not None:
        path.write_bytes(old)
    host.write_atomic(path, new)
    assert path.read_bytes() == new
    assert list(path.parent.iterdir()) == [path]


def test_a_file_that_cannot_be_written_leaves_nothing_behind(tmp_path):
    (tmp_path / "state").mkdir()
    with pytest.raises(OSError, match="state"):
        host.write_atomic(tmp_path / "state", b"x")
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


def test_a_free_port_can_be_listened_on():
    with socket.create_server(("127.0.0.1", host.free_port())) as server:
        assert server.getsockname()[1] > 0
