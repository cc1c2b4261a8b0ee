"""How a workspace lets a large file past itself: in parts, to its storage."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol
from urllib.parse import quote

from catalogger.errors import CataloggerError, Refused, RegistryError
from catalogger.remote.multipart import MultipartUpload
from catalogger.remote.parts import Span
from catalogger.remote.presigned import Presigned, address
from catalogger.remote.rest import Rest
from catalogger.remote.resumable import ResumableUpload
from catalogger.remote.sessions import Body

FILES = "/api/2.0/fs/files"


class NotInParts(Exception):
    """Parts do not get to the storage from here; `reason` says why."""

    def __init__(self, reason: CataloggerError) -> None:
        self.reason = reason
        super().__init__(reason.message)


class Upload(Protocol):
    """An upload that was begun; it is ended by `complete` or `abort`.  So many parts may be under way `at_once`."""

    at_once: int

    def put(self, span: Span, content: Callable[[Span], Body]) -> None: ...

    def complete(self) -> None: ...

    def abort(self) -> None: ...


def begin(rest: Rest, presigned: Presigned, path: str, size: int, parts: int) -> Upload:
    """Begin to send a file to `path`, in the way that the workspace chooses.

    Raises NotInParts where it refuses, and what `Rest.call` raises else.
    """
    file = f"{FILES}{quote(path)}"
    try:
        begun = rest.call("POST", file, query={"action": "initiate-upload", "overwrite": "true"})
        if token := _token(begun, "multipart_upload"):
            return MultipartUpload(rest, presigned, file, path, token, parts)
        if token := _token(begun, "resumable_upload"):
            asked = {"path": path, "session_token": token}
            answer = rest.call("POST", "/api/2.0/fs/create-resumable-upload-url", asked)
            if session := answer.get("resumable_upload_url"):
                return ResumableUpload(presigned, address(session), size)
    except Refused as refusal:
        raise NotInParts(refusal) from refusal
    raise NotInParts(RegistryError(f'"{rest.base}" takes no parts of "{path}".'))


def _token(begun: Mapping[str, Any], kind: str) -> str | None:
    return (begun.get(kind) or {}).get("session_token")
