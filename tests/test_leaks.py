"""The search for secrets finds them wherever they are told: of a run with a leak in every place, each test fails."""

from __future__ import annotations

import ast
import base64
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import get_args
from urllib.parse import quote

import pytest
from fakes.secrets import MARK, Form, secret
from leaks import before_a_secret

TESTS = Path(__file__).parent
OTHER_MARK = f"""
from fakes import secrets

secrets.MARK = "{MARK[::-1]}"  # what this run tells on purpose is no leak of the run around it
pytest_plugins = ["leaks"]
"""
LEAKING = """
import base64, logging, os, sqlite3, subprocess, sys, warnings
from pathlib import Path
import pytest
from fakes.secrets import secret
from catalogger.errors import UsageError

IT = secret("told")


def test_stdout(): print(IT)
def test_stderr(): print(IT, file=sys.stderr)
def test_file_descriptor(): os.write(1, IT.encode())
def test_logged_at_debug(): logging.getLogger("catalogger.remote").debug("token %s", IT)
def test_logged_by_others(): logging.getLogger("httpx").info(IT)
def test_own_failure(): assert IT == ""
def test_a_process(): subprocess.run(["echo", IT], capture_output=True)
def test_the_errors_of_a_process(): subprocess.run(["sh", "-c", f"echo {IT} >&2"], stderr=subprocess.PIPE)
def test_read_by_the_test(capsys): print(IT); capsys.readouterr()
def test_a_file(tmp_path): (tmp_path / "x.log").write_text(IT)
def test_a_file_in_a_folder(tmp_path): (tmp_path / "x").mkdir(); (tmp_path / "x/MLmodel").write_text(f"uri: {IT}")
def test_a_name_of_a_file(tmp_path): (tmp_path / IT).touch()
def test_basic_authorization(): print(base64.b64encode(f"user:{IT}".encode()).decode())
def test_a_warning(): warnings.warn(IT)


def test_a_database(tmp_path):
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        database.execute("create table tags (value text)")
        database.execute("insert into tags values (?)", (IT,))
    database.close()


def test_the_cause_of_an_expected_error():
    with pytest.raises(UsageError):
        try:
            raise OSError(IT)
        except OSError as error:
            raise UsageError("no") from error


@pytest.fixture
def told():
    print(IT)


@pytest.fixture
def told_after():
    yield
    print(IT)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    return tmp_path_factory.mktemp("shared")


def test_setup(told): pass
def test_teardown(told_after): pass
def test_shared_first(shared): pass
def test_shared_later(shared): (shared / "later.json").write_text(IT)


def test_quiet(tmp_path):
    (tmp_path / ".netrc").write_text(IT)
    (tmp_path / "model.safetensors").write_text(IT)
    with pytest.raises(UsageError):
        raise UsageError(f"token={IT}")
    print("nothing", hash(IT))
"""
PLACES = re.findall(r"^def test_(\w+)", LEAKING, re.MULTILINE)
AFTERWARDS = {"a_warning": "a warning of test_leaking.py::test_a_warning: ", "shared_later": "later.json: "}
HARMLESS = ("shared_first", "quiet")
LOOKS = re.compile(
    r"\bdapi[\w-]{3}|\bhf_[A-Za-z0-9]{12}|\bya29\.\w|\bAKIA\w|\bsig=\w{4}|://[^/@\s]+:[^/@\s]+@|login \w+ password \w"
)
TAKES = re.compile(r"(?i:password|secret|session_token|secret_key|secret_access_key)$|[A-Z]_TOKEN$")


@pytest.fixture(scope="module", params=[(), ("-n", "1")], ids=["the same process", "a process of its own"])
def said(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """What the run says, which is none that passes."""
    folder = tmp_path_factory.mktemp("leaking")
    (folder / "conftest.py").write_text(OTHER_MARK)
    (folder / "test_leaking.py").write_text(LEAKING)
    settings = ["-rA", "-p", "no:randomly", "-p", "no:cacheprovider", "--basetemp", str(folder / "base")]
    settings += request.param
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *settings, "test_leaking.py"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": os.pathsep.join((str(TESTS), str(TESTS.parent)))},
        capture_output=True,
        text=True,
    )
    assert done.returncode == pytest.ExitCode.TESTS_FAILED
    return done.stdout


@pytest.mark.parametrize("place", [place for place in PLACES if place not in (*AFTERWARDS, *HARMLESS)])
def test_a_leak_fails_its_test(said: str, place: str) -> None:
    assert re.search(rf"^(FAILED|ERROR) test_leaking.py::test_{place}\b", said, re.MULTILINE)
    assert re.search(rf" test_{place} _+\n((?!_+ ).*\n)*?Secrets were told:\n", said)


@pytest.mark.parametrize("place", AFTERWARDS)
def test_a_leak_that_is_seen_after_its_test_fails_the_run(said: str, place: str) -> None:
    assert re.search(rf"^ERROR Secrets were told: .*{re.escape(AFTERWARDS[place])}", said, re.MULTILINE)


@pytest.mark.parametrize("place", HARMLESS)
def test_what_tells_nothing_passes(said: str, place: str) -> None:
    assert re.search(rf"^PASSED test_leaking.py::test_{place}$", said, re.MULTILINE)
    assert not re.search(rf"^(FAILED|ERROR) .*::test_{place}\b", said, re.MULTILINE)


@pytest.mark.parametrize("form", get_args(Form))
def test_every_secret_is_found_whole_cut_and_quoted(form: Form) -> None:
    told = secret("x", form)
    assert before_a_secret(f"line\nx {quote(told)}".encode()) == "x " + quote(told[: told.lower().index(MARK)])
    assert before_a_secret(told[:60].encode()) is not None


@pytest.mark.parametrize("user", ["", "u", "us"])
def test_a_secret_is_found_in_base64_and_hexadecimal(user: str) -> None:
    told = f"{user}:{secret('x')}".encode()
    assert before_a_secret(base64.b64encode(told)) is not None
    assert before_a_secret(told.hex().encode()) is not None


@pytest.mark.parametrize("equals", ["=", "%3D"])
def test_a_signed_address_is_found_whoever_signed_it(equals: str) -> None:
    assert before_a_secret(f"GET /x?X-Amz-Signature{equals}{'0a1b' * 16}".encode()) == "GET /x?X-Amz-"


def test_tests_have_no_secrets_of_their_own() -> None:
    """One that does not come from `fakes/secrets.py` would not be found.  What `masked` is tested with is excepted."""
    files = set(TESTS.rglob("*.py")) - {TESTS / "fakes/secrets.py", TESTS / "checkpoints/test_checkpoints_secrets.py"}
    own = [(file.name, *found) for file in files for found in _own_secrets(ast.parse(file.read_text()))]
    assert own == []


def _own_secrets(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and text of every literal that looks like a secret, or is given where one belongs."""
    for node in ast.walk(tree):
        given: list[tuple[str | None, ast.expr]] = []
        if isinstance(node, ast.Constant):
            given = [(None, node)]
        elif isinstance(node, ast.Dict):
            given = [(_text(key), value) for key, value in zip(node.keys, node.values, strict=True)]
        elif isinstance(node, ast.Call):
            given = [(keyword.arg, keyword.value) for keyword in node.keywords]
            if isinstance(node.func, ast.Attribute) and node.func.attr == "setenv":
                given.append((_text(node.args[0]), node.args[1]))
        for name, value in given:
            text = _text(value)
            if text and (LOOKS.search(text) if name is None else TAKES.search(name)):
                yield value.lineno, text


def _text(node: ast.expr | None) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None
