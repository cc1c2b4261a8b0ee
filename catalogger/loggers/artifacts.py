"""Artifacts that only MLflow reads: what is there, and one file or all of it fetched.  Nothing there is changed."""

from __future__ import annotations

from pathlib import Path


def listing(location: str) -> dict[str, int]:
    """Every file below the address with its size in bytes."""
    from mlflow.artifacts import list_artifacts

    found: dict[str, int] = {}
    waiting = [""]
    while waiting:
        below = waiting.pop()
        for entry in list_artifacts(f"{location}/{below}".rstrip("/")):
            path = f"{below}/{Path(entry.path).name}".lstrip("/")
            if entry.is_dir:
                waiting.append(path)
            else:
                found[path] = int(entry.file_size or 0)
    return found


def fetched(location: str, folder: str) -> Path:
    """The file or folder, fetched into the folder: kinds of address differ in what is below it then."""
    from mlflow.artifacts import download_artifacts

    return Path(download_artifacts(location, dst_path=folder))
