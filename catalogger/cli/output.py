"""Results to stdout, everything else to stderr; errors as sentences, or as one JSON document."""

from __future__ import annotations

import json
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import click

from catalogger.errors import CataloggerError, UsageError, findings_of, internal, masked
from catalogger.files.digests import Tick


def emit(document: Mapping[str, Any]) -> None:
    """One JSON document on stdout."""
    click.echo(json.dumps(document, indent=2, ensure_ascii=False))


def fail(error: Exception, *, as_json: bool, debug: bool) -> int:
    """Say what failed and give the exit code."""
    ours = _as_ours(error)
    if debug:
        click.echo(masked("".join(traceback.format_exception(error))), err=True)
    if as_json:
        emit({"error": ours.document(), "findings": findings_of(ours)})
    click.echo(f"Error: {ours}", err=True)
    return ours.exit_code


def interrupted() -> None:
    """What a Ctrl-C leaves behind."""
    click.echo("Interrupted. Run the same command again: it goes on where it stopped.", err=True)


def _as_ours(error: Exception) -> CataloggerError:
    if isinstance(error, CataloggerError):
        return error
    if isinstance(error, click.ClickException):
        hint = "`log-model --help` shows every option."
        return UsageError(error.format_message(), hint)
    return internal(error)


class Terminal:
    """Progress on stderr: lines always, bars only on a terminal."""

    def say(self, text: str) -> None:
        click.echo(text, err=True)

    @contextmanager
    def bar(self, label: str, total: int) -> Iterator[Tick]:
        if not sys.stderr.isatty():
            yield lambda _: None
            return
        from tqdm import tqdm

        lock = threading.Lock()
        with tqdm(total=total, desc=label, unit="B", unit_scale=True, leave=False, file=sys.stderr) as bar:

            def tick(count: int) -> None:
                with lock:
                    bar.update(count)

            yield tick
