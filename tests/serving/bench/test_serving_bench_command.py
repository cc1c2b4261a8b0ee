"""`log-model bench` as its users start it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from cli.command import START, Done, run
from serving.bench.given import QUICK, TOKEN, load_test_of, step

from catalogger.serving.bench.saving import save
from catalogger.testing.law import Faults, LawEndpoint

SMALL = ("--input-tokens", "20", "--output-tokens", "4", "--requests", "2", "--parallel", "1,2")


@pytest.fixture(scope="module")
def endpoint() -> Iterator[LawEndpoint]:
    with LawEndpoint(QUICK) as endpoint:
        yield endpoint


def bench(endpoint: LawEndpoint, *arguments: str, name: str = "law") -> Done:
    return run("bench", name, *arguments, DATABRICKS_HOST=endpoint.url, DATABRICKS_TOKEN=TOKEN)


def test_it_measures_and_saves_and_compares(endpoint: LawEndpoint, work: Path) -> None:
    first = bench(endpoint, *SMALL, "--save", "results")
    assert first.code == 0, first.err
    assert "2 parallel: " in first.err
    heads, one, two, *_, highest = first.out.splitlines()
    assert "input + output tokens/s" in heads
    assert (one.split()[:4], two.split()[:4]) == (["1", "2", "0", "0"], ["2", "4", "0", "0"])
    assert highest.startswith("Highest: ")
    assert "of the 1,960 that it is provisioned for at the most" in highest
    assert sorted(file.name for file in (work / "results").iterdir()) == [
        *("load-test.csv", "load-test.json", "load-test.png"),
    ]
    again = bench(endpoint, *SMALL, "--against", "results/load-test.json", "-o", "json")
    assert again.code == 0, again.err
    assert [pair["parallel"] for pair in again.document["against"]["pairs"]] == [1, 2]
    assert TOKEN not in again.out + again.err + (work / "results" / "load-test.json").read_text()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--parallel", "0"], 'The parallel requests are to be "0".'),
        (["--parallel", "1,two"], '"1,two" is no list of numbers.'),
        (["--tokenizer", "nowhere"], 'There is no tokenizer at "nowhere".'),
        (["--save", "results.xls"], '"results.xls" ends neither in .json'),
        (["--against", "none.json"], '"none.json" cannot be read'),
        (["--input-tokens", "900000"], "an endpoint takes 4.0 MB at the most"),
    ],
)
def test_what_cannot_be_right_is_refused_before_a_query(
    endpoint: LawEndpoint, arguments: Sequence[str], sentence: str
) -> None:
    done = bench(endpoint, *arguments)
    assert (done.code, done.out) == (2, "")
    assert sentence in done.err
    assert "warm-up" not in done.err


def test_an_endpoint_that_is_none(endpoint: LawEndpoint) -> None:
    done = bench(endpoint, name="none")
    assert (done.code, done.out) == (2, "")
    assert 'There is no endpoint "none".' in done.err


@pytest.mark.parametrize(
    ("faults", "code", "sentence"),
    [
        (Faults(ready=False), 8, 'The endpoint "law" is not ready: NOT_READY, IN_PROGRESS.'),
        (Faults(forbidden=True), 4, 'You may not query the endpoint "law"'),
    ],
)
def test_an_endpoint_that_cannot_be_asked(faults: Faults, code: int, sentence: str) -> None:
    with LawEndpoint(QUICK, faults) as endpoint:
        done = bench(endpoint, *SMALL, "-o", "json")
    assert done.code == code
    assert done.document["error"]["exit_code"] == code
    assert sentence in done.err


def test_an_endpoint_that_vanishes_leaves_one_document_and_its_exit_code(work: Path) -> None:
    with LawEndpoint(QUICK, Faults(vanishes_after=10 + 3 + 1)) as endpoint:
        done = bench(endpoint, *SMALL, "--timeout", "5", "-o", "json", "--save", "run.json")
    assert done.code == 5, done.err
    assert done.document["ended"] == "endpoint gave up"
    assert json.loads((work / "run.json").read_text())["steps"][0]["answered"] == 2
    assert 'The endpoint "law" no longer answers.' in done.err


def test_ctrl_c_keeps_what_was_measured(endpoint: LawEndpoint, work: Path) -> None:
    arguments = ["bench", "law", *SMALL[:-4], "--parallel", "1,2,4", "--seconds", "1", "--save", "run.json"]
    environment = {**os.environ, "DATABRICKS_HOST": endpoint.url, "DATABRICKS_TOKEN": TOKEN}
    in_a_terminal = f"import signal; signal.signal(signal.SIGINT, signal.default_int_handler); {START[-1]}"
    with subprocess.Popen(
        [*START[:-1], in_a_terminal, *arguments],
        env=environment,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr
        for line in process.stderr:
            if line.startswith("1 parallel"):
                process.send_signal(signal.SIGINT)
                break
        process.communicate()
    assert process.returncode == 130
    kept = json.loads((work / "run.json").read_text())
    assert kept["ended"] == "interrupted"
    assert kept["steps"][0]["parallel"] == 1
    assert kept["steps"][0]["answered"] > 0


def test_it_is_refused_to_compare_before_anything_is_asked(endpoint: LawEndpoint, work: Path) -> None:
    save(load_test_of([step(1, 1000)]), [work / "run.csv"])
    done = bench(endpoint, "--against", "run.csv")
    assert (done.code, done.out) == (2, "")
    assert '"run.csv" is no load test' in done.err
