"""One schema on an open-source Unity Catalog server: on the loopback one, and on a real one where the environment
names it by `CATALOGGER_TEST_UC=http://host:port` (authorization off, a `file:` root that this machine sees too).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from contracts.place import Place, new_place
from fakes.unity import Unity

REAL = os.environ.get("CATALOGGER_TEST_UC", "").rstrip("/")


@pytest.fixture(params=["loopback", *(["real"] if REAL else [])])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """The schema, which goes with all that is in it."""
    if request.param == "loopback":
        with Unity((tmp_path / "root").as_uri()) as unity:
            yield new_place(unity.url)
        return
    place = new_place(REAL)
    yield place
    assert place.ask("DELETE", f"/catalogs/{place.catalog}", force="true").status_code == 200
