"""The house stands as it was drawn: stairs go one way, nothing heavy is imported early, the public face is whole."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import catalogger

PACKAGE = Path(catalogger.__file__).parent
STAIRS = [
    *(
        "errors",
        "lines",
        "notebook",
        "quiet",
        "page",
        "files",
        "progress",
        "remote",
        "recipes",
        "checkpoints",
        "validators",
        "loggers",
        "serving",
        "fleet",
        "cli",
    ),
]
STRANGERS = {"loggers": "serving", "serving": "loggers"}
"""What passes between the two is a name and a version."""
APART = "testing"
"""Stand-ins of other people's servers, which know nothing of the house; nor does the house know them."""
HEAVY = (
    *("mlflow", "torch", "transformers", "databricks", "boto3", "requests", "matplotlib", "pandas", "huggingface_hub"),
    "pydantic",
)


def _rooms_imported(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        modules = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            modules = [node.module or ""]
        found |= {m.split(".")[1] for m in modules if m.startswith("catalogger.")}
    return found


def test_stairs_go_one_way() -> None:
    wrong = []
    for file in PACKAGE.rglob("*.py"):
        room = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if room == "__init__":
            continue
        imported = _rooms_imported(file)
        if room == APART:
            wrong += [(str(file), up) for up in imported - {APART}]
            continue
        wrong += [
            (str(file), up)
            for up in imported
            if up == APART or STAIRS.index(up) > STAIRS.index(room) or up == STRANGERS.get(room)
        ]
    assert wrong == []


def test_every_room_is_a_stair() -> None:
    rooms = {p.name.removesuffix(".py") for p in PACKAGE.iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()}
    assert rooms - {"__init__", APART} == set(STAIRS)


@pytest.mark.parametrize(
    "statement",
    ["import catalogger", "import sys; sys.argv = ['log-model', '--help']; from catalogger.cli import main; main()"],
)
def test_nothing_heavy_is_imported(statement: str) -> None:
    script = f"""
import atexit, sys
atexit.register(lambda: print("HEAVY", [m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr))
{statement}
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "HEAVY []" in done.stderr


def test_public_face() -> None:
    assert catalogger.__all__ == sorted(catalogger.__all__)
    for name in catalogger.__all__:
        assert getattr(catalogger, name).__doc__, name
    assert dir(catalogger) == catalogger.__all__
    with pytest.raises(AttributeError, match="no_such_name"):
        catalogger.no_such_name  # noqa: B018


def test_the_wheel_adds_one_name_only() -> None:
    from importlib.metadata import files

    tops = {f.parts[0] for f in files("catalogger") or [] if f.suffix == ".py" and not f.name.startswith("_editable")}
    assert tops <= {"catalogger"}


def test_versions_are_compared_in_one_place() -> None:
    """What is known of versions is a table; elsewhere one asks it, by name of a capability."""
    one, asks = PACKAGE / "validators/mlflow_versions.py", ("SpecifierSet", "Version", "transformers_major")
    elsewhere = []
    for file in PACKAGE.rglob("*.py"):
        tree = ast.parse(file.read_text())
        imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module]
        names = {(node.module, alias.name) for node in imports for alias in node.names}
        elsewhere += [
            f"{file.relative_to(PACKAGE)} imports {name}"
            for module, name in names
            if name in asks and str(module).startswith(("packaging", "catalogger.validators.mlflow")) and file != one
        ]
        for node in ast.walk(tree):
            if isinstance(node, ast.Compare) and file != one:
                compared = {getattr(n, "attr", None) or getattr(n, "id", None) for n in ast.walk(node)}
                if {"__version__", "VERSION", "version_info"} & compared:
                    elsewhere.append(f"{file.relative_to(PACKAGE)}:{node.lineno} compares a version")
    assert set(elsewhere) <= {"recipes/schema.py imports SpecifierSet"}, "which only asks whether a range can be read"
