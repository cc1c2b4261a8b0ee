"""Databricks' own default storage, by signed addresses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from catalogger.errors import AccessDenied, Refused
from catalogger.remote.cloud import CloudStorage, Content, Stored
from catalogger.remote.cloud_http import answered, refused
from catalogger.remote.directories import asked_of, entries, sizes_below
from catalogger.remote.patience import TryAgain, patiently
from catalogger.remote.rest import TIMEOUT, Rest
from catalogger.remote.sessions import plain_session

if TYPE_CHECKING:
    from requests import Response


def default_storage(full_name: str, version: str, registry_uri: str) -> CloudStorage:
    """Files of a model version in the workspace's own storage, by addresses that the workspace signs for each.

    Each file is one request, so the cloud below sets a limit on its size (5 GiB on AWS).
    Raises UsageError where the Databricks SDK is not installed, and AccessDenied where it finds no credentials.
    """
    from catalogger.remote.workspace import workspace

    location = f"/Models/{full_name.replace('.', '/')}/{version}"
    return CloudStorage(location, _Default(location, workspace(registry_uri)))


class _Default:
    def __init__(self, root: str, rest: Rest) -> None:
        self._root, self._rest, self._session = root, rest, plain_session()

    def sizes(self) -> Mapping[str, int]:
        return sizes_below(asked_of(self._rest), self._root)

    def stored(self, path: str) -> Stored:
        whole = f"{self._root}/{path}"
        beside = entries(asked_of(self._rest), whole.rpartition("/")[0])
        return Stored(next((int(e.get("file_size", 0)) for e in beside if e["path"] == whole), 0))

    def put(self, path: str, content: Content) -> None:
        content.until(content.size)  # one request takes all: the server would not wait for the rest
        self._by_signed_address("upload", "PUT", path, content)

    def get(self, path: str, span: tuple[int, int] | None = None) -> bytes:
        return self._by_signed_address("download", "GET", path, span=span)

    def delete(self, path: str) -> None:
        try:
            self._rest.call("DELETE", f"/api/2.0/fs/files{quote(f'{self._root}/{path}')}")
        except Refused as refused:
            if refused.status != 404:
                raise

    def _by_signed_address(
        self, kind: str, method: str, path: str, content: Content | None = None, span: tuple[int, int] | None = None
    ) -> bytes:
        renewed = False

        def attempt() -> bytes:
            nonlocal renewed
            signed = self._rest.call("POST", f"/api/2.0/fs/create-{kind}-url", {"path": f"{self._root}/{path}"})
            response = answered(self._root, lambda: self._follow(method, signed, content, span))
            if response.ok:
                return response.content
            refusal = refused(self._root, response.status_code, response.text)
            if isinstance(refusal, AccessDenied) and not renewed:  # the address may have expired on the way
                renewed = True
                raise TryAgain(refusal, after=0)
            raise refusal

        return patiently(attempt)

    def _follow(
        self, method: str, signed: Mapping[str, Any], content: Content | None, span: tuple[int, int] | None
    ) -> Response:
        if content:
            content.seek(0)
        ranged = {"Range": f"bytes={span[0]}-{sum(span) - 1}"} if span else {}
        return self._session.request(
            method,
            signed["url"],
            data=content,
            headers={header["name"]: header["value"] for header in signed.get("headers", [])} | ranged,
            auth=lambda request: request,  # nothing of ~/.netrc: the address is signed
            timeout=TIMEOUT,
            allow_redirects=False,
        )
