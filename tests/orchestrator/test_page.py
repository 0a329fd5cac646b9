"""The page in a real browser, headless: nothing runs over its edges, no label covers another."""

from __future__ import annotations

import json
import shutil
import subprocess

import numpy as np
import pytest
from finished import MODEL, RAPL, a_run

from mas_edge.orchestrator.reports.page import Named, page

pytest.importorskip("matplotlib", reason="the page needs matplotlib (extra orchestrator)")
Image = pytest.importorskip("PIL.Image", reason="pillow reads the screenshot")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium: apt-get install chromium")

LOOK = """<script>
const found = {wide: document.documentElement.scrollWidth - innerWidth, over: [], small: [], outside: []};
for (const svg of document.querySelectorAll("svg")) {
  const edge = svg.getBoundingClientRect(), texts = [...svg.querySelectorAll("text")];
  const boxes = texts.map(text => text.getBoundingClientRect());
  boxes.forEach((a, i) => {
    const b0 = texts[i].textContent;
    const aside = a.left < edge.left - 1 || a.right > edge.right + 1;
    if (aside || a.top < edge.top - 1 || a.bottom > edge.bottom + 1)
      found.outside.push(b0);
    if (a.height < 8) found.small.push(b0);
    for (let j = i + 1; j < boxes.length; j++) {
      const b = boxes[j];
      const w = Math.min(a.right, b.right) - Math.max(a.left, b.left);
      const h = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
      if (w > 1 && h > 3) found.over.push([b0, texts[j].textContent]);
    }
  });
}
for (const cell of document.querySelectorAll("td, th, dd, h1"))
  if (cell.scrollWidth > cell.clientWidth + 1) found.outside.push(cell.textContent);
document.title = JSON.stringify(found);
</script>"""


def chromium(*options):
    """What headless Chromium prints; it needs no sandbox for a file of our own."""
    command = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", *options]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    shown, other = Named("runs/one", a_run()), Named("runs/two", a_run(joules=3.9, sensors=(RAPL, MODEL)))
    (folder / "page.html").write_text(page(shown, other, g_per_kwh=400.0), "utf-8")
    return folder


@pytest.mark.parametrize("width", [1280, 480])
def test_no_label_lies_on_another_and_nothing_runs_over(width, folder):
    text = (folder / "page.html").read_text("utf-8").replace("</body>", f"{LOOK}</body>")
    (folder / "looked.html").write_text(text, "utf-8")
    profile = f"--user-data-dir={folder / 'profile'}"
    dom = chromium(profile, f"--window-size={width},900", "--dump-dom", f"file://{folder / 'looked.html'}")
    found = json.loads(dom.partition("<title>")[2].partition("</title>")[0])
    assert found == {"wide": 0, "over": [], "small": [], "outside": []}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_screenshot_shows_a_page_in_the_readers_colours(scheme, folder):
    shot = folder / f"{scheme}.png"
    dark = ["--blink-settings=preferredColorScheme=0"] if scheme == "dark" else []
    profile = f"--user-data-dir={folder / 'profile'}"
    chromium(
        profile, "--window-size=1280,2400", *dark, f"--screenshot={shot}", f"file://{folder / 'page.html'}"
    )
    with Image.open(shot) as image:
        pixels = np.asarray(image.convert("RGB"), np.int64)
    paper = np.median(pixels.reshape(-1, 3), axis=0)
    assert pixels.shape == (2400, 1280, 3)
    assert bool(paper.mean() > 200) == (scheme == "light")
    assert (abs(pixels - paper).sum(axis=2) > 120).mean() > 0.02
    assert len(np.unique(pixels @ (65536, 256, 1))) > 100
