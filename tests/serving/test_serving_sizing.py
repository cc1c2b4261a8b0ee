"""How much to provision: the documented examples, and what is no workload."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli.command import Done, run
from fakes.checkpoints import llama
from testing.asking import ANN, LLAMA, OSS, TOKENS

from catalogger.errors import UsageError
from catalogger.serving.prompts import count_prompts
from catalogger.serving.sizing import Size, Workload, size
from catalogger.testing import Workspace
from catalogger.testing.optimization import tokens, units


def _batch(rate: float, rows: int, inputs: int, outputs: int) -> Size:
    return size(tokens_per_second=rate, workload=Workload(inputs, outputs, rows=rows))


@pytest.mark.parametrize(
    ("rate", "rows", "inputs", "outputs", "seconds", "direction"),
    [
        (2304, 1, 2048, 256, 1.0, "as listed"),
        (5600, 1, 2048, 256, 2304 / 5600, "as listed"),  # documented as about half a second
        (3500, 1000, 3000, 500, 1000.0, "longer"),
        (1600, 1000, 1500, 100, 1000.0, "shorter"),
        (1600, 1000, 1500, 300, 1125.0, "undetermined"),
    ],
)
def test_documented_examples(rate: float, rows: int, inputs: int, outputs: int, seconds: float, direction: str) -> None:
    found = _batch(rate, rows, inputs, outputs)
    assert found.nominal_seconds == pytest.approx(seconds)
    assert found.document()["direction"] == direction
    assert direction.replace("as listed", "about that").replace("undetermined", "either") in str(found)


@pytest.mark.parametrize(
    ("rate", "chunk", "minimum", "maximum"),
    [
        (1000, 980, 1960, 2940),
        (1960, 980, 1960, 2940),
        (980, 980, 980, 1960),
        (1, 980, 980, 1960),
        (971, 970, 1940, 2910),
        (4.9 * 200, 980, 980, 1960),  # 980.0000000000001
        (1e-12, 980, 980, 1960),
    ],
)
def test_a_rate_is_held_by_whole_chunks_and_one_more_for_peaks(
    rate: float, chunk: int, minimum: int, maximum: int
) -> None:
    found = size(tokens_per_second=rate, chunk=chunk)
    assert (found.minimum, found.maximum) == (minimum, maximum)
    assert f"--min-throughput {minimum}" in str(found)


def test_requests_make_a_rate_and_take_of_the_workspaces_limit() -> None:
    found = size(workload=Workload(1500, 200, requests_per_second=2))
    assert (found.tokens_per_second, found.queries_left) == (3400, 198)
    assert "not known" in str(found)
    assert "50.0 a second more than" in str(size(workload=Workload(10, 10, requests_per_second=250)))


@pytest.mark.parametrize(
    "workload",
    [
        {"input_tokens": 0, "output_tokens": 0},
        {"input_tokens": -1, "output_tokens": 5},
        {"input_tokens": float("inf"), "output_tokens": 5},
        {"input_tokens": 5, "output_tokens": 5, "requests_per_second": 0},
        {"input_tokens": 5, "output_tokens": 5, "rows": 0},
        {"input_tokens": 5, "output_tokens": 5, "requests_per_second": float("nan")},
    ],
)
def test_what_is_no_workload(workload: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Workload(**workload)


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"tokens_per_second": 0.0},
        {"tokens_per_second": -5.0},
        {"tokens_per_second": 5.0, "chunk": 0},
        {"tokens_per_second": 5.0, "unit_chunk": 0},
        {"tokens_per_second": 5.0, "chunk": 980, "unit_chunk": 50},
        {"tokens_per_second": 5.0, "workload": Workload(1, 1, requests_per_second=1)},
        {"workload": Workload(1, 1)},
    ],
)
def test_what_is_no_rate(asked: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        size(**asked)


# The command.


@pytest.fixture
def space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workspace]:
    with Workspace(tmp_path / "root", tokens=TOKENS) as workspace:
        workspace.serving.add_base_model(LLAMA, tokens(chunk=970))
        workspace.serving.add_base_model(OSS, units())
        monkeypatch.setenv("DATABRICKS_HOST", workspace.url)
        monkeypatch.setenv("DATABRICKS_TOKEN", ANN)
        yield workspace


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return llama(tmp_path_factory.mktemp("sized") / "model")


def _size(*arguments: str) -> Done:
    return run("size", *arguments)


def test_the_workspace_tells_the_chunk(space: Workspace) -> None:
    done = _size(f"{LLAMA}/1", "--tokens-per-second", "1000", "-o", "json")
    assert (done.code, done.document["chunk"], done.document["minimum"]) == (0, 970, 1940)


def test_model_units_are_multiples_without_a_rate(space: Workspace) -> None:
    asked = ("--requests-per-second", "2", "--input-tokens", "1500", "--output-tokens", "200")
    done = _size(f"{OSS}/1", *asked, "-o", "json")
    assert (done.code, done.document["unit_chunk"], done.document["queries_left"]) == (0, 50, 198)
    assert [done.document[key] for key in ("chunk", "minimum", "maximum")] == [None, None, None]
    told = _size("--unit-chunk", "50", *asked)
    assert "a multiple of 50; which one holds a rate is not documented" in told.out
    assert "--min-throughput" not in told.out


@pytest.mark.parametrize("asked", [("--chunk", "980"), ("--unit-chunk", "50")])
def test_a_chunk_that_is_not_the_workspaces_is_refused(space: Workspace, asked: tuple[str, str]) -> None:
    done = _size(f"{LLAMA}/1", "--tokens-per-second", "1000", *asked)
    assert (done.code, "970 tokens per second" in done.err) == (2, True)


def test_prompts_make_the_workload(work: Path, model: Path) -> None:
    Path("prompts").write_text("one two three\n" * 4)
    asked = ("--prompts", "prompts", "--tokenizer", str(model), "--output-tokens", "7", "--tokens-per-second", "10")
    done = _size(*asked, "-o", "json")
    assert done.code == 0, done.err
    found = count_prompts("prompts", str(model))
    assert done.document["workload"]["input_tokens"] == found.average > 3
    assert done.document["nominal_seconds"] == pytest.approx(4 * (found.average + 7) / 10)
    assert f"prompts: 4 prompts of {found.average:.0f} tokens on average" in done.err
    assert _size(*asked, "--rows", "1000", "-o", "json").document["workload"]["rows"] == 1000
    assert _size(*asked, "--rows", "0").code == 2


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--requests-per-second", "2"),
        ("--rows", "5", "--tokens-per-second", "1"),
        ("--tokens-per-second", "x"),
        ("--tokens-per-second", "0"),
        ("--prompts", "prompts"),
        ("--prompts", "no-such-file", "--tokenizer", ".", "--tokens-per-second", "5"),
        ("--tokens-per-second", "5", "--output-tokens", "5"),
        ("--tokens-per-second", "-5"),
        ("--tokens-per-second", "5", "--chunk", "0"),
        ("--tokens-per-second", "5", "--unit-chunk", "-50"),
        ("--tokens-per-second", "5", "--chunk", "980", "--unit-chunk", "50"),
        ("--tokens-per-second", "5", "--requests-per-second", "2", "--input-tokens", "5"),
    ],
)
def test_bad_input_is_exit_code_2(arguments: tuple[str, ...]) -> None:
    assert _size(*arguments).code == 2
