"""The subcommands of `mas` about identities: who belongs to the fleet, and what its broker lets them say.

``orchestrator.cli`` adds them to its parser, and turns their errors into text and exit codes. What they do
is in ``orchestrator.fleet.enroll``; the only clock that it sees is read here.
"""

from __future__ import annotations

import argparse
import datetime as dt
import importlib.util
import re
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from mas_edge.wire.messages import ORCHESTRATOR

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Act: TypeAlias = Callable[[argparse.Namespace], int]

AUTHORITY = Path("/etc/mas-edge/authority")


class FleetUsage(ValueError):
    """A command line about identities that cannot be meant."""


def add_commands(add: Callable[[str, Act, str], argparse.ArgumentParser]) -> None:
    """Add `enroll`, `revoke` and `broker-config`; ``add(name, act, summary)`` makes a subcommand's parser."""
    command = add("enroll", enroll, "give a device an identity and a configuration")
    command.add_argument("device", help=f"its name, or {ORCHESTRATOR!r}")
    command.add_argument("--broker", required=True, metavar="URL", help="mqtts://HOST[:8883]")
    command.add_argument(
        "--data",
        action="append",
        default=[],
        metavar="WORKLOAD=CLIENT,...",
        help="whose data the device has, such as watch=1,5; may be repeated",
    )
    command.add_argument("--out", type=Path, help="folder to write (default: named as the device)")
    command.add_argument(
        "--target", default="/etc/mas-edge", help="where it will lie on the board (default: %(default)s)"
    )
    command.add_argument("--renew", action="store_true", help="also for a name that has one, or was revoked")
    _authority_options(command)
    command = add("revoke", revoke, "take a device's identity back")
    command.add_argument("device", help=f"its name, or {ORCHESTRATOR!r}")
    _authority_options(command, may_make=False)
    command = add("broker-config", broker_config, "write the configuration of a mosquitto for the fleet")
    command.add_argument(
        "--name",
        action="append",
        required=True,
        help="host name or address at which the devices find it; may be repeated",
    )
    command.add_argument("--port", type=int, default=8883, help="default: %(default)s")
    command.add_argument("--out", type=Path, required=True, help="folder to write")
    command.add_argument(
        "--target",
        default="/etc/mosquitto/mas-edge",
        help="where it will lie on the broker's machine (default: %(default)s)",
    )
    _authority_options(command)


def _authority_options(command: argparse.ArgumentParser, *, may_make: bool = True) -> None:
    command.add_argument(
        "--authority", type=Path, default=AUTHORITY, metavar="DIR", help="its folder (default: %(default)s)"
    )
    if may_make:
        command.add_argument("--fleet", help="makes the authority of this fleet, if there is none yet")


def enroll(options: argparse.Namespace) -> int:
    """Give a device an identity: its private key, a certificate of the fleet's own authority, and a ready
    agent.toml in which every key is explained. Copied to the board, `mas-agent run` takes it as it is.
    The first one makes the authority.

        mas enroll edge-1 --fleet home --broker mqtts://broker.example --data watch=1,5
        mas enroll edge-2 --broker mqtts://broker.example --data watch=2,3 --out boards/edge-2
        mas enroll orchestrator --broker mqtts://broker.example
    """
    data, target = _data(options.data), _target(options.target)
    if bool(data) == (options.device == ORCHESTRATOR):
        raise FleetUsage(f"{options.device}: --data WORKLOAD=CLIENT,... is for devices, and they need it")
    _need_cryptography()
    from mas_edge.orchestrator.fleet import enroll as make  # noqa: PLC0415 - keeps --help fast
    from mas_edge.orchestrator.fleet.authority import open_authority  # noqa: PLC0415

    now, out = _now(), options.out or Path(options.device)
    board = make.Board(options.device, options.broker, data, target)
    with open_authority(options.authority, options.fleet, now) as authority:
        until = make.enroll(authority, board, out, now, renew=options.renew)
    print(f"{out}: {options.device} of fleet {authority.fleet}, until {until:%Y-%m-%d}")
    print(f"Copy what is in it to {target} there; {options.device}.key is for its daemon's user alone.")
    return 0


def revoke(options: argparse.Namespace) -> int:
    """Take a device's identity back. A broker has to read the new list: what to do there is printed.

    mosquitto reads the list on SIGHUP too, but leaves open connections open: only a restart ends those.
    Agents and orchestrator reconnect by themselves and lose nothing.

        mas revoke edge-1
    """
    _need_cryptography()
    from mas_edge.orchestrator.fleet import authority as a  # noqa: PLC0415 - keeps --help fast

    now = _now()
    with a.open_authority(options.authority, None, now) as authority:
        count = a.revoke(authority, options.device, now)
    print(f"{options.device}: {count} certificate{'s' * (count != 1)} revoked; on the broker's machine now:")
    print(f"  copy {options.authority / 'crl.pem'} to /etc/mosquitto/mas-edge/crl.pem")
    print("  systemctl restart mosquitto    # a reload would leave its open connection open")
    return 0


def broker_config(options: argparse.Namespace) -> int:
    """Write all that a mosquitto needs to serve the fleet over TLS: mosquitto.conf, its access list, key and
    certificate, the authority's certificate and the list of what was revoked. Given again, with a new key.

        mas broker-config --fleet home --name broker.example --name 192.168.1.5 --out broker
    """
    if not 0 < options.port < 1 << 16:
        raise FleetUsage(f"--port {options.port}: a port is 1 to 65535")
    target = _target(options.target)
    _need_cryptography()
    from mas_edge.orchestrator.fleet import enroll as make  # noqa: PLC0415 - keeps --help fast
    from mas_edge.orchestrator.fleet.authority import open_authority  # noqa: PLC0415

    now, names = _now(), tuple(options.name)
    with open_authority(options.authority, options.fleet, now) as authority:
        broker = make.BrokerHost(names, options.port, target)
        until = make.configure_broker(authority, broker, options.out, now)
    print(f"{options.out}: broker of fleet {authority.fleet} as {', '.join(names)}, until {until:%Y-%m-%d}")
    print(f"Copy what is in it to {target} on its machine (chown -R mosquitto: {target}),")
    print(f"link {target}/mosquitto.conf into /etc/mosquitto/conf.d, and: systemctl restart mosquitto")
    return 0


def _data(texts: Iterable[str]) -> dict[str, tuple[str, ...]]:
    data: dict[str, tuple[str, ...]] = {}
    for text in texts:
        workload, _, listed = text.partition("=")
        clients = tuple(listed.split(","))
        if not re.fullmatch(r"[A-Za-z0-9_-]+", workload) or not all(clients) or workload in data:
            raise FleetUsage(f"--data {text}: write WORKLOAD=CLIENT,CLIENT, each workload once")
        data[workload] = clients
    return data


def _target(text: str) -> str:
    """A folder as it will stand in a configuration, whose reader may not be in the folder that we are in."""
    if not (text.startswith("/") and text.isprintable()):
        raise FleetUsage(f"--target {text!r}: name the folder from / on, such as /etc/mas-edge")
    return text.rstrip("/")


def _need_cryptography() -> None:
    if importlib.util.find_spec("cryptography") is None:
        raise FleetUsage("identities need cryptography: pip install 'mas-edge[orchestrator]'")


def _now() -> dt.datetime:
    return dt.datetime.now(dt.timezone.utc)
