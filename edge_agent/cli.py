"""`mas-agent`: the command of a device.

Only this module turns an error of the agent into a line of text and an exit code: 0 fine, 1 broke on the
way, 2 wrong usage or configuration. MAS_LOG=DEBUG says where in the code it arose.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

log = logging.getLogger(__name__)

WRONG, BROKEN = 2, 1


def parser() -> argparse.ArgumentParser:
    """The command line of `mas-agent`."""
    top = argparse.ArgumentParser(
        prog="mas-agent", description="Trains federated tasks on this device and accounts for every joule."
    )
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    run_ = commands.add_parser(
        "run",
        help="serve the fleet until stopped",
        description=run.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    run_.add_argument(
        "--config", type=Path, default=Path("/etc/mas-edge/agent.toml"), help="default: %(default)s"
    )
    run_.set_defaults(act=run)
    return top


def run(options: argparse.Namespace) -> int:
    """Serve the fleet until stopped.

    A smallest agent.toml:

        device = "edge-1"
        fleet = "home"
        state = "/var/lib/mas-edge"

        [broker]
        url = "mqtt://127.0.0.1:1883"

        [data.watch]
        clients = ["1", "5"]
    """
    from mas_edge.edge_agent.config import AgentConfig  # noqa: PLC0415 - keeps --help fast
    from mas_edge.edge_agent.service import serve  # noqa: PLC0415
    from mas_edge.wire.host import StopSignal, load_config, setup_logs  # noqa: PLC0415

    setup_logs()
    serve(load_config(options.config, AgentConfig), StopSignal())
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code of a command line."""
    options = parser().parse_args(arguments)
    try:
        return int(options.act(options))
    except (ValueError, LookupError, ConnectionError, PermissionError) as error:
        return _complain(error, WRONG)
    except OSError as error:
        return _complain(error, BROKEN)


def _complain(error: Exception, code: int) -> int:
    print(f"mas-agent: {error}", file=sys.stderr)
    log.debug("where that came from", exc_info=error)
    return code


if __name__ == "__main__":
    sys.exit(main())
