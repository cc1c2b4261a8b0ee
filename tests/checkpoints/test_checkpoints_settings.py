"""huggingface_hub's environment variables, in processes of their own as the client reads them at import."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from checkpoints.shard_bytes import files
from fakes.hub import Hub
from fakes.secrets import secret

NAME = "org/tiny"
TOKEN = secret("a user of the Hub", "hugging face")
_SCRIPT = """
import json, sys
from catalogger.checkpoints import fetch, open_source
from catalogger.files.digests import DigestMemory
from catalogger.errors import CataloggerError
try:
    found = fetch(open_source(sys.argv[1]), DigestMemory())
    print(json.dumps({"root": str(found.root), "revision": found.origin.revision}))
except CataloggerError as error:
    print(json.dumps({"error": error.document()}))
"""


def _run(source: str, **settings: str) -> tuple[dict[str, Any], str]:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **settings}
    done = subprocess.run([sys.executable, "-c", _SCRIPT, source], env=env, capture_output=True, text=True, check=True)
    return json.loads(done.stdout), done.stdout + done.stderr


def test_settings_of_the_environment(tmp_path: Path) -> None:
    with Hub() as hub:
        hub.accepted.add(TOKEN)
        commit = hub.add(NAME, files(), gated=True)
        home = tmp_path / "home"
        settings = {"HF_ENDPOINT": hub.url, "HF_HOME": str(home)}

        refused, said = _run(NAME, **settings)
        assert refused["error"]["exit_code"] == 4
        assert f"{hub.url}/{NAME}" in refused["error"]["fix"]

        wrong = secret("nobody", "hugging face")
        refused, said = _run(NAME, **settings, HF_TOKEN=wrong)
        assert (refused["error"]["code"], wrong in said) == ("access-denied", False)

        found, said = _run(NAME, **settings, HF_TOKEN=TOKEN)
        root = home / "hub" / "models--org--tiny" / "snapshots" / commit
        assert found == {"root": str(root), "revision": commit}
        assert TOKEN not in said

        before = len(hub.requests)
        offline, _ = _run(f"{NAME}@{commit}", **settings, HF_HUB_OFFLINE="1")
        assert offline == found
        assert len(hub.requests) == before


def test_cache_folder_of_its_own(tmp_path: Path) -> None:
    with Hub() as hub:
        hub.add(NAME, files())
        found, _ = _run(NAME, HF_ENDPOINT=hub.url, HF_HOME=str(tmp_path / "home"), HF_HUB_CACHE=str(tmp_path / "cache"))
        assert Path(found["root"]).is_relative_to(tmp_path / "cache")
