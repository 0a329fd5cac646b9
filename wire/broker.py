"""The embedded broker: amqtt in a process of its own, on loopback only, for the demo and for tests.

``python -m mas_edge.wire.broker --port 0`` prints ``{"port": N}`` on a line of its own once it listens
and runs until a signal ends it, or the process that started it ends. ``start`` does that from Python. It
knows no passwords and keeps nothing: a fleet of more than one machine wants mosquitto or the like.

amqtt opens no socket here: we do, with a read buffer for chunks, and hand it the streams. So the port is
known without looking inside, and a connection whose handling failed is closed: amqtt 0.12 fails when
subscriptions change while it sends retained messages to a new client, and would leave that client
connected and deaf. Nor is amqtt asked to end: its shutdown sometimes never comes to its end, and whoever is
connected would stay so, to a broker that nobody else can reach. Nothing is lost where nothing is kept, so
signals kill. Its log is only heard with ``MAS_LOG=DEBUG``.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import subprocess
import sys
from ipaddress import ip_address

from mas_edge.wire.address import Address, InsecureRefused
from mas_edge.wire.bus import KEEPALIVE_S
from mas_edge.wire.command_line import Parser
from mas_edge.wire.host import die_with_parent

_LISTENER = "default"
_BUFFER_BYTES = 2 << 20


async def serve(listener: socket.socket) -> None:
    """Serve MQTT on this listening socket, for ever."""
    from amqtt.adapters import StreamReaderAdapter, StreamWriterAdapter  # noqa: PLC0415  only the demo has it
    from amqtt.broker import Broker  # noqa: PLC0415

    broker = Broker(
        {
            "listeners": {_LISTENER: {"type": "external"}},
            "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
            # amqtt gives up on a client after its keepalive, not 1.5 times of it (MQTT 3.1.1, 3.1.2.10)
            "timeout_disconnect_delay": KEEPALIVE_S // 2,
        }
    )

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await broker.external_connected(
                StreamReaderAdapter(reader), StreamWriterAdapter(writer), _LISTENER
            )
        finally:
            writer.close()

    await broker.start()
    server = await asyncio.start_server(accept, sock=listener, limit=_BUFFER_BYTES)
    await server.serve_forever()


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens on a loopback address, port 0 for any; raises InsecureRefused, OSError."""
    if not ip_address(host).is_loopback:
        raise InsecureRefused(f"{host}: the embedded broker has no passwords and listens on loopback only")
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen()  # from here on a client is kept waiting, not turned away
    except OSError:
        listener.close()
        raise
    return listener


def start(port: int = 0, host: str = "127.0.0.1") -> tuple[subprocess.Popen[str], Address]:
    """A broker process that listens, and its address; it ends with us. Raises OSError if it cannot listen."""
    command = [sys.executable, "-m", __name__, "--host", host, "--port", str(port)]
    # in a session of its own: who interrupts us from a terminal lets us say goodbye over it
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout is not None  # noqa: S101  said so above
    with process.stdout:
        line = process.stdout.readline()
    if not line:
        raise OSError(f"the embedded broker ended with code {process.wait()}: its own line above says why")
    return process, Address(host, json.loads(line)["port"])


def main() -> int:
    """Run the embedded broker; 2 for an address that it cannot or must not use."""
    parser = Parser(prog="python -m mas_edge.wire.broker", description=__doc__.split("\n")[0])
    parser.add_argument("--host", default="127.0.0.1", help="loopback address (default: %(default)s)")
    parser.add_argument("--port", type=int, default=0, help="0, the default, for any that is free")
    options = parser.parse_args()
    level = logging.DEBUG if os.environ.get("MAS_LOG", "").upper() == "DEBUG" else logging.CRITICAL + 1
    logging.basicConfig(level=level)
    try:
        listener = listen(options.host, options.port)
    except (OSError, ValueError) as error:
        print(f"cannot listen on {options.host} port {options.port}: {error}", file=sys.stderr)
        return 2
    die_with_parent(signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # as SIGTERM: no clean end, and no traceback
    print(json.dumps({"port": listener.getsockname()[1]}), flush=True)
    asyncio.run(serve(listener))
    return 0


if __name__ == "__main__":
    sys.exit(main())
