"""How the Files API of a loopback workspace reads: a file or a range of it, a page of a folder."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.utils import formatdate, parsedate_to_datetime
from pathlib import Path
from typing import Any

from catalogger.testing.files_replies import Call, Reply
from catalogger.testing.refusal import RefusalError, document

_PAGE = 1000  # entries at most in one page of a listing
_RANGE = re.compile(r"bytes=(\d+)-(\d*)")


def content(call: Call, file: Path) -> Reply:
    """The file or the range of it that is asked for; the head alone for HEAD."""
    stat = file.stat()
    size, modified = stat.st_size, int(stat.st_mtime)
    headers = {
        "Content-Type": "application/octet-stream",
        "Last-Modified": formatdate(modified, usegmt=True),
        "Accept-Ranges": "bytes",
    }
    unmodified = call.headers.get("if-unmodified-since")
    if unmodified and parsedate_to_datetime(unmodified) < datetime.fromtimestamp(modified, UTC):
        raise RefusalError(412, "PRECONDITION_FAILED", "The file was modified.")
    start, stop, status = 0, size, 200
    if call.method == "GET" and (found := _RANGE.fullmatch(call.headers.get("range", ""))):
        start, stop = int(found[1]), min(int(found[2]) + 1, size) if found[2] else size
        if start >= stop:
            raise RefusalError(416, "RANGE_NOT_SATISFIABLE", "The range is not satisfiable.")
        status, headers["Content-Range"] = 206, f"bytes {start}-{stop - 1}/{size}"
    headers["Content-Length"] = str(stop - start)
    return Reply(status, headers, file, start, stop)


def listing(call: Call, root: Path, folder: Path) -> Reply:
    """One page of what lies directly in a folder."""
    said = call.body.document()  # MLflow asks for a page in a body, the SDK in the query
    start = int(call.asked("page_token") or said.get("page_token", 0))
    size = min(int(call.asked("page_size") or said.get("page_size", _PAGE)), _PAGE)
    entries = sorted(folder.iterdir())
    page: dict[str, Any] = {"contents": [_entry(root, entry) for entry in entries[start : start + size]]}
    if start + size < len(entries):
        page["next_page_token"] = str(start + size)
    return document(page)


def _entry(root: Path, entry: Path) -> dict[str, Any]:
    facts = {"path": f"/{entry.relative_to(root).as_posix()}", "name": entry.name}
    if entry.is_dir():
        return {**facts, "is_directory": True}
    stat = entry.stat()
    modified = stat.st_mtime_ns // 1_000_000
    return {**facts, "is_directory": False, "file_size": stat.st_size, "last_modified": modified}
