"""Folders of a workspace's files, as its Files API lists them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import quote

from catalogger.errors import Refused
from catalogger.remote.rest import Rest

Ask = Callable[[str, Mapping[str, Any] | None], Mapping[str, Any] | None]
"""The answer's document for a path and a query; None where the folder is not there."""


def sizes_below(ask: Ask, root: str) -> dict[str, int]:
    """Every file below `root`, with its size in bytes; none where the folder is not there."""
    found: dict[str, int] = {}
    folders = [root]
    while folders:
        for entry in entries(ask, folders.pop()):
            if entry.get("is_directory"):
                folders.append(entry["path"].rstrip("/"))
            else:
                found[entry["path"].removeprefix(f"{root}/")] = int(entry.get("file_size", 0))
    return found


def entries(ask: Ask, folder: str) -> Iterator[Mapping[str, Any]]:
    """What lies directly in a folder, page by page."""
    query: dict[str, str] | None = None
    while True:
        page = ask(f"/api/2.0/fs/directories{quote(folder)}", query) or {}
        yield from page.get("contents", ())
        if not (token := page.get("next_page_token")):
            return
        query = {"page_token": token}


def asked_of(rest: Rest) -> Ask:
    """Ask by a client that raises Refused."""

    def ask(path: str, query: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
        try:
            return rest.call("GET", path, query=query)
        except Refused as refused:
            if refused.status != 404:
                raise
            return None

    return ask
