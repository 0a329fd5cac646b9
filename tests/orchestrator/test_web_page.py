"""The web page in a real browser, headless, over a store that is being written."""

from __future__ import annotations

import re
import shutil
import subprocess
import threading
import time
from contextlib import closing

import going
import msgspec
import numpy as np
import pytest
from test_status import told

from mas_edge.orchestrator.service import open_store, read_store
from mas_edge.orchestrator.views.status import status
from mas_edge.wire import messages as m

pytest.importorskip("uvicorn", reason="the web page needs uvicorn (extra orchestrator)")
Image = pytest.importorskip("PIL.Image", reason="pillow reads the screenshot")
from mas_edge.orchestrator.views.web import PageConfig, serve_page  # noqa: E402 - after the reasons to skip

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium: apt-get install chromium")

SPEC = going.spec()
GROUPS = ("gravity + jerk", "rotation + exercise")
MARKUP = "<img src=x onerror=\"document.title='broken in'\">"


def chromium(profile, *options):
    """What headless Chromium prints; it needs no sandbox for a page of our own."""
    command = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    own = f"--user-data-dir={profile}"
    return subprocess.run(
        [*command, own, *options], capture_output=True, text=True, check=True, timeout=90
    ).stdout


def dom(folder, *, budget_ms=3000, while_open=None, full=None):
    """The page of a folder's store as it stands after so much of the browser's time."""
    opened = threading.Event()

    def reader():
        opened.set()  # the script has asked, so the page is there
        return read_store(folder)

    def write():
        if opened.wait(60):
            while_open()

    writer = threading.Thread(target=write if while_open else lambda: None)
    with serve_page(PageConfig(port=0), reader, lambda: full) as url:
        writer.start()
        text = chromium(folder / "profile", f"--virtual-time-budget={budget_ms}", "--dump-dom", url)
        writer.join()
    return text


def test_before_the_first_job_the_page_says_what_to_do(tmp_path):
    with closing(open_store(tmp_path)):
        text = dom(tmp_path)
    assert "No job yet" in text
    assert "mas launch FILE" in text
    assert "No device yet" in text


def test_a_job_that_is_added_while_the_page_is_open_appears_and_later_its_groups(tmp_path):
    done = going.until(SPEC, 2) + 4

    def write():
        with closing(open_store(tmp_path)) as store:
            going.fill(store, SPEC, 1)
            for time_s, event in going.events(SPEC)[1:done]:
                store.append(SPEC.name, time_s, event)
                time.sleep(0.02)

    with closing(open_store(tmp_path)):
        text = dom(tmp_path, budget_ms=600_000, while_open=write)
    assert "No job yet" not in text
    assert "evening" in text
    assert all(group in text for group in GROUPS)
    assert "went on after round 2" in text
    assert '<table class="heat">' in text
    assert text.count('class="chart"') == len(SPEC.tasks)


def test_the_words_of_a_device_are_text_and_nothing_else(tmp_path):
    with closing(open_store(tmp_path)) as store:
        going.fill(store, SPEC, 4)
        reason = m.Reason(condition=MARKUP, detail="</script><script>document.title='broken in'</script>")
        store.set_presence("edge-1", m.Alive(online=True, boot_id="b", reasons=(reason,)))
        sensor = m.Sensor(name=MARKUP, method="counter", scope="board", sensor_host=MARKUP)
        file = m.BlobRef(digest="ab" * 32, size_bytes=9, chunk_bytes=9)
        model = m.Model(workload="watch", job="evening", group=MARKUP, round=6, tasks=("jerk",), file=file)
        used = m.InUse(model=model, profile=m.InferenceProfile(latency_p50_s=0.002, energy_j=0.004))
        bare = m.InUse(model=msgspec.structs.replace(model, group="jerk", precision="int8"))
        store.remember_device(going.hello("edge-2", sensor=sensor, in_use=(used, bare)))
        text = dom(tmp_path)
    assert "gravity + jerk + rotation + exercise" in text
    assert not any(f">{group}<" in text for group in GROUPS), "they come with the split"
    assert "&lt;img src=x" in text
    assert "<img" not in text
    assert "<title>mas-edge: 1 of 1 job going on</title>" in text
    assert text.count("<script") == 1
    assert " of evening, fp32, p50 2.00 ms, 4 mJ each<" in text
    assert "infers with jerk of evening, int8<" in text


def test_a_full_disk_and_what_each_task_and_the_orchestrator_used_are_shown(tmp_path):
    with closing(open_store(tmp_path)) as store:
        going.fill(store, SPEC)
        text = dom(tmp_path, full="the disk is full: <b>")
    assert '<p id="full" class="full" role="status">the disk is full: &lt;b&gt;</p>' in text
    (job,) = status(tallies=[told()], known={}, midnight_wall_s=0.0).jobs
    assert {f"{task.energy.attributed_j:.4g} J" for task in job.tasks} <= set(re.findall(r"[\d.]+ J", text))


def test_an_orchestrator_that_is_gone_is_said_to_be(tmp_path):
    text = dom(tmp_path)  # there is no store: it cannot answer
    assert 'class="link lost"' in text
    assert "no answer from the orchestrator" in text


@pytest.mark.parametrize(("width", "scheme"), [(1200, "light"), (420, "dark")])
def test_the_page_fits_a_desk_and_a_phone_and_has_the_readers_colours(width, scheme, tmp_path):
    shot = tmp_path / "page.png"
    dark = ["--blink-settings=preferredColorScheme=0"] if scheme == "dark" else []
    with closing(open_store(tmp_path)) as store:
        going.fill(store, SPEC, going.until(SPEC, 2) + 9)
        long = msgspec.structs.replace(
            going.spec("a-" * 24 + "long-name"), policy="one-by-one", merge_rounds=0
        )
        going.fill(store, long, 30)
        with serve_page(PageConfig(port=0), lambda: read_store(tmp_path)) as url:
            size = f"--window-size={width},2400"
            chromium(tmp_path / "p", size, *dark, "--virtual-time-budget=3000", f"--screenshot={shot}", url)
    with Image.open(shot) as image:
        pixels = np.asarray(image.convert("RGB"), np.int64)
    paper = np.median(pixels[:, :8].reshape(-1, 3), axis=0)
    assert pixels.shape == (2400, width, 3)
    assert bool(paper.mean() > 200) == (scheme == "light")
    margin = pixels[:, -6:]
    assert (abs(margin - paper).sum(axis=2) < 12).all(), "something runs over the right edge"
    assert (abs(pixels - paper).sum(axis=2) > 120).mean() > 0.02
