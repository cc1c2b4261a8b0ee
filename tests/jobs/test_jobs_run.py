"""The job as it runs: the wheel in a fresh environment, the bundle's parameters, a workspace and a Hub on loopback."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest
import yaml
from databricks.sdk import WorkspaceClient
from databricks.sdk.service.jobs import PauseStatus
from fakes import checkpoints
from fakes.hub import Hub
from fakes.secrets import secret
from jobs.bundle_file import FOLDER, SHORT, Config, read, resolved
from jobs.deployment import deploy
from jobs.fresh import Machine
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from testing.asking import ANN, BOB, TOKENS

from catalogger.testing import Workspace
from catalogger.testing.job_runs import Run

TOKEN = secret("the Hub of the job", "hugging face")
SMALL, BASE = f"main.ml.dev_{SHORT}_bge_small", f"main.ml.dev_{SHORT}_bge_base"
JOB = "catalogger-registration"
PLACE = "models/hf_token"  # scope and key
VARIABLES = {"hf_token_secret": PLACE}


@dataclass
class Site:
    """A deployed bundle, and all that its job meets."""

    space: Workspace
    client: WorkspaceClient
    hub: Hub
    root: Path
    job_id: int
    config: Config

    def run(self) -> Run:
        started = self.client.jobs.run_now(self.job_id)
        return self.space.deployed.jobs.ended(started.run_id, timeout=240)


def _tiny(manifest: Config) -> Config:
    """The manifest with the same names, of checkpoints that a test can make."""
    models = [
        {"recipe": "bge-embeddings", "source": f"acme/{entry['recipe']}", "name": entry["name"]}
        for entry in manifest["models"]
    ]
    return {**manifest, "models": models}


@pytest.fixture
def site(tmp_path: Path, tracking: str, wheel: Path, python: Path) -> Iterator[Site]:
    with Hub() as hub, Workspace(tmp_path / "uc", tokens=TOKENS, tracking=tracking) as space:
        space.add_schema("main.ml")
        hub.add("acme/bge-small", checkpoints.bert(tmp_path / "small", pooling="cls"), gated=True, token=TOKEN)
        client = WorkspaceClient(host=space.url, token=ANN)
        client.secrets.create_scope("models")
        client.secrets.put_secret("models", "hf_token", string_value=TOKEN)
        root = tmp_path / "Workspace" / "Users" / "ann@example.com" / ".bundle" / "catalogger" / "dev"
        config = resolved(read(), "dev", VARIABLES, root=str(root))
        config["resources"]["jobs"]["registration"]["tasks"][1]["for_each_task"]["task"]["max_retries"] = (
            0  # in less time
        )
        made = deploy(client, config, str(root), _bundle(tmp_path / "bundle"), wheel)
        home = tmp_path / "home"
        home.mkdir()
        signed_in = {"TASK_HOST": space.url, "TASK_TOKEN": ANN}
        environment = {**signed_in, "HF_ENDPOINT": hub.url, "HOME": str(home), "HF_HOME": str(home / "hf")}
        space.deployed.jobs.runner = Machine(python, home, space.deployed.files, environment)
        yield Site(space, client, hub, root, made["resources.jobs.registration.id"], config)


def _bundle(folder: Path) -> Path:
    """The bundle's files that tasks read."""
    folder.mkdir()
    manifest = _tiny(yaml.safe_load((FOLDER / "models.yaml").read_text()))
    (folder / "models.yaml").write_text(yaml.safe_dump(manifest))
    (folder / "databricks.yml").write_text((FOLDER / "databricks.yml").read_text())
    return folder


def _results(run: Run) -> dict[str, str | None]:
    return {task.task_key: task.result for task in run.tasks}


def test_the_job_makes_the_manifest_true(site: Site, tmp_path: Path) -> None:
    """One model of two can be had at first, and the other one later."""
    _is_deployed(site)
    first = site.run()
    told = "\n".join(part.logs for part in first.parts())
    assert _results(first) == {"plan": "FAILED", "models": "FAILED", "report": "FAILED"}, told
    assert sorted(first.task("plan").values["changed"]) == [BASE, SMALL]
    assert [turn.result for turn in first.task("models").turns] == ["SUCCESS", "FAILED"], told
    assert len(site.space.versions(SMALL)) == 1
    assert site.space.versions(BASE) == []

    site.hub.add("acme/bge-base", checkpoints.bert(tmp_path / "b", pooling="cls", seed=1), gated=True, token=TOKEN)
    second = site.run()
    told = "\n".join(part.logs for part in second.parts())
    assert _results(second) == {"plan": "SUCCESS", "models": "SUCCESS", "report": "SUCCESS"}, told
    assert second.task("plan").values["changed"] == [BASE], "the one that is registered is left alone"
    assert (len(site.space.versions(SMALL)), len(site.space.versions(BASE))) == (1, 1)
    model = site.space.model(BASE)
    assert model is not None
    assert model.aliases == {"champion": 1}
    assert BASE in (site.root / "report.html").read_text()
    _is_recorded(site)


def _is_deployed(site: Site) -> None:
    """The wheel, the job that runs it, and the grants."""
    job = site.client.jobs.get(site.job_id).settings
    assert job is not None
    assert (job.name, job.schedule and job.schedule.pause_status) == (f"[dev {SHORT}] {JOB}", PauseStatus.PAUSED)
    ((wheel, *_),) = [env.spec.dependencies or [] for env in job.environments or [] if env.spec]
    assert wheel.startswith(f"{site.root}/artifacts/.internal/catalogger-")
    with site.client.workspace.download(wheel) as file:
        assert file.read(2) == b"PK"
    assert not any(path.endswith("deploy.lock") for path in site.space.deployed.files.paths)
    for name in (SMALL, BASE):
        grants = site.client.grants.get("function", name).privilege_assignments or []
        assert {grant.principal for grant in grants} == {"account users", "ann@example.com"}


def _is_recorded(site: Site) -> None:
    """In the experiment of the bundle, and nowhere else."""
    (experiment,) = site.config["resources"]["experiments"].values()
    found = site.client.experiments.get_by_name(experiment["name"]).experiment
    assert found is not None
    assert found.experiment_id is not None
    runs = list(site.client.experiments.search_runs(experiment_ids=[found.experiment_id]))
    assert len(runs) >= 2
    assert list(site.client.experiments.search_runs(experiment_ids=["0"])) == []


def test_a_manifest_that_is_wrong_fails_every_task_and_changes_nothing(site: Site) -> None:
    path = f"{site.root}/files/models.yaml"
    site.space.deployed.files.write(path, b"models: [{recipe: no-such-recipe, name: main.ml.x}]", overwrite=True)
    run = site.run()
    assert _results(run) == {"plan": "FAILED", "models": "FAILED", "report": "FAILED"}
    assert "no-such-recipe" in run.task("report").logs
    assert "tasks.plan.values.changed" in run.task("models").error
    assert site.space.matching("POST .*/model-versions/create") == []


def test_in_production_all_is_the_service_principals(tmp_path: Path, tracking: str, wheel: Path) -> None:
    with Workspace(tmp_path / "uc", tokens={BOB: "0000-app"}, tracking=tracking) as space:
        space.add_schema("main.ml")
        client = WorkspaceClient(host=space.url, token=BOB)
        config = resolved(read(), "prod", {"notify": "team@example.com"}, user="0000-app")
        root = "/Workspace/Users/0000-app/.bundle/catalogger/prod"
        made = deploy(client, config, root, _bundle(tmp_path / "bundle"), wheel)
        job = client.jobs.get(made["resources.jobs.registration.id"])
        assert job.run_as_user_name == "0000-app"
        assert job.settings is not None
        assert (job.settings.name, job.settings.schedule and job.settings.schedule.pause_status) == (JOB, None)
        assert client.registered_models.get("main.ml.bge_small").owner == "0000-app"
        assert [path for path in space.deployed.files.paths if not path.startswith("/Users/0000-app/.bundle/")] == []


# The wheel and its environment


def _wheel_requirements(python: Path) -> list[Requirement]:
    (site,) = (python.parents[1] / "lib").glob("python*/site-packages")
    (info,) = site.glob("catalogger-*.dist-info")
    return [_canonical(line) for line in Distribution.at(info).requires or []]


def _canonical(line: str) -> Requirement:
    found = Requirement(line)
    found.name = canonicalize_name(found.name)
    return found


def test_what_the_environment_pins_is_what_the_wheel_asks_for_and_databricks_needs(python: Path) -> None:
    environment = read().config["resources"]["jobs"]["registration"]["environments"][0]
    found = [_canonical(d) for d in environment["spec"]["dependencies"] if not d.startswith(".")]
    pins = {pin.name: pin for pin in found}
    asked = _wheel_requirements(python)
    for name, pin in pins.items():
        (version,) = [spec.version for spec in pin.specifier]
        assert any(found.name == name and found.specifier.contains(version) for found in asked), name
        assert distribution(name).version == version, "the tests run with it"
    extra = {r.name for r in asked if r.marker and r.marker.evaluate({"extra": "databricks"})} - _plain(asked)
    assert extra - {"catalogger"} <= pins.keys()


def _plain(asked: list[Requirement]) -> set[str]:
    return {r.name for r in asked if not r.marker or r.marker.evaluate({"extra": ""})}


def test_the_fresh_environment_has_the_wheel_and_nothing_else_of_the_project(python: Path) -> None:
    script = "import catalogger, importlib.util as u; print(catalogger.__file__, u.find_spec('fakes'))"
    said = subprocess.run([python, "-c", script], capture_output=True, text=True, check=True, env={}).stdout.split()
    assert (Path(said[0]).is_relative_to(python.parents[1]), said[1]) == (True, "None")
