"""What a bundle's deployment asks of the loopback workspace, by the Databricks SDK: files, jobs, secrets, grants."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from databricks.sdk import WorkspaceClient
from databricks.sdk.errors import (
    BadRequest,
    DatabricksError,
    InvalidParameterValue,
    PermissionDenied,
    ResourceAlreadyExists,
    ResourceDoesNotExist,
)
from databricks.sdk.service import catalog, compute, jobs, workspace
from fakes.secrets import secret
from testing.asking import ANN, BOB, TOKENS

from catalogger.testing import Workspace
from catalogger.testing.job_runs import Ended, Started

FOLDER = "/Workspace/Users/ann@example.com/.bundle/x/dev"
PINNED = jobs.JobEnvironment(environment_key="pinned", spec=compute.Environment(environment_version="4"))


@pytest.fixture
def space(tmp_path: Path) -> Iterator[Workspace]:
    with Workspace(tmp_path, tokens=TOKENS) as found:
        found.add_schema("main.ml")
        yield found


@pytest.fixture
def client(space: Workspace) -> WorkspaceClient:
    return WorkspaceClient(host=space.url, token=ANN)


def _import(client: WorkspaceClient, path: str, content: bytes, *, overwrite: bool = False) -> None:
    """As the tool sends files: their bytes, to their path."""
    query, headers = {"overwrite": str(overwrite).lower()}, {"Content-Type": "application/octet-stream"}
    url = f"/api/2.0/workspace-files/import-file{path}"
    client.api_client.do("POST", url, query=query, data=content, headers=headers)


# Workspace files


def test_files_come_back_as_they_were_sent(client: WorkspaceClient, space: Workspace) -> None:
    client.workspace.mkdirs(f"{FOLDER}/files")
    content = bytes(range(256)) * 1000
    _import(client, f"{FOLDER}/files/a.whl", content)
    with client.workspace.download(f"{FOLDER}/files/a.whl") as file:
        assert file.read() == content
    assert client.api_client.do("GET", f"/api/2.0/workspace-files{FOLDER}/files/a.whl", raw=True)[
        "contents"
    ].read() == (content)
    status = client.workspace.get_status(f"{FOLDER}/files/a.whl")
    assert (status.object_type, status.size) == (workspace.ObjectType.FILE, 256_000)
    (listed,) = client.workspace.list(f"{FOLDER}/files")
    assert listed.path == f"{FOLDER}/files/a.whl"
    assert space.deployed.files.paths == [f"{FOLDER.removeprefix('/Workspace')}/files/a.whl"]


def test_json_is_a_file_like_every_other(client: WorkspaceClient) -> None:
    client.workspace.mkdirs(f"{FOLDER}/state")
    _import(client, f"{FOLDER}/state/deployment.json", b'{"path": "/elsewhere", "overwrite": true}')
    with client.workspace.download(f"{FOLDER}/state/deployment.json") as file:
        assert file.read() == b'{"path": "/elsewhere", "overwrite": true}'


def test_a_file_is_overwritten_only_where_that_is_said(client: WorkspaceClient) -> None:
    client.workspace.mkdirs(FOLDER)
    _import(client, f"{FOLDER}/lock", b"1")
    with pytest.raises(ResourceAlreadyExists):
        _import(client, f"{FOLDER}/lock", b"2")
    _import(client, f"{FOLDER}/lock", b"3", overwrite=True)
    with client.workspace.download(f"{FOLDER}/lock") as file:
        assert file.read() == b"3"


def test_what_is_not_there(client: WorkspaceClient) -> None:
    with pytest.raises(ResourceDoesNotExist, match="parent folder"):
        _import(client, f"{FOLDER}/a", b"")
    with pytest.raises(ResourceDoesNotExist, match="doesn't exist"):
        client.workspace.get_status(f"{FOLDER}/a")
    with pytest.raises(ResourceDoesNotExist):
        client.workspace.delete(f"{FOLDER}/a")
    with pytest.raises(InvalidParameterValue, match="start with"):
        client.workspace.get_status("a")


def test_a_folder_goes_with_what_is_in_it(client: WorkspaceClient, space: Workspace) -> None:
    client.workspace.mkdirs(f"{FOLDER}/files")
    _import(client, f"{FOLDER}/files/a", b"")
    with pytest.raises(BadRequest, match="not empty"):
        client.workspace.delete(FOLDER)
    client.workspace.delete(FOLDER, recursive=True)
    assert space.deployed.files.paths == []
    assert client.workspace.get_status("/Workspace/Users/ann@example.com/.bundle/x").object_type is not None


# Jobs


def _task(key: str, *after: str, **more: Any) -> jobs.Task:
    wheel = jobs.PythonWheelTask("p", "e", parameters=["{{job.run_id}}"])
    on = [jobs.TaskDependency(task_key=key) for key in after]
    return jobs.Task(key, python_wheel_task=wheel, environment_key="pinned", depends_on=on, **more)


def test_a_job_is_created_reset_and_deleted(client: WorkspaceClient, space: Workspace) -> None:
    made = client.jobs.create(name="nightly", tasks=[_task("a")], environments=[PINNED])
    found = client.jobs.get(made.job_id or 0)
    assert found.settings is not None
    assert (found.settings.name, found.creator_user_name) == ("nightly", "ann@example.com")
    new = jobs.JobSettings(name="weekly", tasks=[_task("a"), _task("b", "a")], environments=[PINNED])
    client.jobs.reset(made.job_id or 0, new)
    assert [job.job_id for job in client.jobs.list(name="weekly")] == [made.job_id]
    assert len(space.deployed.jobs.named("weekly").settings["tasks"]) == 2
    client.jobs.delete(made.job_id or 0)
    with pytest.raises(ResourceDoesNotExist, match="does not exist"):
        client.jobs.get(made.job_id or 0)


def test_a_run_is_told_as_it_went(client: WorkspaceClient, space: Workspace) -> None:
    space.deployed.jobs.runner = lambda started: Ended(ok=started.task_key == "a", logs=" ".join(started.parameters))
    made = client.jobs.create(name="nightly", tasks=[_task("a"), _task("b", "a")], environments=[PINNED])
    run_id = client.jobs.run_now(made.job_id or 0).run_id
    space.deployed.jobs.ended(run_id)
    run = client.jobs.get_run(run_id)
    assert run.state is not None
    assert run.state.result_state is jobs.RunResultState.FAILED
    first, second = run.tasks or []
    assert client.jobs.get_run_output(first.run_id or 0).logs == str(run_id)
    assert "see run output" in (client.jobs.get_run_output(second.run_id or 0).error or "")


def test_the_turns_of_a_loop_are_told_too(client: WorkspaceClient, space: Workspace) -> None:
    turn = jobs.Task("turn", python_wheel_task=jobs.PythonWheelTask("p", "e"), environment_key="pinned")
    loop = jobs.Task("models", for_each_task=jobs.ForEachTask('["a", "b"]', turn, concurrency=2))
    made = client.jobs.create(name="nightly", tasks=[loop], environments=[PINNED])
    run_id = client.jobs.run_now(made.job_id or 0).run_id
    space.deployed.jobs.ended(run_id)
    (task,) = client.jobs.get_run(run_id).tasks or []
    turns = client.jobs.get_run(task.run_id or 0).iterations or []
    assert [turn.state.result_state for turn in turns if turn.state] == [jobs.RunResultState.SUCCESS] * 2


def test_a_job_has_as_many_runs_at_a_time_as_it_may(client: WorkspaceClient, space: Workspace) -> None:
    import threading

    go_on = threading.Event()

    def waits(_: Started) -> Ended:
        return Ended(ok=go_on.wait(30))

    space.deployed.jobs.runner = waits
    made = client.jobs.create(name="n", tasks=[_task("a")], environments=[PINNED], max_concurrent_runs=1)
    first = client.jobs.run_now(made.job_id or 0).run_id
    state = client.jobs.get_run(first).state
    assert state is not None
    assert state.life_cycle_state is jobs.RunLifeCycleState.RUNNING
    with pytest.raises(InvalidParameterValue, match="1 active runs"):
        client.jobs.run_now(made.job_id or 0)
    go_on.set()
    space.deployed.jobs.ended(first)
    space.deployed.jobs.ended(client.jobs.run_now(made.job_id or 0).run_id)


def _looping(concurrency: int = 1, *, twice: bool = False) -> jobs.Task:
    inner = jobs.Task("t", python_wheel_task=jobs.PythonWheelTask("p", "e"), environment_key="pinned")
    loop = jobs.Task("x", for_each_task=jobs.ForEachTask("[]", inner, concurrency=concurrency))
    return jobs.Task("y", for_each_task=jobs.ForEachTask("[]", loop)) if twice else loop


@pytest.mark.parametrize(
    ("tasks", "words"),
    [
        ([_task("a"), _task("a")], "task_key of its own"),
        ([_task("a", "b")], "'b', which does not exist"),
        ([_task("a", "b"), _task("b", "a")], "a, b depend on each other"),
        ([jobs.Task("a")], "exactly one kind"),
        (
            [jobs.Task("a", python_wheel_task=jobs.PythonWheelTask("p", "e"), environment_key="other")],
            "environment_key",
        ),
        ([_looping(101)], "between 1 and 100"),
        ([_looping(twice=True)], "cannot hold a loop"),
    ],
)
def test_settings_that_make_no_job(client: WorkspaceClient, tasks: list[jobs.Task], words: str) -> None:
    with pytest.raises(InvalidParameterValue, match=words):
        client.jobs.create(name="n", tasks=tasks, environments=[PINNED])


def test_a_schedule_of_five_fields_is_crons_and_not_quartzs(client: WorkspaceClient) -> None:
    with pytest.raises(InvalidParameterValue, match="quartz"):
        client.jobs.create(
            name="n", tasks=[_task("a")], environments=[PINNED], schedule=jobs.CronSchedule("0 3 * * *", "UTC")
        )


# Secrets, grants, permissions


def test_a_secret_is_read_by_those_who_may(client: WorkspaceClient, space: Workspace) -> None:
    value = secret("the Hub", "hugging face")
    client.secrets.create_scope("models")
    client.secrets.put_secret("models", "hf_token", string_value=value)
    assert client.dbutils.secrets.get("models", "hf_token") == value
    assert [found.key for found in client.secrets.list_secrets("models")] == ["hf_token"]
    assert [found.name for found in client.secrets.list_scopes()] == ["models"]
    bob = WorkspaceClient(host=space.url, token=BOB)
    with pytest.raises(PermissionDenied):
        bob.dbutils.secrets.get("models", "hf_token")
    client.secrets.put_acl("models", "bob@example.com", workspace.AclPermission.READ)
    assert bob.dbutils.secrets.get("models", "hf_token") == value
    with pytest.raises(PermissionDenied):
        bob.secrets.put_secret("models", "hf_token", string_value="x")
    for scope, key in (("models", "other"), ("other", "hf_token")):
        with pytest.raises(ResourceDoesNotExist):
            client.dbutils.secrets.get(scope, key)
    with pytest.raises(DatabricksError, match="already exists"):
        client.secrets.create_scope("models")


def test_grants_are_given_as_the_tool_gives_them(client: WorkspaceClient, space: Workspace) -> None:
    client.registered_models.create(catalog_name="main", schema_name="ml", name="bge")
    everything = [catalog.Privilege.ALL_PRIVILEGES]
    added = [catalog.Privilege.ALL_PRIVILEGES, catalog.Privilege.MANAGE]
    changes = [catalog.PermissionsChange(add=added, remove=everything, principal="bob@example.com")]
    for _ in range(2):
        client.grants.update("registered-model", "main.ml.bge", changes=changes)
    (found,) = client.grants.get("function", "main.ml.bge").privilege_assignments or []
    assert (found.principal, found.privileges) == ("bob@example.com", added)
    bob = WorkspaceClient(host=space.url, token=BOB)
    assert bob.registered_models.update("main.ml.bge", comment="mine too").comment == "mine too"


def test_permissions_are_kept(client: WorkspaceClient) -> None:
    row = {"service_principal_name": "app", "permission_level": "CAN_MANAGE"}
    path = "/api/2.0/permissions/jobs/1"
    client.api_client.do("PUT", path, body={"access_control_list": [row]})
    assert client.api_client.do("GET", path) == {"object_id": "/jobs/1", "access_control_list": [row]}
