"""Prove a model by doing: another process loads it with MLflow and asks it one thing, and the answer is judged here.

Needs torch.  The other process has no token and no tracking store, is told to stay offline, and is gone when `prove`
comes back.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from catalogger.checkpoints import LoggedModel, open_logged
from catalogger.errors import ProofFailed, ProofRefused, UsageError, human
from catalogger.files.temporary import temporary
from catalogger.loggers import prove_child
from catalogger.loggers.mlmodel import EXAMPLES
from catalogger.loggers.proof import Proof, judged
from catalogger.loggers.record import Job, link_weights, write_small_files
from catalogger.progress import Progress, Silent

_OVERHEAD = 1_200_000_000
"""Bytes beside the weights.  Measured: 980 MB are resident for a model of no size, MLflow 3.17, Transformers 5.19."""
_WIDTHS = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2, "float8_e4m3fn": 1, "float8_e5m2": 1, "int8": 1}
_TOKENS = 32  # asked for; a model's own example may ask for thousands
_RESULT, _WORDS = "result.json", "words"  # of the other process: stdout and stderr
_LIMITS = {
    False: ("memory.max", "memory.current", ("inactive_file", "active_file")),
    True: ("memory.limit_in_bytes", "memory.usage_in_bytes", ("total_inactive_file", "total_active_file")),
}  # whether the group is of version 1: its limit, its use, what of that makes way
_LINES = 6  # of what the process said last
_WIDEST = 300  # characters of such a line
_ASKED_BY = {"llm/v1/chat": "messages", "llm/v1/completions": "prompt", "llm/v1/embeddings": "input"}
_SECRET = re.compile(r"TOKEN|SECRET|PASSW|CREDENTIAL|API_?KEY|ACCESS_KEY|AUTH", re.IGNORECASE)
_FOREIGN = (
    "HF_", "HUGGING_FACE_", "HUGGINGFACE_", "TRANSFORMERS_", "DATABRICKS_", "AWS_", "AZURE_", "GOOGLE_",
    "MLFLOW_TRACKING_", "MLFLOW_REGISTRY_", "MLFLOW_RUN_", "MLFLOW_EXPERIMENT_",
)  # fmt: skip


def prove(
    folder: Path,
    task: str,
    *,
    weight_bytes: int,
    trust_remote_code: bool = False,
    timeout: float = 1800,
    progress: Progress | None = None,
) -> Proof:
    """Load the MLflow model in this folder in a process of its own, ask it the example of its task, judge the answer.

    weight_bytes: size of its weight files.
    trust_remote_code: consent to Python files that the model brings: MLflow runs them unasked when it loads.
    timeout: seconds after which the process is ended.

    Raises UsageError where torch or the consent is missing, ProofRefused where there is too little memory, ProofFailed
    where the model does not load or answers wrongly.  Changes nothing.
    """
    progress = progress or Silent()
    model = open_logged(folder.absolute())
    if model.checkpoint is None:
        raise ProofFailed(f"cannot be loaded: {model.no_checkpoint}")
    if not trust_remote_code:
        _require_no_code(model)
    needed = needed_memory(weight_bytes, model.checkpoint.dtype, _loaded_dtype(model))
    progress.say(f"Loading the model: about {human(needed)} of memory needed, {human(available_memory())} available")
    require_provable(needed)
    said = _said({"folder": str(folder.absolute()), "payload": _payload(model, task)}, timeout)
    return judged(said, task, model.checkpoint.config)


def require_provable(needed: int) -> None:
    """Raises UsageError without torch, ProofRefused where so many bytes of memory are not available."""
    if missing := [name for name in ("torch", "transformers") if find_spec(name) is None]:
        what = f"Loading a model takes {' and '.join(missing)}, not installed here."
        raise UsageError(what, "pip install 'catalogger[torch]', or log without --prove.")
    free = available_memory()
    if needed > free:
        raise ProofRefused(needed, free)


def staged(job: Job, folder: Path) -> Path:
    """The whole model of a job whose checkpoint is on this machine, in a folder that is made: small files, and links to
    the weights.  It can be loaded before it is logged.
    """
    from mlflow.models import Model

    write_small_files(job, Model(), folder)
    link_weights(job, folder)
    return folder


def needed_memory(weight_bytes: int, dtype: str | None = None, loaded: str | None = None) -> int:
    """Bytes that loading takes: the weights, of `dtype` in their files, in the dtype that they are loaded in, and the
    libraries.
    """
    width, wanted = _WIDTHS.get(dtype or ""), _WIDTHS.get(loaded or "")
    return _OVERHEAD + (weight_bytes * wanted // width if width and wanted else weight_bytes)


def available_memory(proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes that a new process can have: what the system says, and what each limit around this process leaves."""
    said = _sizes(proc / "meminfo").get("MemAvailable:")
    free = _by_sysconf() if said is None else said * 1024
    return max(0, min([free, *_left_by_limits(proc, cgroups)]))


def _left_by_limits(proc: Path, cgroups: Path) -> Iterator[int]:
    """What every group that this process is in has left, version 2 and 1.  Its cached files make way, and so count as
    free.

    The path is the host's where a container sees the host's names; its own group is then at the root.
    """
    try:
        lines = (proc / "self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, kinds, path = line.split(":", 2)
        if kinds and "memory" not in kinds.split(","):
            continue
        limit, used, cached = _LIMITS[bool(kinds)]
        root = cgroups / "memory" if kinds else cgroups
        group = root / path.lstrip("/")
        for at in (group, *group.parents[: len(group.relative_to(root).parts)]):
            try:
                most, now = int((at / limit).read_text()), int((at / used).read_text())
            except (OSError, ValueError):  # not there, or "max"
                continue
            stat = _sizes(at / "memory.stat")
            yield most - now + sum(stat.get(key, 0) for key in cached)


def _by_sysconf() -> int:
    """Where there is no /proc: free memory, or all there is on systems that do not count it."""
    for name in ("SC_AVPHYS_PAGES", "SC_PHYS_PAGES"):
        if name in os.sysconf_names:
            return os.sysconf(name) * os.sysconf("SC_PAGE_SIZE")
    return sys.maxsize


def _sizes(file: Path) -> dict[str, int]:
    """The first two words of each line of a file of counts; empty where there is none."""
    try:
        rows = [line.split() for line in file.read_text().splitlines()]
    except OSError:
        return {}
    return {row[0]: int(row[1]) for row in rows if len(row) > 1 and row[1].isdigit()}


def _require_no_code(model: LoggedModel) -> None:
    """Raises UsageError where loading could run code of the model: Python files, or a loader that is not MLflow's."""
    brought = sorted(path for path in model.files if path.endswith(".py"))
    brought += [str(code) for flavor in (model.flavor, model.pyfunc) if (code := flavor.get("code"))]
    if (loader := model.pyfunc.get("loader_module")) != "mlflow.transformers":
        brought.append(f"loader {loader}")
    configs = (model.checkpoint.config, model.checkpoint.tokenizer_config) if model.checkpoint else ()
    if brought or any("auto_map" in config for config in configs):
        what = ", ".join(brought[:3]) or "auto_map in its config"
        raise UsageError(
            f"The model brings code of its own ({what}), and to load it would run that.",
            "Read that code, then consent by --trust-remote-code.",
        )


def _loaded_dtype(model: LoggedModel) -> str:
    return str(model.flavor.get("torch_dtype") or "").removeprefix("torch.")


def _payload(model: LoggedModel, task: str) -> dict[str, Any]:
    """What to ask: the model's own example where it is a plain one, else that of the task.  A short answer will do."""
    key = _ASKED_BY[task]
    try:
        own = json.loads(model.small.get("input_example.json", b"null"))
    except ValueError:
        own = None
    asked = own.get(key) if isinstance(own, dict) else None
    payload = {key: asked if _is_plain(asked) else EXAMPLES[task][key]}
    return payload if task == "llm/v1/embeddings" else {**payload, "max_tokens": _TOKENS}


def _is_plain(asked: object) -> bool:
    """A text, some texts, or some messages with a role and a text."""
    if isinstance(asked, list) and asked:
        return all(isinstance(a, str) for a in asked) or all(
            isinstance(a, dict) and set(a) == {"role", "content"} and all(isinstance(v, str) for v in a.values())
            for a in asked
        )
    return isinstance(asked, str)


def _said(order: Mapping[str, Any], timeout: float) -> Mapping[str, Any]:
    """What the other process found.  Raises ProofFailed where it found nothing, with its last words."""
    with temporary("proof") as scratch:
        try:
            code = _run(order, scratch, timeout)
        except subprocess.TimeoutExpired as error:
            raise ProofFailed(f"did not load and answer within {timeout:g} s", _last_words(scratch)) from error
        if code < 0:
            name = signal.Signals(-code).name
            why = ", mostly for want of memory" if name == "SIGKILL" else ""
            raise ProofFailed(f"did not load and answer: its process was ended by {name}{why}", _last_words(scratch))
        if code > 0:
            raise ProofFailed("does not load and answer", _last_words(scratch))
        said: Mapping[str, Any] = json.loads((scratch / _RESULT).read_bytes())
        return said


def _run(order: Mapping[str, Any], scratch: Path, timeout: float) -> int:
    """The exit code of the other process, which has ended whatever happens: it and all that it started is one group."""
    with (scratch / _RESULT).open("wb") as result, (scratch / _WORDS).open("wb") as words:
        process = subprocess.Popen(  # noqa: S603  this Python, and a file of ours
            [sys.executable, "-P", str(prove_child.__file__)],
            stdin=subprocess.PIPE,
            stdout=result,
            stderr=words,
            cwd=scratch,
            env=_environment(scratch),
            process_group=0,
        )
    with process:
        try:
            if process.stdin:
                with suppress(BrokenPipeError):  # its exit code tells more
                    process.stdin.write(json.dumps(order).encode() + b"\n")
                    process.stdin.flush()
            return process.wait(timeout)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def _environment(scratch: Path) -> dict[str, str]:
    """No network, no credentials, no store, nobody's caches; what chooses devices and libraries stays."""
    kept = {k: v for k, v in os.environ.items() if not (_SECRET.search(k) or k.startswith(_FOREIGN))}
    return kept | {
        "HF_HOME": str(scratch / "huggingface"),
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TQDM_DISABLE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "MLFLOW_TRACKING_URI": f"sqlite:///{scratch}/none.db",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        "GIT_PYTHON_REFRESH": "quiet",
        "PYTHONUTF8": "1",
        "PYTHONNODEBUGRANGES": "1",  # no lines of ^^^^ among the last words
    }


def _last_words(scratch: Path) -> list[str]:
    with (scratch / _WORDS).open("rb") as words:
        words.seek(max(0, words.seek(0, os.SEEK_END) - _LINES * 10 * _WIDEST))
        lines = words.read().decode(errors="replace").splitlines()
    return [line.rstrip()[:_WIDEST] for line in lines if line.strip()][-_LINES:]
