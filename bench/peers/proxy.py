"""A TCP connection's way through this process, to count its bytes, to slow it down, and to act in its middle.

A node is told the proxy's port instead of its server's. What passes is counted as the kernel gives it: the
payload of TCP, both ways. It costs processor time of the benchmark, which is not counted as the arm's.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

BLOCK_BYTES = 1 << 16
PACE_S = 0.05


class Proxy:
    """Everything that connects to ``port`` is connected to this port of 127.0.0.1.

    ``up_bytes_per_s`` is the most that goes up on a connection; when ``trigger_bytes`` have gone up in all,
    ``trigger`` is called once, in a thread of its own.
    """

    def __init__(
        self,
        target_port: int,
        *,
        up_bytes_per_s: float | None = None,
        trigger_bytes: int | None = None,
        trigger: Callable[[], None] | None = None,
    ) -> None:
        self._target_port, self._up_bytes_per_s = target_port, up_bytes_per_s
        self._trigger_bytes, self._trigger = trigger_bytes, trigger
        self.up_bytes = self.down_bytes = self.port = 0
        self._loop = asyncio.new_event_loop()
        self._listens = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self._listens.wait()

    def close(self) -> None:
        """Cut all connections."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._listen())
        self._loop.run_forever()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()

    async def _listen(self) -> None:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._listens.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.CancelledError):
            try:
                there = await asyncio.open_connection("127.0.0.1", self._target_port)
            except OSError:
                writer.close()
                return
            await asyncio.gather(
                self._pump(reader, there[1], up=True), self._pump(there[0], writer, up=False)
            )

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, up: bool) -> None:
        try:
            while data := await reader.read(self._block(up=up)):
                writer.write(data)
                await writer.drain()
                self._count(len(data), up=up)
                if up and self._up_bytes_per_s:
                    await asyncio.sleep(len(data) / self._up_bytes_per_s)
        finally:
            writer.close()

    def _block(self, *, up: bool) -> int:
        return int(self._up_bytes_per_s * PACE_S) if up and self._up_bytes_per_s else BLOCK_BYTES

    def _count(self, size: int, *, up: bool) -> None:
        if not up:
            self.down_bytes += size
            return
        self.up_bytes += size
        if self._trigger and self._trigger_bytes and self.up_bytes >= self._trigger_bytes:
            threading.Thread(target=self._trigger, daemon=True).start()
            self._trigger = None
