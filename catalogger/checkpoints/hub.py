"""Open a Hub repository by metadata only, and fetch its files with huggingface_hub's own resumable download.

HF_TOKEN, HF_HOME, HF_HUB_OFFLINE and HF_ENDPOINT are huggingface_hub's business; this room only asks it.  Nothing here
runs code of a repository.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import re
from collections.abc import Iterable, Mapping
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from catalogger.checkpoints.asking import TIMEOUT, at_revision, first_line, get, patiently, translated, transport_errors
from catalogger.checkpoints.facts import Checkpoint, File, Origin, Shard
from catalogger.checkpoints.folder import LARGEST_SMALL, assemble, licence_id, open_folder, require_config
from catalogger.checkpoints.headers import Read, read_shard
from catalogger.checkpoints.selection import select
from catalogger.errors import (
    AccessDenied,
    CheckpointError,
    DigestMismatch,
    NetworkUnreachable,
    UsageError,
    human,
)
from catalogger.files.digests import DigestMemory, git_blob, hash_file
from catalogger.files.rate import limit, pace

_COMMIT = re.compile(r"[0-9a-f]{40}")
_CONNECTIONS = 8


def open_hub(repo: str, revision: str | None, asked: str, *, allow_pickle: bool = False) -> Checkpoint:
    """The facts of a repository at a commit: small files fetched to the Hub's cache, of the shards only the headers.

    Raises RepositoryNotFound, AccessDenied, NetworkUnreachable, CheckpointError.
    """
    if _offline():
        folder = _cached_folder(repo, revision, "config.json")
        return open_folder(folder, Origin("hub", repo, folder.name, asked), allow_pickle=allow_pickle)
    listing = listed(repo, revision)
    origin = Origin("hub", repo, listing.commit, asked)
    chosen = select(listing.files)
    require_config(chosen, origin)
    names = (*chosen.small, *chosen.code)
    _require_small(origin, [listing.files[name] for name in names])
    with ThreadPoolExecutor(_CONNECTIONS) as pool, translated(repo, revision):
        small = dict(zip(names, pool.map(lambda path: small_file(origin, listing.files[path]), names), strict=True))
        shards = tuple(pool.map(lambda path: _header(origin, listing.files[path]), chosen.weights))
        _remember_revision(repo, revision, listing.commit)
    return assemble(
        origin, chosen, small, shards, listing.files, licence=listing.licence, root=None, allow_pickle=allow_pickle
    )


def commit_of(repo: str, revision: str | None) -> str:
    """The commit that a branch or tag is now, by one request; a commit is itself, by none.

    Raises RepositoryNotFound, AccessDenied, NetworkUnreachable.
    """
    from huggingface_hub import HfApi

    if revision and _COMMIT.fullmatch(revision):
        return revision
    if _offline():
        return _cached_folder(repo, revision, "config.json").name
    with translated(repo, revision):
        return str(patiently(lambda: HfApi().model_info(repo, revision=revision, timeout=TIMEOUT)).sha)


def who_am_i() -> tuple[str, str | None]:
    """The Hub's address, and the name of the account that the token belongs to; None where no token was sent.

    Raises AccessDenied for a token that is not valid, and NetworkUnreachable.
    """
    from huggingface_hub import constants, get_token
    from huggingface_hub.utils import build_hf_headers, get_session

    address = str(constants.ENDPOINT)
    if _offline():
        raise NetworkUnreachable("HF_HUB_OFFLINE is set: the Hub is not asked.", "Unset it to fetch anything.")
    gone: tuple[type[Exception], ...] = (OSError, *transport_errors())
    try:
        answer = get_session().get(f"{address}/api/whoami-v2", headers=build_hf_headers(), timeout=TIMEOUT)
    except gone as error:
        reason = f'The Hub at "{address}" cannot be reached: {first_line(error)}.'
        raise NetworkUnreachable(reason, "Check the network, the proxy and HF_ENDPOINT.") from error
    if answer.status_code == 200:
        return address, str(answer.json().get("name"))
    if answer.status_code in (401, 403) and get_token() is None:
        return address, None
    if answer.status_code in (401, 403):
        raise AccessDenied(f'The Hub at "{address}" does not take the token.', "Set HF_TOKEN to one that is valid.")
    raise NetworkUnreachable(f'The Hub at "{address}" answered {answer.status_code}.', "Try it later.")


def python_files(repo: str, revision: str | None, probe: str) -> tuple[str, dict[str, bytes]]:
    """The commit and the Python files at the root of a repository, each compared with the Hub's digest.

    `probe` is one of them, by which the repository is found in the cache when the Hub may not be asked.
    """
    if _offline():
        folder = _cached_folder(repo, revision, probe)
        return folder.name, {path.name: path.read_bytes() for path in sorted(folder.glob("*.py"))}
    listing = listed(repo, revision)
    origin = Origin("hub", repo, listing.commit, repo)
    names = select(listing.files).code
    _require_small(origin, [listing.files[name] for name in names])
    with translated(repo, revision):
        code = {path: small_file(origin, listing.files[path]) for path in names}
        _remember_revision(repo, revision, listing.commit)
    return listing.commit, code


def branches(repo: str) -> Mapping[str, str]:
    """The commit of every branch and tag of a repository, by its name.  One request.

    Raises what `open_hub` raises.
    """
    from huggingface_hub import constants
    from huggingface_hub.utils import build_hf_headers

    if _offline():
        raise NetworkUnreachable("HF_HUB_OFFLINE is set, so the Hub is not asked.", "Unset it.")
    url = f"{constants.ENDPOINT}/api/models/{repo}/refs"
    with translated(repo, None):
        told = json.loads(patiently(lambda: get(url, build_hf_headers(), LARGEST_SMALL)))
    return {str(ref["name"]): str(ref["targetCommit"]) for ref in (*told["tags"], *told["branches"])}


def fetch_some(repo: str, revision: str | None, paths: Iterable[str]) -> tuple[str, Path]:
    """The commit, and the folder of the Hub's cache that holds those of the files that the repository has, verified.

    Raises RepositoryNotFound, AccessDenied, NetworkUnreachable, DigestMismatch, CheckpointError where it has none.
    """
    paths = tuple(paths)
    if _offline():
        folder = _cached_folder(repo, revision, paths[0])
        return folder.name, folder
    listing = listed(repo, revision)
    origin = Origin("hub", repo, listing.commit, repo)
    there = [listing.files[path] for path in paths if path in listing.files]
    if not there:
        raise CheckpointError(repo, f'has no "{paths[0]}"', "Look at the spelling of the repository.")
    with translated(repo, revision):
        for file in there:
            _fetch(origin, file, DigestMemory())
        _remember_revision(repo, revision, listing.commit)
    folder = _cached_folder(repo, listing.commit, there[0].path)
    return listing.commit, folder


def fetch(checkpoint: Checkpoint, memory: DigestMemory) -> Checkpoint:
    """The checkpoint with its weights in the Hub's cache too, each new file compared with the Hub's digest.

    A file that was already there is taken by its name and size, as the cache is content-addressed; with a `memory` that
    distrusts, it is hashed too.  A file with wrong bytes is removed and fetched once more.
    Raises DigestMismatch, AccessDenied, NetworkUnreachable, DiskError.
    """
    if checkpoint.root is not None:
        return checkpoint
    origin = checkpoint.origin
    pool = ThreadPoolExecutor(_CONNECTIONS // 2)
    try:
        with translated(origin.location, origin.revision):
            jobs = [pool.submit(_fetch, origin, shard.file, memory) for shard in checkpoint.shards]
            for job in wait(jobs, return_when=FIRST_EXCEPTION).done:
                job.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    config = _cached(origin, "config.json")
    if config is None:
        raise CheckpointError(
            origin.location, "vanished from the Hub's cache while it was fetched", "Run the same command again."
        )
    return replace(checkpoint, root=config.parent)


def to_fetch(checkpoint: Checkpoint) -> int:
    """Bytes of weights that are not in the Hub's cache."""
    if checkpoint.root is not None:
        return 0
    return sum(s.file.size for s in checkpoint.shards if not cached(checkpoint.origin, s.file))


def cached(origin: Origin, file: File) -> Path | None:
    """Where the Hub's cache holds the file with its size; None where it does not."""
    path = _cached(origin, file.path)
    return path if path is not None and path.stat().st_size == file.size else None


def cache_root() -> Path:
    """The folder that downloads go to."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


@dataclass(frozen=True)
class Listing:
    """What the Hub says of a repository: the commit, every file with its size and digest, the card's licence."""

    commit: str
    files: Mapping[str, File]
    licence: str | None


def listed(repo: str, revision: str | None) -> Listing:
    """The repository at the revision, by one request."""
    from huggingface_hub import HfApi

    with translated(repo, revision):
        info = patiently(lambda: HfApi().model_info(repo, revision=revision, files_metadata=True, timeout=TIMEOUT))
    files = {s.rfilename: _file(s) for s in info.siblings or []}
    return Listing(str(info.sha), files, licence_id(info.card_data or {}))


def _file(sibling: Any) -> File:
    lfs = sibling.lfs
    return File(sibling.rfilename, sibling.size or 0, lfs["sha256"] if lfs else None, None if lfs else sibling.blob_id)


def _offline() -> bool:
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def _cached_folder(repo: str, revision: str | None, probe: str) -> Path:
    """The snapshot of the revision in the Hub's cache.  A shard that is not in it is for the rules to find."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repo, probe, revision=revision)
    if not isinstance(found, str):
        at = at_revision(repo, revision)
        raise NetworkUnreachable(
            f"HF_HUB_OFFLINE is set and {at} is not in the cache.", "Unset HF_HUB_OFFLINE to fetch it."
        )
    return Path(found).parent


def _remember_revision(repo: str, revision: str | None, commit: str) -> None:
    """Write which commit the branch or tag is, where the client looks for it when it may not ask the Hub.

    The client writes it only for files that it is asked for by that name; here they are asked for by the commit.
    """
    from huggingface_hub.file_download import repo_folder_name

    if revision == commit:
        return
    ref = cache_root() / repo_folder_name(repo_id=repo, repo_type="model") / "refs" / (revision or "main")
    ref.parent.mkdir(parents=True, exist_ok=True)
    ref.write_text(commit)


def _require_small(origin: Origin, files: Iterable[File]) -> None:
    """Raises CheckpointError for a file that is too large to be read whole, before any is fetched."""
    for file in files:
        if file.size > LARGEST_SMALL:
            what = f'has a "{file.path}" of {human(file.size)}, which is too large to be one'
            raise CheckpointError(origin.location, what)


def small_file(origin: Origin, file: File) -> bytes:
    """The content of a small file, which is what its digest says."""
    for last in (False, True):
        path = _download(origin, file.path)
        content = path.read_bytes()
        found = git_blob(content) if file.blob else hashlib.sha256(content).hexdigest()
        if found == expected(file):
            return content
        _remove(path)
        if last:
            raise DigestMismatch(origin.location, file.path, expected(file), found)
    raise AssertionError("the last try returns or raises")


def _header(origin: Origin, file: File) -> Shard:
    if path := cached(origin, file):
        with path.open("rb") as stream:
            return read_shard(file, lambda start, end: os.pread(stream.fileno(), end - start, start))
    return read_shard(file, _ranged(origin, file))


def _ranged(origin: Origin, file: File) -> Read:
    from huggingface_hub import hf_hub_url
    from huggingface_hub.utils import build_hf_headers

    url = hf_hub_url(origin.location, file.path, revision=origin.revision)
    headers = build_hf_headers()

    def read(start: int, end: int) -> bytes:
        return bytes(patiently(lambda: get(url, {**headers, "Range": f"bytes={start}-{end - 1}"}, end - start)))

    return read


def _download(origin: Origin, path: str) -> Path:
    from huggingface_hub import hf_hub_download

    more = {"tqdm_class": _paced()} if limit() else {}
    return Path(patiently(lambda: hf_hub_download(origin.location, path, revision=origin.revision, **more)))


def _paced() -> type[Any]:
    """A bar that shows nothing and lets no more bytes pass than the limit allows.

    Raises UsageError where this huggingface_hub takes none.
    """
    from huggingface_hub import hf_hub_download
    from tqdm import tqdm

    if "tqdm_class" not in inspect.signature(hf_hub_download).parameters:
        raise UsageError("--max-rate needs a newer huggingface_hub.", "pip install 'huggingface_hub>=1.0'")

    class Paced(tqdm):  # type: ignore[type-arg]
        def __init__(self, *_: Any, **given: Any) -> None:
            super().__init__(total=given.get("total"), disable=True)

        def update(self, n: float | None = 1) -> bool | None:
            pace(int(n or 0))
            return None

    return Paced


def _cached(origin: Origin, path: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(origin.location, path, revision=origin.revision)
    return Path(found) if isinstance(found, str) else None


def _fetch(origin: Origin, file: File, memory: DigestMemory) -> None:
    present = cached(origin, file)
    path = _download(origin, file.path)
    if present and not memory.distrusts:
        return
    for last in (False, True):
        found = _digest(path, file, memory)
        if found == expected(file):
            return
        _remove(path)
        if last:
            raise DigestMismatch(origin.location, file.path, expected(file), found)
        path = _download(origin, file.path)


def expected(file: File) -> str:
    """The Hub's digest; Git's object id outside its large-file storage."""
    return file.blob or file.sha256 or ""


def _digest(path: Path, file: File, memory: DigestMemory) -> str:
    if file.blob:
        return git_blob(path.read_bytes())
    return hash_file(path, memory)


def _remove(path: Path) -> None:
    path.resolve().unlink(missing_ok=True)
    path.unlink(missing_ok=True)
