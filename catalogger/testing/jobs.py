"""The jobs of a loopback workspace: their settings, the rules on these, and runs as the jobs API tells of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any

from catalogger.testing.job_runs import Ended, Run, Runner, Settings, TaskRun
from catalogger.testing.models import now
from catalogger.testing.refusal import missing, wrong

Document = dict[str, Any]


@dataclass
class Job:
    """A job as it was created or reset."""

    id: int
    creator: str
    created: int
    settings: Settings

    def document(self) -> Document:
        return {
            "job_id": self.id,
            "creator_user_name": self.creator,
            "run_as_user_name": _runs_as(self.settings, self.creator),
            "created_time": self.created,
            "settings": self.settings,
        }


class Jobs:
    """`runner` does what a wheel task does; without one every task succeeds. Each run has a thread of its own."""

    def __init__(self, url: Callable[[], str]) -> None:
        self.runner: Runner = lambda _: Ended(ok=True)
        self._url, self._numbers = url, count(1000)
        self._jobs: dict[int, Job] = {}
        self._runs: dict[int, tuple[Run, threading.Thread]] = {}

    # What a test sees

    def named(self, name: str) -> Job:
        """The one job of this name."""
        (found,) = [job for job in self._jobs.values() if job.settings["name"] == name]
        return found

    def ended(self, run_id: int, timeout: float = 120) -> Run:
        """The run, once it has ended."""
        run, thread = self._runs[run_id]
        thread.join(timeout)
        if thread.is_alive():
            raise TimeoutError(f"run {run_id} has not ended")
        return run

    # What the API asks

    def create(self, user: str, settings: Settings) -> Document:
        check(settings)
        job = Job(next(self._numbers), user, now(), settings)
        self._jobs[job.id] = job
        return {"job_id": job.id}

    def reset(self, job_id: object, settings: Settings) -> None:
        check(settings)
        self.find(job_id).settings = settings

    def delete(self, job_id: object) -> None:
        del self._jobs[self.find(job_id).id]

    def find(self, job_id: object) -> Job:
        if (found := self._jobs.get(_number(job_id))) is None:
            raise missing(f"Job {job_id} does not exist.")
        return found

    def listed(self, name: str | None) -> list[Document]:
        return [job.document() for job in self._jobs.values() if name in (None, job.settings.get("name"))]

    def run_now(self, job_id: object, parameters: Mapping[str, str]) -> Document:
        job = self.find(job_id)
        active = sum(run.job_id == job.id and thread.is_alive() for run, thread in self._runs.values())
        if active >= int(job.settings.get("max_concurrent_runs", 1)):
            raise wrong(f"Job {job.id} has {active} active runs, as many as it may have.")  # of a job without a queue
        run = Run(job.settings, job.id, parameters, lambda started: self.runner(started), lambda: next(self._numbers))
        thread = threading.Thread(target=_executed, args=(run,), daemon=True)
        self._runs[run.id] = (run, thread)
        thread.start()
        return {"run_id": run.id, "number_in_job": run.id}

    def run(self, run_id: object) -> Document:
        """A run, or one task of it, as `runs/get` tells."""
        number = _number(run_id)
        if number in self._runs:
            run = self._runs[number][0]
            told = {
                "job_id": run.job_id,
                "run_id": run.id,
                "run_name": run.settings.get("name", ""),
                "run_type": "JOB_RUN",
                "run_page_url": f"{self._url()}/jobs/{run.job_id}/runs/{run.id}",
            }
            return {**told, "state": _state(run.result), "tasks": [_told(task) for task in run.tasks]}
        part = self._part(number)
        return {**_told(part), **({"iterations": [_told(turn) for turn in part.turns]} if part.turns else {})}

    def output(self, run_id: object) -> Document:
        part = self._part(_number(run_id))
        return {"logs": part.logs, "metadata": _told(part), **({"error": part.error} if part.error else {})}

    def _part(self, number: int) -> TaskRun:
        for run, _ in self._runs.values():
            for part in run.parts():
                if part.id == number:
                    return part
        raise missing(f"Run {number} does not exist.")


def check(settings: Settings) -> None:
    """Refuse what the jobs API refuses: of tasks, names, dependencies, kinds and environments."""
    tasks = settings.get("tasks", [])
    keys = [task.get("task_key") for task in tasks]
    if None in keys or len(set(keys)) < len(keys):
        raise wrong("Every task needs a task_key of its own.")
    environments = {env["environment_key"] for env in settings.get("environments", ())}
    for task in tasks:
        if unknown := [on["task_key"] for on in task.get("depends_on", ()) if on["task_key"] not in keys]:
            raise wrong(f"Task '{task['task_key']}' depends on '{unknown[0]}', which does not exist.")
        _check_kind(task, environments)
    _check_order(tasks)
    schedule = settings.get("schedule")
    if schedule and len(schedule["quartz_cron_expression"].split()) not in (6, 7):
        raise wrong(f"Invalid quartz cron expression: {schedule['quartz_cron_expression']}")


def _check_kind(task: Settings, environments: Iterable[str]) -> None:
    key = task["task_key"]
    kinds = [kind for kind in ("python_wheel_task", "for_each_task") if kind in task]
    if len(kinds) != 1:
        raise wrong(f"Task '{key}' must have exactly one kind.")  # others than these two are not known here
    if loop := task.get("for_each_task"):
        if "for_each_task" in loop["task"]:
            raise wrong(f"Task '{key}': a loop cannot hold a loop.")
        if not 1 <= int(loop.get("concurrency", 1)) <= 100:
            raise wrong(f"Task '{key}': concurrency must be between 1 and 100.")
        _check_kind(loop["task"], environments)
    elif task.get("environment_key", "") not in environments:
        raise wrong(f"Task '{key}' needs an environment_key of the job's environments.")


def _check_order(tasks: Iterable[Settings]) -> None:
    waiting = {task["task_key"]: {on["task_key"] for on in task.get("depends_on", ())} for task in tasks}
    while ready := [key for key, on in waiting.items() if not on & waiting.keys()]:
        for key in ready:
            del waiting[key]
    if waiting:
        raise wrong(f"The tasks {', '.join(sorted(waiting))} depend on each other.")


def _executed(run: Run) -> None:
    try:
        run.execute()
    finally:
        for part in run.parts():
            if part.result is None:
                part.end("FAILED", "The run broke off.")


def _told(part: TaskRun) -> Document:
    attempt = {"attempt_number": max(part.attempts - 1, 0)}
    return {"task_key": part.task_key, "run_id": part.id, "state": _state(part.result, part.error), **attempt}


def _state(result: str | None, message: str = "") -> Document:
    if result is None:
        return {"life_cycle_state": "RUNNING"}
    skipped = result in ("UPSTREAM_FAILED", "EXCLUDED")
    return {
        "life_cycle_state": "SKIPPED" if skipped else "TERMINATED",
        "result_state": result,
        "state_message": message,
    }


def _runs_as(settings: Settings, creator: str) -> str:
    named = settings.get("run_as") or {}
    return str(named.get("service_principal_name") or named.get("user_name") or creator)


def _number(said: object) -> int:
    if not str(said).isdecimal():
        raise wrong(f"'{said}' is no id.")
    return int(str(said))
