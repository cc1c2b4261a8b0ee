"""Results of exact figures: JSON that is read again, CSV, tables, comparisons, and the picture."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from serving.bench.given import load_test_of, step

from catalogger.errors import DiskError, UsageError
from catalogger.serving.bench.comparing import compare
from catalogger.serving.bench.load_test import said_of, served
from catalogger.serving.bench.plan import LADDER, Plan, planned
from catalogger.serving.bench.results import Served, read
from catalogger.serving.bench.saving import files_of, save

STEPS = (step(1, 1000), step(2, 1900, errors={"429": 3, "timeout": 1}), step(4, 1800, 2.0, cpu=0.97))


def test_what_is_saved_is_read_again(tmp_path: Path) -> None:
    test = load_test_of(STEPS)
    (file,) = save(test, [tmp_path / "deep" / "run.json"])
    assert read(file) == test


def test_the_document_says_what_was_measured() -> None:
    document = load_test_of(STEPS).document()
    assert (document["format"], document["plateau"], document["ended"]) == (1, 1900, "plateau")
    assert document["served"] == {"entities": ("main.ml.bot/3",), "least": 980, "most": 1960, "units": None}
    second = document["steps"][1]
    assert second["errors"] == {"429": 3, "timeout": 1}
    assert second["latency"] == {"p50": 1.0, "p95": 1.5, "p99": 2.0}
    assert [each["client_limits"] for each in document["steps"]] == [False, False, True]


def test_each_step_is_a_line_of_the_csv_whose_columns_name_their_units() -> None:
    rows = list(csv.DictReader(load_test_of(STEPS).csv().splitlines()))
    assert [row["parallel"] for row in rows] == ["1", "2", "4"]
    assert rows[1] == {
        "parallel": "2",
        "measured_s": "10.0",
        "requests": "20",
        "answered": "16",
        "refused_429": "3",
        "failed": "1",
        "input_tokens": "2048.0",
        "output_tokens": "256.0",
        "requests_per_s": str(1900 / 2304),
        "output_tokens_per_s": str(1900 / 9),
        "input_and_output_tokens_per_s": "1900",
        "latency_p50_s": "1.0",
        "latency_p95_s": "1.5",
        "latency_p99_s": "2.0",
        "first_token_p50_s": "0.1",
        "first_token_p95_s": "0.125",
        "first_token_p99_s": "0.2",
        "per_token_p50_s": "0.01",
        "per_token_p95_s": "0.012",
        "per_token_p99_s": "0.015",
        "client_lag_p95_s": "0.001",
        "client_cpu_cores": "0.1",
        "client_limits": "0",
    }


def test_the_table_labels_both_throughputs() -> None:
    heads, *lines = load_test_of(STEPS).text().splitlines()
    assert "  output tokens/s  input + output tokens/s  " in heads
    assert " ".join(lines[1].split()) == "2 16 3 1 211 1,900 1.00 s 1.50 s 2.00 s 100.0 ms 125.0 ms 10.0 ms"


def test_a_line_of_a_step_says_what_failed_and_whether_the_client_was_the_limit() -> None:
    assert said_of(STEPS[1]) == (
        "2 parallel: 1,900 input + output tokens/s (211 output tokens/s), latency p50 1.00 s, p95 1.50 s, 16 answered, "
        "3 x 429, 1 x timeout"
    )
    assert said_of(STEPS[2]).endswith("The client, not the endpoint, is the limit here: 1 ms late, at 97 % of a core.")


def test_two_runs_are_compared_where_both_have_a_step() -> None:
    now = load_test_of([step(1, 1000, 1.0), step(4, 3000, 0.5)])
    then = load_test_of([step(1, 800, 2.0), step(2, 900, 1.0)], endpoint="old", most=980)
    comparison = compare(now, then)
    (pair,) = comparison.pairs
    assert (pair.parallel, pair.throughput, pair.throughput_ratio) == (1, (1000, 800), 1.25)
    assert (pair.latency_p50_ratio, pair.latency_p95_ratio, pair.first_token_p50_ratio) == (0.5, 0.5, 0.5)
    head, remark, _, row = comparison.text().splitlines()
    assert '"old"' in head
    assert remark == (
        "They differ in what is served: main.ml.bot/3 (980 to 1960 tokens/s) now, "
        "main.ml.bot/3 (980 to 980 tokens/s) then."
    )
    assert " ".join(row.split()) == "1 1,000 800 1.25 1.00 s 2.00 s 0.50 0.50 0.50"
    assert json.loads(json.dumps(comparison.document()))["pairs"][0]["throughput_ratio"] == 1.25


def test_two_runs_without_a_common_step_say_so() -> None:
    comparison = compare(load_test_of([step(1, 1000)]), load_test_of([step(2, 1000)]))
    assert "No step has the same number of parallel requests." in comparison.text()


@pytest.mark.parametrize(
    ("content", "why"),
    [("{", "JSONDecodeError"), ("[]", "TypeError"), ('{"format": 2}', "not 1"), ('{"format": 1}', "KeyError")],
)
def test_what_is_no_load_test_is_not_compared_with(tmp_path: Path, content: str, why: str) -> None:
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(UsageError, match=why):
        read(tmp_path / "run.json")
    with pytest.raises(UsageError, match="cannot be read"):
        read(tmp_path / "none.json")


def test_a_folder_gets_all_and_a_file_what_its_ending_says(tmp_path: Path) -> None:
    files = files_of([tmp_path, tmp_path / "run.svg"])
    assert [file.name for file in files] == ["load-test.json", "load-test.csv", "load-test.png", "run.svg"]
    assert save(load_test_of(STEPS), files) == files
    assert (tmp_path / "load-test.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(UsageError, match=r"ends neither in \.json"):
        files_of([tmp_path / "run.xls"])


def test_the_picture_names_its_axes_their_units_and_what_is_provisioned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import matplotlib as mpl

    monkeypatch.setitem(mpl.rcParams, "svg.fonttype", "none")  # its words stay words
    save(load_test_of(STEPS), [tmp_path / "run.svg"], against=load_test_of([step(1, 500)]))
    said = (tmp_path / "run.svg").read_text()
    for words in (
        "throughput: input + output tokens per second",
        "throughput: output tokens per second",
        "latency of a request (s)",
        "provisioned maximum: 1,960 tokens/s",
        "provisioned minimum: 980 tokens/s",
        "then, 2026-11-27 01:00: p50",
        "4*",
        "*: the client was the limit",
        "bot: 2,048 input + 256 output tokens a request",
    ):
        assert words in said


def test_without_a_step_there_is_no_picture(tmp_path: Path) -> None:
    written = save(load_test_of([]), files_of([tmp_path]))
    assert [file.suffix for file in written] == [".json", ".csv"]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DiskError, match=r'run\.json" cannot be written'):
        save(load_test_of(STEPS), [tmp_path / "file" / "run.json"])


def test_what_is_provisioned_is_the_sum_of_what_is_served() -> None:
    def entity(version: str, **capacity: int) -> dict[str, object]:
        return {"entity_name": "main.ml.bot", "entity_version": version, **capacity}

    both = [entity(v, min_provisioned_throughput=0, max_provisioned_throughput=980) for v in ("1", "2")]
    assert served({"config": {"served_entities": both}}) == Served(("main.ml.bot/1", "main.ml.bot/2"), None, 1960)
    units = [entity("1", provisioned_model_units=50)]
    assert served({"config": {"served_entities": units}}) == Served(("main.ml.bot/1",), units=50)
    assert served({}) == Served()


def test_the_plan_of_an_endpoint_is_the_benchmark_shape_unless_it_embeds() -> None:
    plan = planned("llm/v1/chat")
    assert (plan.input_tokens, plan.output_tokens, plan.parallel, plan.plateau) == (2048, 256, LADDER, 5.0)
    plan = planned("llm/v1/embeddings", parallel=[1, 3])
    assert (plan.input_tokens, plan.output_tokens, plan.parallel, plan.plateau) == (512, 0, (1, 3), None)
    with pytest.raises(UsageError, match="no output tokens"):
        planned("llm/v1/embeddings", output_tokens=5)


def test_how_long_it_takes_is_known_beforehand() -> None:
    assert Plan(10, 5, (1, 2, 4), seconds=30).announced(0.5) == (
        "at most 3 steps of 30 s: 94 s with the first and the last requests of each, and more where requests queue"
    )
    assert Plan(10, 5, (1, 2, 4), requests=9, plateau=None).announced(2.0) == (
        "3 steps of 9 requests of each stream: from 66 s to 2.6 minutes, by how far they queue"
    )


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"parallel": []}, 'The parallel requests are to be "none".'),
        ({"parallel": [4, 2]}, 'The parallel requests "4, 2" do not rise.'),
        ({"parallel": [1, 5000]}, "Give numbers from 1 to 1024"),
        ({"input_tokens": 0}, 'The input tokens are to be "0".'),
        ({"output_tokens": 0}, 'The output tokens are to be "0".'),
        ({"requests": 0}, 'The requests of each stream are to be "0".'),
        ({"seconds": 0.0}, 'A step is to last "0" s.'),
        ({"seconds": float("nan")}, 'A step is to last "nan" s.'),
        ({"plateau": -1.0}, 'The plateau is to be "-1" percent.'),
        ({"timeout": 500.0}, 'An answer is to have "500" s.'),
    ],
)
def test_a_plan_that_cannot_be_right_is_refused(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError) as refused:
        planned("llm/v1/chat", **options)
    assert sentence in str(refused.value)
