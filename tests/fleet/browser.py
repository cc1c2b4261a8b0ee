"""Pages in a real browser: how a page looks in light and dark, as a picture and as contrasts of its texts."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from typing import Literal

import pytest

Scheme = Literal["dark", "light"]
_SCHEMES: dict[Scheme, int] = {"dark": 0, "light": 1}
_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
_MEASURE = """
<script>
function rgb(text) { return text.match(/[\\d.]+/g).map(Number); }
function shine(c) {
  const [r, g, b] = c.slice(0, 3).map(v => v / 255).map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}
function behind(e) {
  for (; e; e = e.parentElement) {
    const c = rgb(getComputedStyle(e).backgroundColor);
    if (c.length < 4 || c[3] > 0) return c;
  }
  return [255, 255, 255];
}
addEventListener('load', () => {
  const found = [];
  for (const e of document.body.querySelectorAll('*:not(script):not(pre[id])')) {
    const own = [...e.childNodes].filter(n => n.nodeType == 3).map(n => n.textContent.trim()).join('');
    if (!own) continue;
    const [a, b] = [shine(rgb(getComputedStyle(e).color)), shine(behind(e))];
    const box = e.getBoundingClientRect();
    found.push({text: own, contrast: (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), right: box.right});
  }
  const back = behind(document.body);
  const out = document.createElement('pre');
  out.id = 'measured';
  out.textContent = JSON.stringify({found, back, width: innerWidth, scripts: document.scripts.length});
  document.body.append(out);
});
</script>
"""


@dataclass(frozen=True)
class Shown:
    """What the browser says of a page: contrast of each text (1 to 21), its right edge, the page's width and colour."""

    texts: dict[str, float]
    right: float
    width: float
    back: tuple[float, ...]
    scripts: int


def look(page: str, folder: Path, scheme: Scheme) -> Shown:
    """Open the page and measure what is shown."""
    file = folder / f"{scheme}.html"
    file.write_text(page + _MEASURE)
    dom = _run(scheme, "--virtual-time-budget=2000", "--dump-dom", file.as_uri())
    found = re.search(r'<pre id="measured">(.*?)</pre>', dom, re.DOTALL)
    assert found, dom[-2000:]
    said = json.loads(unescape(found[1]))
    texts = {one["text"]: one["contrast"] for one in said["found"]}
    right = max(one["right"] for one in said["found"])
    return Shown(texts, right, said["width"], tuple(said["back"]), said["scripts"] - 1)


def picture(page: str, folder: Path, scheme: Scheme) -> bytes:
    """The page as PNG."""
    file, image = folder / "page.html", folder / f"{scheme}.png"
    file.write_text(page)
    _run(scheme, "--hide-scrollbars", f"--screenshot={image}", file.as_uri())
    return image.read_bytes()


def _run(scheme: Scheme, *more: str) -> str:
    browser = next((path for name in _NAMES if (path := shutil.which(name))), None)
    if browser is None:
        pytest.fail("The pages are looked at in a browser: apt-get install chromium")
    command = [browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1100,800"]
    settings = [f"--blink-settings=preferredColorScheme={_SCHEMES[scheme]}", "--no-first-run", "--disable-extensions"]
    done = subprocess.run([*command, *settings, *more], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout
