"""ML rules on the signature and on the input example: what the model says that it takes and gives."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import PurePosixPath
from typing import Any

from catalogger.checkpoints import LoggedModel
from catalogger.checkpoints.logged import MLMODEL
from catalogger.validators.facts import Facts, NotChecked
from catalogger.validators.mlflow_versions import NEWEST, has, is_version, looked_at, signature_names
from catalogger.validators.model_rules import shown, task_of, transformers_model, written_by
from catalogger.validators.rules import Found, rule
from catalogger.validators.signatures import Columns, columns, differences, misfits, recorded

_MOST = 4  # differences that are told one by one
_BEFORE_TASKS = "EMB-OLD"  # an older MLflow may also infer another one from the input example
_WRAPPED = ("dataframe_split", "dataframe_records", "inputs", "instances", "columns", "data")


@rule("ML006", "error")
def has_signature(facts: Facts) -> Iterator[Found]:
    """The model has a signature with inputs and outputs.

    Unity Catalog refuses a version without both, after the upload.

    Fix: log it with an `llm/v1` task; MLflow then writes the signature itself.
    """
    sides = _signature(transformers_model(facts))
    if missing := [side for side in ("inputs", "outputs") if not columns(sides.get(side))]:
        what = f"has no signature that can be read ({' and '.join(missing)})" if sides else "has no signature"
        yield Found(MLMODEL, what, "Log it with its llm/v1 task and no signature of your own; MLflow writes it.")


@rule("ML007", "error")
def signature(facts: Facts) -> Iterator[Found]:
    """The signature is exactly the one that its MLflow writes for the task.

    Requests are checked against it: a field that is missing in it is dropped or refused, one of another type is
    converted. MLflow refuses to log another one with an `llm/v1` task, so that this one was edited or made by hand.

    Fix: log it again without a signature of your own.
    """
    model, task = transformers_model(facts), task_of(facts)
    if any(has_signature(facts)):
        raise NotChecked("there is no signature, as ML006 says")
    version = written_by(model)
    names = signature_names(task, version)
    if not names:
        raise NotChecked(f"the signatures of MLflow {version} are not known here")
    lines = min((_differences(model, name) for name in names), key=len)
    if lines:
        more = f"; and {len(lines) - _MOST} more" if len(lines) > _MOST else ""
        told = "; ".join(line[:120] for line in lines[:_MOST])
        what = f"has not the signature that MLflow {version} writes for {task}: {told}{more}"
        certain = looked_at(version) and _BEFORE_TASKS not in names
        yield Found(MLMODEL, what, "Log it again without a signature of your own.", None if certain else "warning")


@rule("ML013", "error")
def input_example(facts: Facts) -> Iterator[Found]:
    """The input example is a request that the task takes.

    A serving page shows it, and whoever copies it gets an error where a required field is missing or of another type;
    `"stop": ""` of old notebooks is one such value. A table or a numpy array is stored in a form of MLflow's own.

    Fix: log it with a plain dict, such as `{"messages": [{"role": "user", "content": "…"}]}`.
    """
    model, task = transformers_model(facts), task_of(facts)
    info = model.mlmodel.get("saved_input_example_info")
    if info is None:
        return
    if not isinstance(info, dict):
        yield Found(MLMODEL, f"says {shown(info)} as saved_input_example_info", "Log it with an input example.")
        return
    version = model.mlflow if is_version(model.mlflow) else NEWEST
    names = signature_names(task, version) or signature_names(task, NEWEST)
    for path in _examples(info, model):
        if not has("json_example", version):
            what = f"is a table, as MLflow {version} writes it; a request is a JSON object"
            yield Found(path, what, "Nothing, or log it again by a newer MLflow.", "note")
        else:
            yield from _judged(path, model.small[path], recorded(names[-1]).inputs)


def _examples(info: Mapping[str, Any], model: LoggedModel) -> Iterator[str]:
    """The request as it would be sent, and what it was made of where that should be the same."""
    said = (info.get("serving_input_path"), info.get("artifact_path"))
    serving, plain = (PurePosixPath(p).as_posix() if isinstance(p, str) else "" for p in said)
    if serving in model.small:
        yield serving
    same = info.get("type") == "json_object" and not info.get("params")
    if plain in model.small and (same or serving not in model.small):
        yield plain


def _judged(path: str, content: bytes, inputs: Columns) -> Iterator[Found]:
    form = f'{{"{inputs[0]["name"]}": …}}'
    fix = f"Log it with a plain dict as the input example, {form}."
    try:
        example = json.loads(content)
    except (ValueError, RecursionError):
        yield Found(path, "is not JSON", fix)
        return
    if not isinstance(example, dict):
        yield Found(path, f"is {shown(example)}; a request is {form}", fix, "warning")
    elif inputs[0]["name"] not in example and (wrapped := [key for key in _WRAPPED if key in example]):
        yield Found(path, f'is wrapped in "{wrapped[0]}"; a request is {form}', fix, "warning")
    elif lines := list(islice(misfits(_one_text(example), inputs), _MOST)):
        yield Found(path, f"is no request that the signature takes: {'; '.join(line[:120] for line in lines)}", fix)


def _one_text(example: Mapping[str, Any]) -> Mapping[str, Any]:
    """An embedding request may hold several texts, though the signature says one."""
    texts = example.get("input")
    several = isinstance(texts, list) and texts and all(isinstance(text, str) for text in texts)
    return {**example, "input": ""} if several else example


def _signature(model: LoggedModel) -> Mapping[str, Any]:
    said = model.mlmodel.get("signature")
    return said if isinstance(said, dict) else {}


def _differences(model: LoggedModel, name: str) -> list[str]:
    sides, wanted = _signature(model), recorded(name)
    lines = [f"inputs: {line}" for line in differences(columns(sides["inputs"]) or (), wanted.inputs)]
    lines += [f"outputs: {line}" for line in differences(columns(sides["outputs"]) or (), wanted.outputs)]
    return lines if sides.get("params") is None else [*lines, "params are there"]
