"""What the web page costs, and how it looks: over the store of `mas demo` while that runs.

``bench/web.py --png docs/results/page.png`` runs a demo, serves the page of its store as `mas
serve` does, takes the screenshot in headless Chromium as soon as every group has trained a round after the
split, and prints a markdown table: what the page adds to a process's memory, how long a status takes that is
made of all events and one that is asked for again, and what is sent.
"""

from __future__ import annotations

import argparse
import http.client
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import psutil
from PIL import Image

from mas_edge.orchestrator.service import read_store
from mas_edge.orchestrator.store import StoreError
from mas_edge.orchestrator.views.follow import Follower
from mas_edge.orchestrator.views.web import FRESH_S, PageConfig, serve_page

REPEATS, LIMIT_S = 20, 540.0
SIZE = "1200,1280"


def rss_mb() -> float:
    return psutil.Process().memory_info().rss / 1e6


def after_the_split(state: Path, demo: subprocess.Popen[bytes]) -> None:
    """Return when each group of the demo's job has trained a round of its own."""
    end_s = time.monotonic() + LIMIT_S
    while time.monotonic() < end_s and demo.poll() is None:
        time.sleep(0.5)
        try:
            with closing(read_store(state)) as store:
                jobs = Follower(store).status(time.time()).jobs
        except StoreError:
            continue
        if jobs and jobs[0].decision:
            born = jobs[0].groups[0].rounds
            if all(group.round > born + 1 for group in jobs[0].groups[1:]):
                return
    raise SystemExit(f"the demo did not get that far (exit code {demo.poll()})")


def looked_at(state: Path, png: Path | None, profile: Path) -> float:
    """What the page adds to the memory of this process, which never served one; takes the picture."""
    before_mb = rss_mb()
    with serve_page(PageConfig(port=0), lambda: read_store(state)) as url:
        asked_ms(url)
        more_mb = rss_mb() - before_mb
        if png:
            command = ["chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
            options = [f"--user-data-dir={profile}", f"--window-size={SIZE}", "--virtual-time-budget=3000"]
            subprocess.run([*command, *options, f"--screenshot={png}", url], check=True, capture_output=True)
            with Image.open(png) as image:
                image.convert("RGB").quantize(200).save(png, optimize=True)  # a third of the bytes
    return more_mb


def asked_ms(url: str, tag: str = "") -> tuple[float, int, str]:
    """Milliseconds of a request for the status, bytes of the answer's body, and its tag."""
    place = urlsplit(url)
    start_s = time.perf_counter()
    with closing(http.client.HTTPConnection(place.hostname or "", place.port, timeout=30)) as connection:
        connection.request("GET", "/api/status", headers={"If-None-Match": tag} if tag else {})
        answer = connection.getresponse()
        size, tag = len(answer.read()), answer.headers["ETag"]
    return (time.perf_counter() - start_s) * 1e3, size, tag


def times(state: Path) -> list[tuple[str, str]]:
    """Rows of the table, of a store in which nothing happens any more."""
    with closing(read_store(state)) as store:
        events = sum(1 for name, _ in store.jobs() for _ in store.events(name))
        start_s = time.perf_counter()
        follower = Follower(store)
        follower.status(time.time())
        whole_ms = (time.perf_counter() - start_s) * 1e3
        again = []
        for _ in range(REPEATS):
            start_s = time.perf_counter()
            size = len(msgspec.json.encode(follower.status(time.time())))
            again.append((time.perf_counter() - start_s) * 1e3)
    with serve_page(PageConfig(port=0), lambda: read_store(state)) as url:
        _, sent, tag = asked_ms(url)
        time.sleep(2 * FRESH_S)
        same = [asked_ms(url, tag)[0] for _ in range(REPEATS)]
    return [
        (f"status made of all {events} events", f"{whole_ms:.1f} ms"),
        ("status asked for again, and its JSON", f"{statistics.median(again):.2f} ms"),
        ("JSON", f"{size / 1e3:.1f} kB, sent {sent / 1e3:.1f} kB"),
        ("request that is told 'not modified'", f"{statistics.median(same):.2f} ms"),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--png", type=Path, help="where the screenshot goes; none without it")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        command = [sys.executable, "-m", "mas_edge.orchestrator.cli", "demo", "--out", str(out)]
        with (Path(folder) / "demo.log").open("wb") as log:
            demo = subprocess.Popen(
                command, stdout=log, stderr=log, env={**os.environ, "PYTHONSAFEPATH": "1"}
            )
        try:
            after_the_split(out / "state", demo)
            more_mb = looked_at(out / "state", options.png, Path(folder) / "profile")
            demo.wait(LIMIT_S)
        except (SystemExit, subprocess.TimeoutExpired):
            sys.stderr.write((Path(folder) / "demo.log").read_text("utf-8")[-2000:])
            raise
        finally:
            if demo.poll() is None:
                demo.terminate()
                demo.wait(30)
        rows = [("memory of a process, more by the page", f"{more_mb:.1f} MB"), *times(out / "state")]
    machine = f"{os.cpu_count()} cores, {platform.system()} {platform.release()}"
    print(f"Machine: {machine}, load {os.getloadavg()[0]:.1f}\n")
    print("| what | |\n|---|---:|")
    for what, value in rows:
        print(f"| {what} | {value} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
