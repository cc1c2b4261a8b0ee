"""Manifest files, and those that they include, to what they want; all that is wrong with any of them, at once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from catalogger.errors import ManifestInvalid
from catalogger.fleet.entries import Consent, Page, Wanted, Wrong
from catalogger.fleet.manifest import Options
from catalogger.recipes.documents import NotADocument, Place, parse

_LARGEST = 1 << 20  # bytes of one file
_MOST_FILES = 200
_MOST_ENTRIES = 10_000


@dataclass(frozen=True)
class Wish:
    """All that the manifests want.  `digest` is over their content and the variables' values."""

    entries: tuple[Wanted, ...]
    files: tuple[str, ...]
    digest: str

    def only(self, names: Sequence[str]) -> Wish:
        """The entries of these names.  Raises ManifestInvalid for one that is not there."""
        known = {wanted.name for wanted in self.entries}
        if missing := [name for name in names if name not in known]:
            said = [("--only", None, name, "is the name of no entry") for name in missing]
            raise ManifestInvalid(said, f"Known are {', '.join(sorted(known)) or 'none'}.")
        return replace(self, entries=tuple(w for w in self.entries if w.name in names)) if names else self


def read_manifests(files: Iterable[str | Path], variables: Mapping[str, str], consent: Consent) -> Wish:
    """Every entry of the files and of those that they include.

    variables: values of `${NAME}`; after them the environment's `CATALOGGER_VAR_NAME`, then the file's own.
    Raises ManifestInvalid with every problem of every file.
    """
    reading = _Reading(variables, consent)
    for file in files:
        reading.read(Path(file), Options(), {}, ())
    reading.compare()
    if reading.wrong:
        order = {str(file): number for number, file in enumerate(reading.seen)}
        raise ManifestInvalid(sorted(reading.wrong, key=lambda w: (order.get(w[0], 0), w[1] or 0)))
    return Wish(tuple(reading.entries), tuple(map(str, reading.seen)), reading.digest.hexdigest())


@dataclass
class _Reading:
    """What was read so far."""

    given: Mapping[str, str]
    consent: Consent
    entries: list[Wanted] = field(default_factory=list)
    wrong: list[Wrong] = field(default_factory=list)
    seen: dict[Path, Path] = field(default_factory=dict)  # real paths, by the path as it was written
    digest: Any = field(default_factory=hashlib.sha256)

    def read(self, file: Path, defaults: Options, variables: Mapping[str, Any], within: tuple[Path, ...]) -> None:
        """One file and what it includes; `variables` and `defaults` are those of the file that includes it."""
        real = file.resolve()
        if problem := self._unfit(real, within):
            self._say(file, None, "include" if within else "", problem)
            return
        self.seen[file] = real
        if (parsed := self._parsed(file)) is None:
            return
        page = Page(file, *parsed, self.given, self.consent)
        own = page.data.get("variables")
        known = {**(own if isinstance(own, dict) else {}), **variables}
        page.fill(known)
        page.check()
        mine = page.defaults(defaults)
        page.entries(mine)
        below = page.included()
        self.entries += page.found
        self.wrong += page.wrong
        self.digest.update(json.dumps(page.used, sort_keys=True).encode())
        for file in below:
            self.read(file, mine, known, (*within, real))

    def _unfit(self, real: Path, within: tuple[Path, ...]) -> str | None:
        if real in within:
            return f"a cycle: {' → '.join(p.name for p in (*within, real))}"
        if real in self.seen.values():
            return "is there twice"
        return f"is one of more than {_MOST_FILES} files" if len(self.seen) >= _MOST_FILES else None

    def compare(self) -> None:
        """No two entries for one target; names that differ in case only are one for Databricks."""
        first: dict[str, Wanted] = {}
        for wanted in self.entries:
            before = first.setdefault(wanted.name.lower(), wanted)
            if before is not wanted:
                same = (
                    "the same name" if before.name == wanted.name else f'"{before.name}", the same name but for case,'
                )
                file, _, line = wanted.at.rpartition(":")
                self._say(Path(file), int(line), "name", f'"{wanted.name}": {same} stands at {before.at}')
        if len(self.entries) > _MOST_ENTRIES:
            self.wrong.append(("", None, "", f"more than {_MOST_ENTRIES} entries"))

    def _parsed(self, file: Path) -> tuple[dict[str, Any], dict[Place, int]] | None:
        """Data and lines of the file; None where it has none, which is said."""
        try:
            if file.stat().st_size > _LARGEST:
                self._say(file, None, "", f"is larger than {_LARGEST >> 20} MiB, so it is no manifest")
                return None
            content = file.read_bytes()
            if content.strip():
                self.digest.update(hashlib.sha256(content).digest())
                return parse(content.decode("utf-8"))
            self._say(file, None, "", "is empty")
        except (OSError, UnicodeDecodeError) as error:
            self._say(file, None, "", f"cannot be read: {error}")
        except NotADocument as error:
            self.wrong += [(str(file), *problem) for problem in error.problems]
        return None

    def _say(self, file: Path, line: int | None, key: str, text: str) -> None:
        self.wrong.append((str(file), line, key, text))
