"""The configuration that goes with an identity, as text: agent.toml and orchestrator.toml.

Every key that may stand there stands there: with its value, or commented out with its default, and with
what it means, so that the file teaches whoever opens it on a board. Which keys there are is said by
``edge_agent.config`` and ``orchestrator.service``; a test holds these texts to them. No files in here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TypeAlias

from mas_edge.wire.messages import ORCHESTRATOR

Data: TypeAlias = Mapping[str, tuple[str, ...]]
"""Workload -> the clients whose data a board has."""

CA = "ca.pem"
"""The file of the authority's certificate; an identity's own are NAME.pem and NAME.key."""

Value: TypeAlias = str | int | float | list[str]
_COLUMN = 44


def agent_toml(device: str, fleet: str, url: str, data: Data, folder: str) -> str:
    """A whole agent.toml for this device; its identity lies in ``folder`` on the board."""
    return _text(
        f"# The agent of {device} in the fleet {fleet}, made by `mas enroll`; belongs into {folder}.",
        "# What is commented out shows its default.",
        "",
        _key("device", device, "as in the certificate: the broker lets no other name in"),
        _key("fleet", fleet, "as the orchestrator's"),
        _key("state", "/var/lib/mas-edge", "what is kept over a restart; worth no backup"),
        _default("log", "INFO", "from DEBUG, INFO, WARNING or ERROR on; read again on SIGHUP"),
        _example("metrics_port", 9464, "joules and seconds for Prometheus"),
        _default("metrics_host", "127.0.0.1", "where that is served"),
        *_broker(device, url, folder),
        *_energy(),
        "",
        "[train]",
        _default("device", "auto", "auto, cpu or cuda"),
        _example("threads", 2, "as many as a limit of processor time feeds, one without a limit"),
        _default("slots", 1, "trainings at a time; one that memory has no room for waits"),
        *_caps(),
        *_conditions(),
        *(line for workload, clients in data.items() for line in _data(workload, clients)),
    )


def orchestrator_toml(fleet: str, url: str, folder: str) -> str:
    """A whole orchestrator.toml; the orchestrator's identity lies in ``folder``."""
    return _text(
        f"# The orchestrator of the fleet {fleet}, made by `mas enroll`: {folder}/orchestrator.toml.",
        "# What is commented out shows its default.",
        "",
        _key("fleet", fleet, "as the devices'"),
        _key("state", "/var/lib/mas-edge-orchestrator", "every event, and the weights; worth a backup"),
        *_broker(ORCHESTRATOR, url, folder),
        _default("embedded", False, "true: one of our own at url, which is then mqtt://127.0.0.1:1883, say"),
        *_energy(),
        *_storage(),
        *_control_and_page(),
    )


def _broker(name: str, url: str, folder: str) -> tuple[str, ...]:
    return (
        "",
        "[broker]",
        _key("url", url, "its certificate must name this host"),
        _key("ca", f"{folder}/{CA}", "the authority of the fleet: whom we believe"),
        _key("cert", f"{folder}/{name}.pem", "who we are"),
        _key("key", f"{folder}/{name}.key", "the proof of it; nobody else may read it"),
        _example("username", "edge-1", "of a broker with passwords"),
        _example("password_file", "/etc/mas-edge/password", "the same; a file with nothing else in it"),
        _default("insecure", False, "true: plain mqtt:// may leave this machine"),
        _default("wait_s", 10.0, "how long a start waits for the broker"),
    )


def _energy() -> tuple[str, ...]:
    means = "or rapl, replay:FILE, estimate:idle_w=2,max_w=7; of a list the first that works"
    require = "a host without a sensor does not start, rather than estimate"
    return ("", "[energy]", _default("meter", "auto", means), _example("require", "measured", require))


def _storage() -> tuple[str, ...]:
    return (
        "",
        "[storage]",
        _example("quota_bytes", 20_000_000_000, "of weights; above it no job is taken, those that run go on"),
        _example("keep_jobs", 10, "above it, done jobs but the newest 10 lose theirs instead; reports stay"),
    )


def _control_and_page() -> tuple[str, ...]:
    socket = "/run/mas-edge-orchestrator/control.sock"
    return (
        "",
        "[control]",
        _example("socket", socket, "for mas; in $RUNTIME_DIRECTORY, which systemd sets, else with the state"),
        "",
        "[page]",
        _default(
            "host", "127.0.0.1", "this table switches the page on; beyond this machine it needs a token"
        ),
        _default("port", 8765, "http://127.0.0.1:8765 shows jobs and devices"),
        _default("token", "", "whoever looks on has to give it"),
    )


def _caps() -> tuple[str, ...]:
    return (
        "",
        "[caps]",
        _example("memory_bytes", 400_000_000, "of agent and training; less than the unit says"),
        _example("cpus", 1.5, "processors' worth of time"),
    )


def _conditions() -> tuple[str, ...]:
    return (
        "",
        "[conditions]",
        _default("mains", False, "true: train on mains only; this table is read again on SIGHUP"),
        _example("battery_percent", 60, "on battery too, from this charge on"),
        _example("temperature_c", 75, "while the hottest sensor is below; a training is given up"),
        _default("hours", [], 'local time: ["22:00-06:00"]; a round that began is finished'),
        _example("energy_j_per_day", 50_000, "of training, from midnight to midnight"),
        _example("others_cpu_percent", 50, "while other processes take less of all processors"),
    )


def _data(workload: str, clients: tuple[str, ...]) -> tuple[str, ...]:
    return (
        "",
        f"[data.{workload}]",
        _key("clients", list(clients), "whose data this board has"),
        _example("root", f"/data/{workload}", "where they are, if not with the workload"),
    )


def _key(key: str, value: Value, means: str) -> str:
    # For strings, numbers, booleans and lists of them TOML writes what JSON writes.
    return f"{key} = {json.dumps(value, ensure_ascii=False)}".ljust(_COLUMN) + f" # {means}"


def _default(key: str, value: Value, means: str) -> str:
    return "# " + _key(key, value, means).replace(" " * 3, " ", 1)


def _example(key: str, value: Value, means: str) -> str:
    return _default(key, value, f"not set; {means}")


def _text(*lines: str) -> str:
    return "\n".join(lines) + "\n"
