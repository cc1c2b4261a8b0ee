"""The folders and files of a loopback workspace that are below /Workspace: what a bundle's deployment writes.

All in memory. It must not know HTTP, nor the Files API, whose volumes and models are elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from catalogger.testing.refusal import RefusalError, missing, wrong

Document = dict[str, Any]


class WorkspaceFiles:
    """Paths may be written with or without /Workspace before them; answers have them as they were asked for."""

    def __init__(self) -> None:
        self._folders: dict[str, int] = {}
        self._files: dict[str, tuple[int, bytes]] = {}
        for path in ("/", "/Users", "/Shared"):
            self.make_folder(path)

    @property
    def paths(self) -> list[str]:
        """Every file, in order, without /Workspace."""
        return sorted(self._files)

    def make_folder(self, path: str) -> None:
        """With all above it; one that is there stays as it is."""
        at = _at(path)
        if at in self._files:
            raise RefusalError(400, "RESOURCE_ALREADY_EXISTS", f"{path} is a file")
        for folder in (*_above(at), at):
            self._folders.setdefault(folder, self._next())

    def status(self, path: str) -> Document:
        at = _at(path)
        if at in self._folders:
            return {"object_type": "DIRECTORY", "path": path, "object_id": self._folders[at]}
        number, content = self._file(path)
        return {"object_type": "FILE", "path": path, "object_id": number, "size": len(content)}

    def listed(self, path: str) -> list[Document]:
        """What is right in the folder."""
        at = _at(path)
        if at not in self._folders:
            return [self.status(path)]
        inside = [p for p in (*self._folders, *self._files) if p != "/" and str(PurePosixPath(p).parent) == at]
        return [self.status(f"{path.rstrip('/')}/{PurePosixPath(p).name}") for p in sorted(inside)]

    def read(self, path: str) -> bytes:
        if _at(path) in self._folders:
            raise wrong(f"{path} is a directory.")
        return self._file(path)[1]

    def write(self, path: str, content: bytes, *, overwrite: bool) -> None:
        at = _at(path)
        parent = str(PurePosixPath(at).parent)
        if parent not in self._folders:
            raise missing(f"The parent folder ({parent}) does not exist.")
        if at in self._folders or (at in self._files and not overwrite):
            raise RefusalError(409, "RESOURCE_ALREADY_EXISTS", f"Path ({path}) already exists.")
        number = self._files[at][0] if at in self._files else self._next()
        self._files[at] = (number, content)

    def delete(self, path: str, *, recursive: bool) -> None:
        at = _at(path)
        if at in self._folders:
            below = [p for p in (*self._folders, *self._files) if p.startswith(f"{at.rstrip('/')}/") and p != at]
            if below and not recursive:
                raise RefusalError(400, "DIRECTORY_NOT_EMPTY", f"Folder ({path}) is not empty")
            for inside in below:
                self._folders.pop(inside, None)
                self._files.pop(inside, None)
            del self._folders[at]
        else:
            self._file(path)
            del self._files[at]

    def _file(self, path: str) -> tuple[int, bytes]:
        if (found := self._files.get(_at(path))) is None:
            raise missing(f"Path ({path}) doesn't exist.")
        return found

    def _next(self) -> int:
        return max([*self._folders.values(), *(number for number, _ in self._files.values())], default=1000) + 1


def _at(path: str) -> str:
    """The path without /Workspace, without a slash behind it."""
    inside = path.removeprefix("/Workspace") if path == "/Workspace" or path.startswith("/Workspace/") else path
    if not path.startswith("/"):
        raise wrong(f"Path ({path}) doesn't start with '/'")
    return str(PurePosixPath(inside or "/"))


def _above(path: str) -> Iterator[str]:
    """The folders that the path is in, the outermost first."""
    yield from reversed([str(parent) for parent in PurePosixPath(path).parents])
