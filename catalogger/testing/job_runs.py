"""One run of a job in a loopback workspace: the order of its tasks, what is passed between them, and what came of it.

What a task does is done by a runner that whoever started the workspace gives; this room knows references, run-if
conditions, loops and retries only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

_REFERENCE = re.compile(r"\{\{\s*([^{}]+?)\s*\}\}")
_LARGEST_VALUE = 48 << 10
_GOOD = ("SUCCESS", "EXCLUDED")

Settings = Mapping[str, Any]


@dataclass(frozen=True)
class Started:
    """One attempt of a wheel task as its runner gets it: every reference in the parameters is a value."""

    task_key: str
    package_name: str
    entry_point: str
    parameters: tuple[str, ...]
    dependencies: tuple[str, ...]


@dataclass(frozen=True)
class Ended:
    """What came of it; `values` are those that it set for later tasks."""

    ok: bool
    logs: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)


Runner = Callable[[Started], Ended]


@dataclass
class TaskRun:
    """One task of a run, or one turn of a loop: `result` is None until it has ended."""

    task_key: str
    id: int
    result: str | None = None
    logs: str = ""
    error: str = ""
    attempts: int = 0
    values: dict[str, Any] = field(default_factory=dict)
    turns: list[TaskRun] = field(default_factory=list)

    def end(self, result: str, error: str = "") -> None:
        self.error, self.result = error, result


class _UnresolvedError(Exception):
    """A reference to what is not there."""


class Run:
    """A run, from `execute` on. `number` gives the ids of its parts."""

    def __init__(
        self, settings: Settings, job_id: int, parameters: Mapping[str, str], runner: Runner, number: Callable[[], int]
    ) -> None:
        self.id, self.job_id, self.settings = number(), job_id, settings
        self._runner, self._number = runner, number
        self.tasks = [TaskRun(task["task_key"], number()) for task in settings.get("tasks", ())]
        declared = {p["name"]: p["default"] for p in settings.get("parameters", ())}
        self._known = {f"job.parameters.{name}": value for name, value in {**declared, **parameters}.items()}
        self._known |= {"job.id": str(job_id), "job.run_id": str(self.id)}

    @property
    def result(self) -> str | None:
        """That of the tasks that no other depends on; None while it runs."""
        if any(task.result is None for task in self.tasks):
            return None
        followed = {on["task_key"] for task in self.settings["tasks"] for on in task.get("depends_on", ())}
        if any(task.result not in _GOOD for task in self.tasks if task.task_key not in followed):
            return "FAILED"
        return "SUCCESS" if all(task.result in _GOOD for task in self.tasks) else "SUCCESS_WITH_FAILURES"

    def parts(self) -> Iterator[TaskRun]:
        """Every task, and every turn of a loop."""
        for task in self.tasks:
            yield task
            yield from task.turns

    def task(self, key: str) -> TaskRun:
        return next(task for task in self.tasks if task.task_key == key)

    def execute(self) -> None:
        """Every task, as soon as what it depends on has ended; the tasks of a run one after another."""
        waiting = list(zip(self.settings.get("tasks", ()), self.tasks, strict=True))
        while waiting:
            ready = next(pair for pair in waiting if self._before(pair[0]) is not None)
            waiting.remove(ready)
            task, part = ready
            if (barred := barred_by(task.get("run_if", "ALL_SUCCESS"), self._before(task) or [])) is None:
                self._do(task, part, {})
            else:
                part.end(barred)

    def _before(self, task: Settings) -> list[str] | None:
        """The results of what the task depends on; None where one has not ended."""
        results = [self.task(on["task_key"]).result for on in task.get("depends_on", ())]
        return None if None in results else [result for result in results if result is not None]

    def _do(self, task: Settings, part: TaskRun, more: Mapping[str, Any]) -> None:
        try:
            if loop := task.get("for_each_task"):
                self._turn(loop, part)
            else:
                self._attempt(task, part, more)
        except _UnresolvedError as error:
            part.end("FAILED", str(error))

    def _turn(self, loop: Settings, part: TaskRun) -> None:
        """The loop's task for every input, so many at a time; it fails where one turn does."""
        inputs = _inputs(self._resolved(loop["inputs"], {}))
        part.turns = [TaskRun(loop["task"]["task_key"], self._number()) for _ in inputs]
        with ThreadPoolExecutor(max_workers=int(loop.get("concurrency", 1))) as pool:
            list(pool.map(lambda turn, value: self._do(loop["task"], turn, {"input": value}), part.turns, inputs))
        part.end("SUCCESS" if all(turn.result == "SUCCESS" for turn in part.turns) else "FAILED")

    def _attempt(self, task: Settings, part: TaskRun, more: Mapping[str, Any]) -> None:
        wheel = task["python_wheel_task"]
        started = Started(
            task["task_key"],
            wheel["package_name"],
            wheel["entry_point"],
            tuple(self._resolved(parameter, more) for parameter in wheel.get("parameters", ())),
            self._dependencies(task.get("environment_key")),
        )
        for attempt in range(1 + int(task.get("max_retries", 0))):
            part.attempts = attempt + 1
            try:
                ended = self._runner(started)
            except Exception as error:  # a runner that breaks is a task that fails
                ended = Ended(ok=False, logs=f"{type(error).__name__}: {error}")
            part.logs = ended.logs
            if ended.ok:
                break
        self._keep(part, ended)

    def _keep(self, part: TaskRun, ended: Ended) -> None:
        """The values that a task set are there for later ones, whether it failed after that or not."""
        for key, value in ended.values.items():
            if len(json.dumps(value)) > _LARGEST_VALUE:
                part.end("FAILED", f"The task value {key} is larger than 48 KiB.")
                return
            part.values[key] = value
        part.end("SUCCESS" if ended.ok else "FAILED", "" if ended.ok else "Workload failed, see run output for details")

    def _dependencies(self, key: str | None) -> tuple[str, ...]:
        specs = {env["environment_key"]: env["spec"] for env in self.settings.get("environments", ())}
        return tuple(specs[key].get("dependencies", ())) if key else ()

    def _resolved(self, text: str, more: Mapping[str, Any]) -> str:
        """The text with the value of every {{reference}}."""
        return _REFERENCE.sub(lambda found: _written(self._value(found[1], more)), text)

    def _value(self, name: str, more: Mapping[str, Any]) -> Any:
        known = {**self._known, **more}
        for task in self.tasks:
            known |= {f"tasks.{task.task_key}.values.{key}": value for key, value in task.values.items()}
            known[f"tasks.{task.task_key}.result_state"] = (task.result or "").lower()
        if name not in known:
            raise _UnresolvedError(f"The reference {{{{{name}}}}} cannot be resolved.")
        return known[name]


def barred_by(condition: str, results: Sequence[str]) -> str | None:
    """The result of a task that does not run after these; None where it runs.

    Those that wait for failures are left out where there is none, which counts as success.
    """
    good = [result in _GOOD for result in results]
    runs, otherwise = {
        "ALL_SUCCESS": (all(good), "UPSTREAM_FAILED"),
        "ALL_DONE": (True, ""),
        "NONE_FAILED": (all(good), "UPSTREAM_FAILED"),
        "AT_LEAST_ONE_SUCCESS": (any(good) or not good, "UPSTREAM_FAILED"),
        "ALL_FAILED": (not any(good), "EXCLUDED"),
        "AT_LEAST_ONE_FAILED": (not all(good), "EXCLUDED"),
    }[condition]
    return None if runs else otherwise


def _inputs(text: str) -> list[Any]:
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, list):
        raise _UnresolvedError(f"The inputs of a loop are no JSON array: {text[:200]}")
    return found


def _written(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
