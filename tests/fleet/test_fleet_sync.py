"""Many models at once: what is planned is done, what is as it should be costs little, one failure is one failure."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import mlflow
import pytest
from cli.command import START, Done, run
from fakes import checkpoints
from fakes.hub import Hub
from leaks import heard
from serving.deployments import WRITES, Answers
from testing.asking import ANN, TOKENS

from catalogger import SyncOutcome, sync
from catalogger.errors import NetworkUnreachable, UsageError
from catalogger.fleet.crew import Disks
from catalogger.fleet.report import report
from catalogger.testing import Build, Workspace

UC = "databricks-uc"


def manifest(*entries: str, **page: Any) -> str:
    file = Path("models.yaml")
    file.write_text(
        json.dumps(page)[1:-1].replace('"', "") + "\nmodels:\n" + "".join(f"  - {{{e}}}\n" for e in entries)
    )
    return str(file)


def entry(name: str, source: object, *more: str, recipe: str = "bge-embeddings") -> str:
    return ", ".join([f"recipe: {recipe}", f"name: main.ml.{name}", f"source: {source}", *more])


def made_true(file: str, **more: Any) -> SyncOutcome:
    outcome = sync(file, registry_uri=more.pop("registry_uri", UC), **more)
    heard("an outcome of sync", f"{outcome} {outcome.document()} {report(outcome)}")
    return outcome


def ended(outcome: SyncOutcome) -> list[tuple[str, str, str | None]]:
    return [(e.name.removeprefix("main.ml."), e.action, e.version) for e in outcome.entries]


def texts(outcome: SyncOutcome) -> list[list[str]]:
    return [[f"{c.kind}: {c.text}" for c in e.changes] for e in outcome.entries]


def aliases(space: Workspace, name: str) -> Mapping[str, int]:
    model = space.model(f"main.ml.{name}")
    assert model is not None
    return model.aliases


def _store() -> str:
    """The embedded default of the working folder."""
    return f"sqlite:///{Path.cwd()}/mlflow.db"


def _runs() -> list[str]:
    client = mlflow.MlflowClient(_store())
    return [run.info.run_id for run in client.search_runs([e.experiment_id for e in client.search_experiments()])]


def everything(space: Workspace) -> Mapping[str, Any]:
    names = list(space._registry.models)
    return {n: [(v.number, v.status, dict(v.tags), v.comment) for v in space.versions(n)] for n in names}


def test_the_second_run_changes_nothing_and_costs_little(space: Workspace, hub: Hub, llama: Path, bert: Path) -> None:
    hub.add("org/bert", bert)
    file = manifest(
        entry("hub", "org/bert", "alias: champion", "tag: {team: search}"),
        entry("folder", bert, "alias: champion"),
        entry("chat", llama, recipe="llama-chat"),
    )
    first = made_true(file, jobs=2)
    assert ended(first) == [("hub", "registered", "1"), ("folder", "registered", "1"), ("chat", "registered", "1")]
    assert texts(first)[0] == ["version: new version: there is none yet", "alias: champion is set on the new version"]
    assert aliases(space, "hub") == {"champion": 1}
    held, asked, of_hub, sent = everything(space), len(space.requests), len(hub.requests), hub.sent
    runs = _runs()

    second = made_true(file, jobs=2)
    assert [action for _, action, _ in ended(second)] == ["unchanged"] * 3
    assert texts(second) == [[], [], []]
    assert second.run_id is None
    assert second.exit_code(check=True) == 0
    asked_again = space.requests[asked:]
    assert len(asked_again) <= 3 * 3
    assert {request.method for request in asked_again} == {"GET"}
    assert sum(request.received for request in asked_again) == 0
    assert len(hub.requests) - of_hub <= 3
    assert hub.sent - sent < 20_000, "a listing, and no file"
    assert everything(space) == held
    assert _runs() == runs


def test_a_hub_entry_costs_as_little_on_another_machine(
    space: Workspace, hub: Hub, bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add("org/bert", bert)
    file = manifest(entry("hub", "org/bert"))
    made_true(file)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "elsewhere"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "elsewhere/hub"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    asked, of_hub = len(space.requests), len(hub.requests)
    assert ended(made_true(file)) == [("hub", "unchanged", "1")]
    assert len(space.requests) - asked <= 3
    assert len(hub.requests) - of_hub <= 3


def test_a_run_is_recorded(space: Workspace, llama: Path) -> None:
    outcome = made_true(
        manifest(entry("chat", llama, recipe="llama-chat"), entry("gone", "/nowhere", recipe="llama-chat"))
    )
    assert outcome.run_id is not None
    recorded = mlflow.MlflowClient(_store()).get_run(outcome.run_id)
    assert recorded.data.tags["catalogger.manifest_digest"] == outcome.digest
    assert recorded.data.metrics["changed"] == 1
    assert recorded.data.metrics["failed"] == 1
    assert recorded.info.status == "FAILED"
    folder = Path(mlflow.artifacts.download_artifacts(run_id=outcome.run_id, tracking_uri=_store()))
    kept = json.loads((folder / "report.json").read_text())
    assert [e["action"] for e in kept["entries"]] == ["registered", "failed"]
    assert "main.ml.chat" in (folder / "report.html").read_text()


def test_one_failure_ends_neither_the_others_nor_the_truth(
    space: Workspace, llama: Path, bert: Path, work: Path
) -> None:
    broken = work / "broken"
    shutil.copytree(llama, broken)
    shard = next(broken.glob("*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-10])
    file = manifest(
        entry("broken", broken, recipe="llama-chat"),
        entry("gone", "/nowhere", recipe="llama-chat"),
        entry("bert", bert),
        entry("elsewhere", llama, recipe="llama-chat").replace("main.ml", "main.nothere"),
    )
    outcome = made_true(file)
    assert [action for _, action, _ in ended(outcome)] == ["failed", "failed", "registered", "failed"]
    assert list(everything(space)) == ["main.ml.bert"]
    assert outcome.exit_code() == 2
    assert any(f["severity"] == "error" for f in outcome.entries[0].findings)
    assert '"/nowhere"' in str(outcome)
    assert "main.nothere" in str(outcome)


def test_a_plan_changes_nothing(space: Workspace, llama: Path, bert: Path) -> None:
    made_true(manifest(entry("bert", bert, "alias: champion")))
    held, asked = everything(space), len(space.requests)
    file = manifest(
        entry("bert", bert, "alias: [champion, newest]", "tag: {team: search}"),
        entry("chat", llama, "alias: champion", recipe="llama-chat"),
    )
    plan = made_true(file, dry_run=True)
    assert ended(plan) == [("bert", "planned", "1"), ("chat", "planned", None)]
    assert texts(plan) == [
        ["alias: newest is set on version 1", "tag: team = search"],
        ["version: new version: there is none yet", "alias: champion is set on the new version"],
    ]
    assert (plan.exit_code(), plan.exit_code(check=True)) == (0, 3)
    assert plan.pending == ["main.ml.bert", "main.ml.chat"]
    assert everything(space) == held
    assert {r.method for r in space.requests[asked:]} == {"GET"}
    done = made_true(file)
    assert ended(done) == [("bert", "updated", "1"), ("chat", "registered", "1")]
    assert aliases(space, "bert") == {"champion": 1, "newest": 1}


@pytest.fixture
def moved(hub: Hub, bert: Path, tmp_path: Path) -> Path:
    """A folder whose files are committed to org/bert by the test, after the first commit of another content."""
    hub.add("org/bert", bert)
    folder = tmp_path / "moved"
    shutil.copytree(bert, folder)
    shard = folder / "model.safetensors"
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(bytes(content))
    (folder / "LICENSE").write_text("Another licence.\n")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"chat_template": "{{ messages }}"}))
    return folder


def test_a_moved_branch_says_what_changed(space: Workspace, hub: Hub, moved: Path) -> None:
    file = manifest(entry("bert", "org/bert", "alias: champion"))
    made_true(file)
    commit = hub.add("org/bert", moved)
    plan = made_true(file, dry_run=True)
    assert ended(plan) == [("bert", "planned", None)]
    version, alias = texts(plan)[0]
    assert version.startswith("version: new version: org/bert moved from ")
    assert f" to {commit[:12]}: " in version
    assert set(version.partition(f"{commit[:12]}: ")[2].split(", ")) >= {
        "weights",
        "chat template",
        "licence text",
    }
    assert alias == "alias: champion moves from version 1 to the new version"
    assert ended(made_true(file)) == [("bert", "registered", "2")]
    assert aliases(space, "bert") == {"champion": 2}


def test_a_candidate_leaves_the_champion(space: Workspace, hub: Hub, moved: Path) -> None:
    file = manifest(entry("bert", "org/bert", "alias: champion", "on_change: candidate"))
    made_true(file)
    hub.add("org/bert", moved)
    assert texts(made_true(file, dry_run=True))[0][1:] == ["alias: challenger is set on the new version"]
    assert ended(made_true(file)) == [("bert", "registered", "2")]
    assert aliases(space, "bert") == {"champion": 1, "challenger": 2}
    assert ended(made_true(file)) == [("bert", "unchanged", "2")], "and it stays so"
    assert aliases(space, "bert") == {"champion": 1, "challenger": 2}


def test_what_is_to_stay_fails_when_it_changes(space: Workspace, hub: Hub, moved: Path) -> None:
    file = manifest(entry("bert", "org/bert", "on_change: fail"))
    made_true(file)
    hub.add("org/bert", moved)
    outcome = made_true(file)
    assert ended(outcome) == [("bert", "failed", None)]
    assert outcome.exit_code() == 2
    assert "weights" in str(outcome)
    assert len(space.versions("main.ml.bert")) == 1


def test_code_that_changed_after_the_consent_is_not_taken(
    space: Workspace, hub: Hub, bert: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "coded"
    shutil.copytree(bert, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"auto_map": {"AutoModel": "modeling.Bert"}}))
    (folder / "modeling.py").write_text("first = 1\n")
    hub.add("org/coded", folder)
    file = manifest(entry("coded", "org/coded", "trust_remote_code: true"))
    assert ended(made_true(file, trust_remote_code=True)) == [("coded", "registered", "1")]
    (folder / "modeling.py").write_text("second = 2\n")
    commit = hub.add("org/coded", folder)
    outcome = made_true(file, trust_remote_code=True)
    assert ended(outcome) == [("coded", "failed", None)]
    assert "other Python code than the one that was consented to" in str(outcome)
    pinned = manifest(entry("coded", f"org/coded@{commit}", "trust_remote_code: true"))
    assert ended(made_true(pinned, trust_remote_code=True)) == [("coded", "registered", "2")]


def test_an_endpoint_follows_and_is_left_alone_afterwards(
    tmp_path: Path, llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Workspace(tmp_path / "served", tokens=TOKENS, sdk_uploads=True, answers=Answers()) as space:
        space.add_schema("main.ml")
        space.serving.build = Build(looks=0)
        monkeypatch.setenv("DATABRICKS_HOST", space.url)
        monkeypatch.setenv("DATABRICKS_TOKEN", ANN)
        file = manifest(entry("chat", llama, "deploy: {endpoint: support}", recipe="llama-chat"))
        assert texts(made_true(file, dry_run=True)) == [
            ["version: new version: there is none yet", "endpoint: support serves the new version"]
        ]
        first = made_true(file)
        assert first.entries[0].deployment is not None
        assert first.entries[0].deployment["action"] == "created"
        writes = len(space.matching(WRITES))
        second = made_true(file)
        assert ended(second) == [("chat", "unchanged", "1")]
        assert len(space.matching(WRITES)) == writes
        larger = manifest(
            entry(
                "chat",
                llama,
                "deploy: {endpoint: support, min_throughput: 980, max_throughput: 1960}",
                recipe="llama-chat",
            )
        )
        assert texts(made_true(larger, dry_run=True)) == [["endpoint: support would be updated"]]
        assert ended(made_true(larger)) == [("chat", "updated", "1")]


def test_a_deployment_that_fails_leaves_the_version_and_says_9(
    tmp_path: Path, llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Workspace(tmp_path / "served", tokens=TOKENS, sdk_uploads=True, answers=Answers()) as space:
        space.add_schema("main.ml")
        monkeypatch.setenv("DATABRICKS_HOST", space.url)
        monkeypatch.setenv("DATABRICKS_TOKEN", ANN)
        broken = entry("chat", llama, "deploy: {min_throughput: 7, max_throughput: 8}", recipe="llama-chat")
        outcome = made_true(manifest(broken))
        assert ended(outcome) == [("chat", "failed", "1")]
        assert outcome.exit_code() == 9
        assert outcome.entries[0].outcome is not None
        assert outcome.entries[0].outcome["action"] == "registered"
        assert len(space.versions("main.ml.chat")) == 1


def test_the_embedded_default(llama: Path, bert: Path) -> None:
    file = manifest(entry("chat", llama, "alias: champion", recipe="llama-chat"), entry("bert", bert))
    first = made_true(file, registry_uri=None, jobs=2)
    assert [action for _, action, _ in ended(first)] == ["registered", "registered"]
    before = Path("mlflow.db").read_bytes()
    second = made_true(file, registry_uri=None)
    assert [action for _, action, _ in ended(second)] == ["unchanged", "unchanged"]
    assert Path("mlflow.db").read_bytes() == before
    moved = manifest(entry("chat", llama, "alias: [champion, newest]", recipe="llama-chat"))
    assert texts(made_true(moved, registry_uri=None)) == [["alias: newest is set on version 1"]]


def test_an_entry_whose_weights_are_changed(work: Path) -> None:
    """What is to be done to them is planned, done, and not done again; a folder is looked for beside the manifest."""
    checkpoints.llama(work / "wide", dtype="float32")
    file = manifest(entry("chat", "./wide", "dtype: bfloat16", "max_shard_size: 30kB", recipe="llama-chat"))
    assert ended(made_true(file, registry_uri=None)) == [("chat", "registered", "1")]
    tags = mlflow.MlflowClient(_store()).get_model_version("main.ml.chat", "1").tags
    assert (tags["catalogger.cast"], tags["catalogger.max_shard_size"]) == ("bfloat16", "30000")
    assert ended(made_true(file, registry_uri=None)) == [("chat", "unchanged", "1")]
    other = manifest(entry("chat", "./wide", "dtype: bfloat16", recipe="llama-chat"))
    assert ended(made_true(other, registry_uri=None)) == [("chat", "registered", "2")]


def test_an_entry_that_is_streamed(space: Workspace, hub: Hub, llama: Path) -> None:
    """It keeps no weights here, and is the same version as without: nothing is done again."""
    hub.add("org/llama", llama)
    streamed = made_true(manifest(entry("chat", "org/llama", "stream: true", recipe="llama-chat")))
    assert ended(streamed) == [("chat", "registered", "1")]
    assert streamed.entries[0].outcome is not None
    assert streamed.entries[0].outcome["weights"] == "streamed"
    assert not list(Path(os.environ["HF_HOME"]).rglob("*.safetensors"))
    assert ended(made_true(manifest(entry("chat", "org/llama", recipe="llama-chat")))) == [("chat", "unchanged", "1")]


def test_entries_that_are_written_for_another_mlflow(space: Workspace, hub: Hub, llama: Path, bert: Path) -> None:
    """Known again without a process, as any other; another environment makes another version, and why is said."""
    hub.add("org/bert", bert)

    def asked(environment: str) -> str:
        more = f"for: {environment}"
        return manifest(entry("hub", "org/bert", more), entry("chat", llama, more, recipe="llama-chat"))

    assert [action for _, action, _ in ended(made_true(asked("dbr-15.4-ml"), jobs=2))] == ["registered"] * 2
    assert [v.tags["catalogger_written_for"] for v in space.versions("main.ml.chat")] == ["dbr-15.4-ml"]
    again = made_true(asked("dbr-15.4-ml"))
    assert [(e.action, e.seconds) for e in again.entries] == [("unchanged", 0.0)] * 2, "no process looked closer"
    why = "version: new version: it is written for mlflow==2.12.2; version 1 was for dbr-15.4-ml"
    assert texts(made_true(asked("mlflow==2.12.2"), dry_run=True)) == [[why], [why]]


def test_a_process_that_is_killed_fails_its_entry_only(space: Workspace, llama: Path, bert: Path) -> None:
    killed: list[int] = []
    once = threading.Lock()  # requests come in several at a time, and the next entry's process follows the killed one

    def kill(request: Any) -> None:
        if "PUT" in request.line and "main/ml/chat" in request.line and once.acquire(blocking=False):
            workers = subprocess.run(
                ["pgrep", "-P", str(os.getpid()), "-f", "catalogger.fleet.worker"], capture_output=True, text=True
            )
            killed.extend(int(pid) for pid in workers.stdout.split())
            for pid in killed:
                with suppress(ProcessLookupError):  # one of an earlier run that was ending
                    os.kill(pid, signal.SIGKILL)

    space.on_request = kill
    file = manifest(entry("chat", llama, recipe="llama-chat"), entry("bert", bert))
    outcome = made_true(file)
    assert killed
    assert ended(outcome) == [("chat", "failed", None), ("bert", "registered", "1")]
    assert outcome.entries[0].error is not None
    assert "signal 9" in str(outcome.entries[0].error["message"])
    space.on_request = None
    assert [(n, action) for n, action, _ in ended(made_true(file))] == [("chat", "registered"), ("bert", "unchanged")]


def _started(file: str, *more: str) -> subprocess.Popen[bytes]:
    command = [*START, "sync", file, "--registry-uri", UC, *more]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def _ended(process: subprocess.Popen[bytes]) -> Done:
    out, err = process.communicate(timeout=120)
    return Done(process.returncode, out.decode(), err.decode())


def test_ctrl_c_leaves_what_the_next_run_takes_up(space: Workspace, llama: Path, bert: Path) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background job ignores, and hands on
    reached, go_on = threading.Event(), threading.Event()

    def hold(request: Any) -> None:
        if "PUT" in request.line and "main/ml/chat" in request.line:
            reached.set()
            go_on.wait(60)

    space.on_request = hold
    file = manifest(entry("chat", llama, recipe="llama-chat"), entry("bert", bert))
    process = _started(file, "-o", "json")
    assert reached.wait(60)
    process.send_signal(signal.SIGINT)
    go_on.set()
    done = _ended(process)
    assert done.code == 130, done.err
    assert [e["action"] for e in done.document["entries"]] == ["interrupted", "interrupted"]
    assert done.document["interrupted"] is True
    assert "it goes on where it stopped" in done.err
    space.on_request = None
    assert [(n, a) for n, a, _ in ended(made_true(file))] == [("chat", "registered"), ("bert", "registered")]
    assert [v.status for v in space.versions("main.ml.chat")] == ["READY"]


def test_two_runs_at_once_make_one_version(space: Workspace, llama: Path) -> None:
    file = manifest(entry("chat", llama, recipe="llama-chat"))
    runs = [_started(file) for _ in range(2)]
    done = [_ended(process) for process in runs]
    assert [d.code for d in done] == [0, 0], [d.err for d in done]
    assert len(space.versions("main.ml.chat")) == 1


def test_the_command(space: Workspace, llama: Path, work: Path) -> None:
    file = manifest(
        'recipe: llama-chat, source: "${S}", name: "${C}.ml.chat", alias: champion', variables={"C": "main"}
    )
    asked = ("sync", file, "--registry-uri", UC, "--var", f"S={llama}")
    planned = run(*asked, "--check", "-o", "json", timeout=120)
    assert planned.code == 3, planned.err
    assert planned.document["entries"][0]["changes"][0]["kind"] == "version"
    assert "main.ml.chat" in planned.err, "the table"
    done = run(*asked, "--report", "report.html", timeout=120)
    assert done.code == 0, done.err
    assert "main.ml.chat  registered version 1" in done.out
    assert "1 registered" in done.out
    assert "main.ml.chat: Registering" in done.err
    assert "champion is set on" in (work / "report.html").read_text()
    assert run(*asked, "--check").code == 0
    assert run(*asked, "--only", "main.ml.other").code == 2
    assert run(*asked, "--jobs", "0").code == 2
    assert run(*asked, "--publish", "changed").code == 2
    assert run(*asked, "--publish", "changed", "--dry-run").code == 2


def test_a_mistake_in_the_manifest_reaches_nothing(space: Workspace) -> None:
    done = run("sync", manifest("recipe: bge-smal, name: main.ml.a", "nme: b"), "--registry-uri", UC, "-o", "json")
    assert done.code == 2
    assert done.document["error"]["code"] == "manifest-invalid"
    assert "models.yaml:3: models.0.recipe" in done.err
    assert "models.yaml:4: models.1.nme: unknown key" in done.err
    assert space.requests == ()


def test_a_registry_that_cannot_be_reached(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = manifest(entry("chat", llama, recipe="llama-chat"))
    with pytest.raises(NetworkUnreachable):
        sync(file, registry_uri="uc:http://127.0.0.1:9")
    with pytest.raises(UsageError, match="jobs"):
        sync(file, jobs=0)


def test_jobs_that_would_not_fit_together_follow_one_another() -> None:
    disks = Disks(lambda _: 100)
    order: list[str] = []
    inside = threading.Event()

    def second() -> None:
        with disks.reserved({"1": 50}):
            order.append("second")

    with disks.reserved({"1": 60}):
        thread = threading.Thread(target=second)
        thread.start()
        with disks.reserved({"2": 90}):
            order.append("another disk")
        inside.wait(0.1)
        order.append("first")
    thread.join(10)
    assert order == ["another disk", "first", "second"]
    with disks.reserved({"1": 1000}):
        pass  # alone, it is for the job itself to say that it does not fit
