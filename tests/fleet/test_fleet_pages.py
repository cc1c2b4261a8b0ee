"""The report and the outcomes as a browser shows them: readable in light and dark, within the page, nothing run."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from fleet.browser import Scheme, look, picture
from PIL import Image

from catalogger.fleet.outcome import EntryOutcome, SyncOutcome
from catalogger.fleet.planning import Change
from catalogger.fleet.report import report
from catalogger.lines import as_table
from catalogger.page import page

LONG = "new version: org/model moved from 3b1c5e6a to 8c1d9f2b: weights, chat template, tokenizer, configuration, code"
HOSTILE = "<script>document.title = 'run'</script><img src=x onerror=\"document.title='run'\">"
DEPLOYMENT = {"url": "https://example.org/ml/endpoints/bot", "endpoint": "bot"}
ERROR = {"message": f"The source {HOSTILE} is none.", "fix": "Name another one.", "exit_code": 2}
SEEN = SyncOutcome(
    entries=(
        EntryOutcome("main.ml.a", "gte-large", "m.yaml:1", "registered", "4", (Change("version", LONG),), seconds=41.2),
        EntryOutcome(
            "main.ml.b", "llama-chat", "m.yaml:2", "updated", "7", (Change("alias", "moves"),), deployment=DEPLOYMENT
        ),
        EntryOutcome("main.ml.c", "bge-small", "m.yaml:3", "unchanged", "2"),
        EntryOutcome(f"main.ml.{HOSTILE}", "bge-small", "m.yaml:4", "failed", error=ERROR),
        EntryOutcome("main.ml.e", "bge-small", "m.yaml:5", "interrupted"),
        EntryOutcome("main.ml.f", "bge-small", "m.yaml:6", "planned", changes=(Change("tag", "team = search"),)),
    ),
    files=("m.yaml",),
    digest="ab" * 32,
    registry_uri="databricks-uc",
    seconds=352.3,
)
ROWS = [
    ("registered", "main.ml.a version 1"),
    ("page", "https://example.org/1"),
    ("from", "org/model"),
    ("note", HOSTILE),
]
PAGES = {
    "report": report(SEEN),
    "outcome": page("An outcome", as_table(ROWS, {"from": "https://example.org/model", "note": "javascript:alert(1)"})),
}
READABLE = 4.5  # WCAG 2.1, AA


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_every_text_can_be_read(name: str, scheme: Scheme, tmp_path: Path) -> None:
    shown = look(PAGES[name], tmp_path, scheme)
    faint = {text: round(contrast, 2) for text, contrast in shown.texts.items() if contrast < READABLE}
    assert faint == {}
    assert len(shown.texts) >= 5
    assert (sum(shown.back[:3]) > 3 * 128) == (scheme == "light")
    assert shown.right <= shown.width, "nothing leaves the page"
    assert shown.scripts == 0
    assert any(HOSTILE[:20] in text for text in shown.texts), "shown, and not run"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_picture_is_not_blank(scheme: Scheme, tmp_path: Path) -> None:
    image = Image.open(io.BytesIO(picture(PAGES["report"], tmp_path, scheme))).convert("L")
    low, high = image.getextrema()
    assert int(str(high)) - int(str(low)) > 150
    back = image.getpixel((2, 2))
    assert (int(str(back)) > 128) == (scheme == "light")


def test_a_page_fetches_nothing() -> None:
    for text in PAGES.values():
        assert "src=" not in text.replace("&lt;img src=", "")
        assert "<script" not in text
        assert "@import" not in text
        assert 'href="javascript' not in text
