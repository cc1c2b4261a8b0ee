"""A run of a job in the loopback workspace: order, conditions, what is passed on, loops, retries."""

from __future__ import annotations

import threading
from collections.abc import Callable
from itertools import count
from typing import Any

import pytest

from catalogger.testing.job_runs import Ended, Run, Started


class Runner:
    """Does what the tasks of these names are to do; all others succeed."""

    def __init__(self, **by_task: Any) -> None:
        self.by_task = by_task
        self.started: list[Started] = []

    def __call__(self, started: Started) -> Ended:
        self.started.append(started)
        what: Ended | Callable[[Started], Ended] = self.by_task.get(started.task_key, Ended(ok=True))
        return what if isinstance(what, Ended) else what(started)


FAILS = Ended(ok=False, logs="no")


def _wheel(key: str, *after: str, parameters: tuple[str, ...] = (), **more: Any) -> dict[str, Any]:
    wheel = {"package_name": "p", "entry_point": "e", "parameters": list(parameters)}
    on = {"depends_on": [{"task_key": key} for key in after]} if after else {}
    return {"task_key": key, "environment_key": "pinned", "python_wheel_task": wheel, **on, **more}


def _loop(key: str, *after: str, inputs: str, concurrency: int = 2, **more: Any) -> dict[str, Any]:
    task = _wheel("turn", parameters=("--only={{input}}",), **more)
    loop = {"inputs": inputs, "concurrency": concurrency, "task": task}
    return {"task_key": key, "depends_on": [{"task_key": key} for key in after], "for_each_task": loop}


def _run(runner: Runner, *tasks: dict[str, Any], parameters: dict[str, str] | None = None) -> Run:
    environments = [{"environment_key": "pinned", "spec": {"dependencies": ["a==1"]}}]
    declared = [{"name": "day", "default": "today"}]
    settings = {"name": "job", "tasks": list(tasks), "environments": environments, "parameters": declared}
    run = Run(settings, 7, parameters or {}, runner, count(100).__next__)
    run.execute()
    return run


def _results(run: Run) -> dict[str, str | None]:
    return {task.task_key: task.result for task in run.tasks}


def test_tasks_run_after_what_they_depend_on_however_they_are_written() -> None:
    runner = Runner()
    run = _run(runner, _wheel("last", "middle"), _wheel("middle", "first"), _wheel("first"))
    assert [started.task_key for started in runner.started] == ["first", "middle", "last"]
    assert (run.result, runner.started[0].dependencies) == ("SUCCESS", ("a==1",))


def test_references_are_values_when_a_task_begins() -> None:
    plan = Ended(ok=True, values={"changed": ["a", "b"], "word": "x"})
    runner = Runner(plan=plan)
    said = ("{{tasks.plan.values.changed}}", "w={{ tasks.plan.values.word }}", "{{job.parameters.day}}", "{{job.id}}")
    _run(runner, _wheel("plan"), _wheel("next", "plan", parameters=said))
    assert runner.started[1].parameters == ('["a", "b"]', "w=x", "today", "7")
    _run(other := Runner(), _wheel("a", parameters=("{{job.parameters.day}}",)), parameters={"day": "monday"})
    assert other.started[0].parameters == ("monday",)


def test_a_reference_to_nothing_fails_the_task_and_nothing_is_run() -> None:
    run = _run(runner := Runner(), _wheel("a", parameters=("{{tasks.plan.values.changed}}",)))
    assert (run.result, runner.started, "cannot be resolved" in run.task("a").error) == ("FAILED", [], True)


@pytest.mark.parametrize(
    ("condition", "good", "bad"),
    [
        ("ALL_SUCCESS", "SUCCESS", "UPSTREAM_FAILED"),
        ("ALL_DONE", "SUCCESS", "SUCCESS"),
        ("NONE_FAILED", "SUCCESS", "UPSTREAM_FAILED"),
        ("AT_LEAST_ONE_SUCCESS", "SUCCESS", "UPSTREAM_FAILED"),
        ("AT_LEAST_ONE_FAILED", "EXCLUDED", "SUCCESS"),
        ("ALL_FAILED", "EXCLUDED", "SUCCESS"),
    ],
)
def test_conditions(condition: str, good: str, bad: str) -> None:
    after = _wheel("b", "a", run_if=condition)
    assert _results(_run(Runner(), _wheel("a"), after)) == {"a": "SUCCESS", "b": good}
    assert _results(_run(Runner(a=FAILS), _wheel("a"), after)) == {"a": "FAILED", "b": bad}


def test_the_last_tasks_decide() -> None:
    report = _wheel("b", "a", run_if="ALL_DONE")
    assert _run(Runner(a=FAILS), _wheel("a"), report).result == "SUCCESS_WITH_FAILURES"
    assert _run(Runner(a=FAILS, b=FAILS), _wheel("a"), report).result == "FAILED"
    assert _run(Runner(a=FAILS), _wheel("a"), _wheel("b", "a")).result == "FAILED"


def test_a_loop_has_a_turn_for_every_input_and_fails_with_one() -> None:
    plan = Ended(ok=True, values={"changed": ["a", "b", "c"]})
    runner = Runner(plan=plan, turn=lambda started: Ended(ok=started.parameters != ("--only=b",)))
    run = _run(runner, _wheel("plan"), _loop("models", "plan", inputs="{{tasks.plan.values.changed}}"))
    assert sorted(s.parameters for s in runner.started[1:]) == [("--only=a",), ("--only=b",), ("--only=c",)]
    assert [turn.result for turn in run.task("models").turns] == ["SUCCESS", "FAILED", "SUCCESS"]
    assert _results(run) == {"plan": "SUCCESS", "models": "FAILED"}


def test_a_loop_without_inputs_is_done() -> None:
    assert _results(_run(Runner(), _loop("models", inputs="[]"))) == {"models": "SUCCESS"}
    assert _results(_run(Runner(), _loop("models", inputs="a, b"))) == {"models": "FAILED"}


def test_a_loop_has_as_many_turns_at_a_time_as_it_may() -> None:
    together = threading.Barrier(2, timeout=30)
    turns = Runner(turn=lambda _: Ended(ok=together.wait() >= 0))
    assert _run(turns, _loop("models", inputs='["a", "b"]', concurrency=2)).result == "SUCCESS"
    alone = threading.Lock()

    def turn(_: Started) -> Ended:
        entered = alone.acquire(blocking=False)
        if entered:
            alone.release()
        return Ended(ok=entered)

    assert _run(Runner(turn=turn), _loop("models", inputs='["a", "b", "c"]', concurrency=1)).result == "SUCCESS"


def test_what_fails_is_tried_again_as_often_as_it_may() -> None:
    outcomes = iter([FAILS, Ended(ok=True, logs="yes")])
    run = _run(Runner(a=lambda _: next(outcomes)), _wheel("a", max_retries=1))
    assert (run.result, run.task("a").attempts, run.task("a").logs) == ("SUCCESS", 2, "yes")
    assert _run(runner := Runner(a=FAILS), _wheel("a", max_retries=2)).result == "FAILED"
    assert len(runner.started) == 3


def test_values_of_a_task_that_failed_are_there_and_large_ones_are_refused() -> None:
    runner = Runner(plan=Ended(ok=False, values={"changed": ["a"]}))
    loop = {**_loop("models", "plan", inputs="{{tasks.plan.values.changed}}"), "run_if": "ALL_DONE"}
    assert _results(_run(runner, _wheel("plan"), loop)) == {"plan": "FAILED", "models": "SUCCESS"}
    large = Runner(plan=Ended(ok=True, values={"changed": "x" * (48 << 10)}))
    assert "48 KiB" in _run(large, _wheel("plan")).task("plan").error


def test_a_runner_that_breaks_fails_its_task() -> None:
    def breaks(_: Started) -> Ended:
        raise RuntimeError("gone")

    run = _run(Runner(a=breaks), _wheel("a"))
    assert (run.result, run.task("a").logs) == ("FAILED", "RuntimeError: gone")
