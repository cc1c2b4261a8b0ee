"""The asset bundle: right as it is, and every rule that holds it finds what a broken copy has wrong."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from jobs.bundle_checks import classes_refuse, mistakes, schedules, unset, wheel_tasks
from jobs.bundle_file import FOLDER, Bundle, read, references, resolved

ROOT = FOLDER.parent
CONSTRAINTS = ROOT / "constraints.txt"
PROD = {"notify": "team@example.com"}


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The bundle in a project of its own, to be broken."""
    for name in ("pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    return Path(shutil.copytree(FOLDER, tmp_path / "jobs"))


def _manifest_names(bundle: Bundle, target: str) -> set[str]:
    """The names that the manifest gives its entries, with the variables that the job's tasks give it."""
    job = resolved(bundle, target, PROD)["resources"]["jobs"]["registration"]
    (task, _), *_ = wheel_tasks(job)
    said = [p.removeprefix("--var=").partition("=") for p in task["python_wheel_task"]["parameters"] if "--var=" in p]
    values = {name: value for name, _, value in said}
    manifest = yaml.safe_load((bundle.folder / "models.yaml").read_text())
    assert values.keys() == manifest["variables"].keys()
    return {re.sub(r"\$\{(\w+)\}", lambda found: values[found[1]], entry["name"]) for entry in manifest["models"]}


def test_nothing_is_wrong_with_it() -> None:
    bundle = read()
    assert mistakes(bundle, CONSTRAINTS) == []
    assert classes_refuse(bundle.config) == []
    assert sorted(bundle.config["targets"]) == ["dev", "prod"]


@pytest.mark.parametrize("target", ["dev", "prod"])
def test_databricks_own_classes_take_every_resource_of_every_target(target: str) -> None:
    bundle = read()
    config = resolved(bundle, target, PROD)
    assert classes_refuse(config) == []
    left = references(config["resources"])
    assert left == {"resources.experiments.registrations.id"}, "known once it is deployed"


def test_two_variables_are_all_that_has_to_be_changed() -> None:
    bundle = read()
    assert unset(bundle, "dev") == []
    assert unset(bundle, "prod") == ["notify"], "whom to write to is asked, not guessed"
    here = resolved(bundle, "dev", {"catalog": "lab", "schema": "nlp"})
    models = here["resources"]["registered_models"].values()
    assert {(model["catalog_name"], model["schema_name"]) for model in models} == {("lab", "nlp")}
    for task, _ in wheel_tasks(here["resources"]["jobs"]["registration"]):
        assert {"--var=CATALOG=lab", "--var=SCHEMA=nlp"} <= set(task["python_wheel_task"]["parameters"])


def test_the_schedule_is_paused_in_dev_only() -> None:
    assert (schedules(read(), "dev"), schedules(read(), "prod")) == (["PAUSED"], ["UNPAUSED"])


@pytest.mark.parametrize("target", ["dev", "prod"])
def test_the_manifest_and_the_grants_name_the_same_models(target: str) -> None:
    bundle = read()
    models = resolved(bundle, target, PROD)["resources"]["registered_models"].values()
    names = {f"{model['catalog_name']}.{model['schema_name']}.{model['name']}" for model in models}
    assert names == _manifest_names(bundle, target)


def test_who_runs_the_job_may_do_everything_with_its_models_and_others_may_load_them() -> None:
    config = resolved(read(), "prod", {**PROD, "runs_as": "0000-app", "readers": "data-scientists"})
    for model in config["resources"]["registered_models"].values():
        assert model["grants"] == [
            {"principal": "data-scientists", "privileges": ["EXECUTE"]},
            {"principal": "0000-app", "privileges": ["ALL_PRIVILEGES", "MANAGE"]},
        ]
        assert model["lifecycle"] == {"prevent_destroy": True}
    assert config["run_as"] == {"service_principal_name": "0000-app"}
    assert config["permissions"] == [{"service_principal_name": "0000-app", "level": "CAN_MANAGE"}]


def test_the_job_is_bounded_and_its_failure_is_told() -> None:
    job = resolved(read(), "prod", PROD)["resources"]["jobs"]["registration"]
    assert (job["max_concurrent_runs"], job["timeout_seconds"]) == (1, 43200)
    assert job["email_notifications"] == {"on_failure": ["team@example.com"]}
    plan, models, report = job["tasks"]
    assert models["for_each_task"]["inputs"] == "{{tasks.plan.values.changed}}"
    assert models["for_each_task"]["concurrency"] == 4
    assert (models["run_if"], report["run_if"]) == ("ALL_DONE", "ALL_DONE")
    assert "--publish=changed" in plan["python_wheel_task"]["parameters"]
    assert "--check" in report["python_wheel_task"]["parameters"], "the last task's result is the job's"


def test_the_page_names_what_there_is() -> None:
    page = (FOLDER / "README.md").read_text()
    links = re.findall(r"\]\((?!https:)([^)]+)\)", page)
    assert [link for link in links if not (FOLDER / link).exists() and not link.startswith("../docs/")] == []
    assert {"databricks.yml", "models.yaml", "crontab", "github-actions.yml"} <= set(links)
    table = page[page.index("| variable |") :].partition("\n\n")[0]
    told = set(re.findall(r"`(\w+)`", "".join(row.split("|")[1] for row in table.splitlines())))
    assert told == read().config["variables"].keys() - {"prefix"}


Broken = Callable[[Path], None]


def _edit(name: str, old: str, new: str) -> Broken:
    def edit(folder: Path) -> None:
        file = folder / name
        text = file.read_text()
        assert old in text
        file.write_text(text.replace(old, new))

    return edit


def _add(name: str, text: str) -> Broken:
    def add(folder: Path) -> None:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)

    return add


MAIN, JOB, MODELS = "databricks.yml", "resources/registration.job.yml", "resources/models.yml"
ENDPOINT = "resources: {model_serving_endpoints: {bot: {name: bot, config: {}}}}"


@pytest.mark.parametrize(
    ("breaks", "words"),
    [
        (_edit(MAIN, "resources/*.yml", "resource/*.yml"), "include resource/*.yml names no file"),
        (_edit(MAIN, "include: [resources/*.yml]", "include: [resources/m*.yml]"), "experiment.yml is not included"),
        (_add("resources/twice.yml", "resources: {registered_models: {bge_small: {}}}"), "bge_small is there twice"),
        (_add("resources/more.yml", "variables: {a: {}}"), "variables does not belong in an included file"),
        (_edit(MAIN, "targets:", "target: {}\ntargets:"), "unknown key target"),
        (_edit(MAIN, "    default: true\n", ""), "exactly one target has to be the default"),
        (_edit(MAIN, "mode: production", "mode: prod"), "neither development nor production"),
        (_edit(MAIN, "      root_path:", "      state_path:"), "production needs workspace.root_path"),
        (_edit(MAIN, "run_as: {", "runs_as: {"), "target prod: unknown key runs_as"),
        (_edit(MAIN, "      prefix: dev_", "      prefx: dev_"), "prefx is no variable"),
        (_edit(MAIN, "        bge_base: {l", "        bge_bse: {l"), "registered_models.bge_bse is no resource"),
        (_edit(MAIN, "path: ..", "path: ."), "artifact catalogger: no project in ."),
        (_edit(MAIN, "    build: uv build --wheel\n", ""), "nothing builds it"),
        (_edit(MAIN, "../dist/*.whl", "dist/*.whl"), "is not where it is built"),
        (_edit(JOB, "../../dist", "../dist"), "../dist/*.whl is no artifact"),
        (_edit(JOB, "${var.notify}", "${var.notified}"), "variable notified is not declared"),
        (_edit(JOB, "${var.notify}", "me@example.com"), "variable notify is not used"),
        (_edit(MAIN, "{description: Group that may load and serve the models, d", "{d"), "readers has no description"),
        (_edit(JOB, "${workspace.file_path}", "${workspace.files}"), "${workspace.files} refers to nothing"),
        (_edit(JOB, "experiments.registrations.id", "experiments.nightly.id"), "nightly.id} refers to nothing"),
        (_edit(JOB, "package_name: catalogger", "package_name: other"), "the wheel is catalogger, not other"),
        (_edit(JOB, "catalogger-task", "catalogger-tasks"), "no entry point catalogger-tasks"),
        (_edit(JOB, "- environment_key: pinned", "- environment_key: other"), "no environment pinned"),
        (_edit(JOB, "              timeout_seconds: 21600\n", ""), "task model: no time-out"),
        (_edit(JOB, "/models.yaml", "/model.yaml"), "the bundle holds no model.yaml"),
        (_edit(JOB, "--check", "--only={{input}}"), "{{input}} outside of a loop"),
        (_edit(JOB, "--publish=changed", "--publish=change"), "is published by no task before it"),
        (_edit(JOB, "[{task_key: plan}]", "[{task_key: pln}]"), "depends on pln, which does not come before it"),
        (_edit(JOB, "mlflow==3.17.2", "mlflow>=3"), "mlflow>=3 is not what the tests run with"),
        (_edit(JOB, 'environment_version: "4"', "dependency: x"), "has no version"),
        (_add("resources/bot.yml", ENDPOINT), "run_as and model_serving_endpoints do not go together"),
    ],
)
def test_what_is_wrong_with_a_broken_copy_is_found(copy: Path, breaks: Broken, words: str) -> None:
    breaks(copy)
    found = mistakes(read(copy), copy.parent / "constraints.txt")
    assert any(words in text for text in found), found


@pytest.mark.parametrize(
    ("breaks", "words"),
    [
        (_edit(JOB, "max_concurrent_runs", "max_concurrent_run"), "Unexpected field 'max_concurrent_run'"),
        (_edit(JOB, "run_if: ALL_DONE", "run_if: ALL_ENDED"), "ALL_ENDED"),
        (_edit(JOB, "entry_point:", "entrypoint:"), "entrypoint"),
        (_edit(MODELS, "EXECUTE", "RUN"), "RUN"),
        (_edit(MODELS, "catalog_name", "catalog"), "Unexpected field 'catalog'"),
        (_edit("resources/experiment.yml", "      name:", "      title:"), "title"),
        (_add("resources/bot.yml", ENDPOINT.replace("name: bot", "nam: bot")), "nam"),
        (_add("resources/bot.yml", "resources: {apps: {a: {}}}"), "apps: an unknown kind"),
    ],
)
def test_databricks_own_classes_refuse_a_broken_copy(copy: Path, breaks: Broken, words: str) -> None:
    breaks(copy)
    found = classes_refuse(read(copy).config)
    assert any(words in text for text in found), found
