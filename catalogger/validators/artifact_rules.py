"""ML rules on the files of a logged model: components, weights, requirements, licence, and what MLmodel names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from catalogger.checkpoints import LoggedModel
from catalogger.checkpoints.logged import MLMODEL
from catalogger.validators.facts import Facts, NotChecked
from catalogger.validators.model_rules import is_hub_id, is_reference, shown, transformers_model
from catalogger.validators.rules import Found, firsts, rule, rules

_REQUIREMENTS = "requirements.txt"
_NEEDED = ("torch", "transformers")
_NO_LICENCE = re.compile(r"could not be found for the '([^'\n]*)' repository")
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth")
_AGAIN = "Log the model again, or bring the file back."


@rule("ML011", "error")
def components(facts: Facts) -> Iterator[Found]:
    """Every component that the flavor names is there, and the tokenizer is among them.

    MLflow loads each from `components/<name>/` and from nowhere else, even where `model/` has a tokenizer too.

    Fix: log the model again with its tokenizer.
    """
    model = transformers_model(facts)
    if is_reference(model):
        raise NotChecked("the model holds no components, as ML015 or ML017 says")
    named = model.flavor.get("components")
    if not isinstance(named, list) or not named:
        raise NotChecked("no components are named, as ML002 says")
    told = any(rules()["TK001"].check(facts)) if facts.checkpoint else False
    for name in named:
        if not isinstance(name, str) or not re.fullmatch(r"\w[\w.-]{0,80}", name):
            yield Found(MLMODEL, f"names {shown(name)} as a component", "Log the model again.")
        elif not _has(model, f"components/{name}") and not (told and name == "tokenizer"):
            yield Found(f"components/{name}", "is named by MLmodel and has no files", "Log the model again.")
    if "tokenizer" not in named and not told:
        fix = "Log the model again with its tokenizer."
        yield Found(MLMODEL, "names no tokenizer among its components, which every llm/v1 task needs", fix)


@rule("ML012", "warning")
def requirements(facts: Facts) -> Iterator[Found]:
    """The model's requirements are pinned, have torch and transformers, and the flavor's version of transformers.

    The environment that serves the model is made of them, today or in a year: an open requirement is another version
    then. Another generation of transformers than the one that wrote the files may not read them.

    Fix: log it with `pip_requirements=["transformers==…", "torch==…"]`.
    """
    model = transformers_model(facts)
    fix = 'Log it with pip_requirements=["transformers==…", "torch==…"], each with its version.'
    if _REQUIREMENTS not in model.small:
        what = "is too large to be one" if _REQUIREMENTS in model.files else "is missing"
        yield Found(_REQUIREMENTS, what, fix)
        return
    pins: dict[str, str | None] = dict(_pins(model.small[_REQUIREMENTS].decode("utf-8", "replace")))
    if open_ones := [name[:80] for name, pin in pins.items() if pin is None]:
        yield Found(_REQUIREMENTS, f"does not pin {firsts(open_ones)} by ==", fix)
    if missing := [name for name in _NEEDED if name not in pins]:
        yield Found(_REQUIREMENTS, f"asks for no {' and no '.join(missing)}", fix)
    said, pin = model.flavor.get("transformers_version"), pins.get("transformers")
    if pin and isinstance(said, str) and pin.partition("+")[0] != said.partition("+")[0]:
        what = f"asks for transformers {pin[:40]}; MLmodel says that {shown(said)} wrote the model"
        yield Found(_REQUIREMENTS, what, f"Ask for transformers=={said[:40]}.", "error")


@rule("ML014", "error")
def named_files(facts: Facts) -> Iterator[Found]:
    """Every file that MLmodel names is there, and below the model's folder.

    Whoever makes the environment or shows the example opens them. A path that leads out of the folder names another
    file on every machine.

    Fix: log the model again, or bring the file back.
    """
    model = transformers_model(facts)
    for where, said in _named(model):
        if not isinstance(said, str) or not said:
            yield Found(MLMODEL, f"names {shown(said)} as {where}, which is no path", _AGAIN)
        elif not _is_inside(said):
            yield Found(MLMODEL, f"names {shown(said)} as {where}, which leads out of the model", _AGAIN)
        elif where != "model_binary" and not _has(model, PurePosixPath(said).as_posix()):
            yield Found(shown(said), f"is named by MLmodel as {where} and is not there", _AGAIN)


@rule("ML015", "error")
def weights_are_there(facts: Facts) -> Iterator[Found]:
    """The model holds its weights.

    One that was logged with `save_pretrained=False` names a repository of the Hub instead: Unity Catalog fetches it at
    registration, and whoever loads the model needs the Hub.

    Fix: log the model again with its weights.
    """
    model = transformers_model(facts)
    if any(adapter(facts)):
        raise NotChecked("the model is an adapter, as ML017 says")
    fix = "Log the model again with its weights."
    if is_reference(model):
        what = f"holds no weights, it refers to {shown(model.flavor.get('source_model_name'))} at"
        revision = shown(model.flavor.get("source_model_revision"))
        yield Found(MLMODEL, f"{what} {revision}; registration and loading need the Hub", fix, "warning")
        return
    binary = model.flavor.get("model_binary")
    if not isinstance(binary, str) or not binary:
        raise NotChecked("no model_binary is named, as ML002 says")
    if not _is_inside(binary):
        raise NotChecked("model_binary leads out of the model, as ML014 says")
    if facts.checkpoint is None:
        yield Found("model_binary", f"names no weights that can be read: {model.no_checkpoint}", fix)
    elif facts.checkpoint.unread and not any(_is_weight(path, binary) for path in model.files):
        yield Found("model_binary", f"names {shown(binary)}, which holds no weights", fix)


@rule("ML016", "warning")
def licence(facts: Facts) -> Iterator[Found]:
    """The model has a licence file, and it is about the model that the flavor names.

    Whoever deploys the model must know what is allowed. MLflow writes a page address made of the model's name where
    the Hub gives no licence file: of a folder's path, it leads nowhere.

    Fix: put the model's own licence file beside MLmodel; catalogger takes it from the checkpoint.
    """
    model = transformers_model(facts)
    files = [path for path in model.files if "/" not in path and path.lower().startswith(("license", "licence"))]
    fix = "Put the model's own licence file beside MLmodel; catalogger takes it from the checkpoint."
    if not files:
        yield Found("LICENSE", "is missing", fix)
    source = model.flavor.get("source_model_name")
    for path in sorted(files):
        found = _NO_LICENCE.search(model.small.get(path, b"").decode("utf-8", "replace"))
        if found and not is_hub_id(found[1]):
            yield Found(path, f"points to a page on the Hub for the local path {shown(found[1])}", fix)
        elif found and found[1] != source:
            yield Found(path, f"is about {shown(found[1])}; MLmodel says that the model is {shown(source)}", fix)


@rule("ML017", "error")
def adapter(facts: Facts) -> Iterator[Found]:
    """The model is whole, no adapter beside a base model.

    MLflow logs a PEFT model as its adapter and a reference to the base model: provisioned throughput serves merged
    weights only, and Unity Catalog fetches the base from the Hub at registration.

    Fix: merge it (`merge_and_unload`), save the result and log that.
    """
    model = transformers_model(facts)
    said = model.flavor.get("peft_adaptor")
    if said is not None or _has(model, "peft"):
        where = f"says peft_adaptor {shown(said)}" if said is not None else "has a peft folder beside it"
        fix = "Merge it into its base model (merge_and_unload), save the result and log that."
        yield Found(MLMODEL, f"{where}: the model is an adapter that was never merged", fix)


def _has(model: LoggedModel, path: str) -> bool:
    """Whether there is a file of this path, or below it."""
    return path in model.files or any(file.startswith(f"{path}/") for file in model.files)


def _is_inside(path: str) -> bool:
    plain = PurePosixPath(path)
    return not plain.is_absolute() and ".." not in plain.parts


def _is_weight(path: str, binary: str) -> bool:
    return path.startswith(f"{PurePosixPath(binary).as_posix()}/") and path.endswith(_WEIGHTS)


def _named(model: LoggedModel) -> Iterator[tuple[str, object]]:
    """What MLmodel names by path: the field and what it says."""
    environment = model.pyfunc.get("env")
    if isinstance(environment, dict):
        yield from ((f"env.{shown(kind)[1:-1]}", path) for kind, path in environment.items())
    elif environment is not None:
        yield "env", environment
    example = model.mlmodel.get("saved_input_example_info")
    if isinstance(example, dict):
        yield from ((key, example[key]) for key in ("artifact_path", "serving_input_path") if key in example)
    for name, flavor in (("transformers", model.flavor), ("python_function", model.pyfunc)):
        if flavor.get("code") is not None:
            yield f"{name}.code", flavor["code"]
    if isinstance(binary := model.flavor.get("model_binary"), str) and binary:
        yield "model_binary", binary


def _pins(text: str) -> Iterator[tuple[str, str | None]]:
    """Each package that is asked for, with its version where that is pinned.

    Options, and packages that are named by address or by path, are left out: they are what they are.
    """
    for line in text.replace("\\\n", " ").splitlines():
        wanted = re.split(r"(?:^|\s)(?:#|--)", line, maxsplit=1)[0].strip()
        if not wanted or wanted.startswith("-") or ("/" in wanted and "@" not in wanted):
            continue
        try:
            requirement = Requirement(wanted)
        except InvalidRequirement:
            yield wanted, None
            continue
        if not requirement.url:
            exact = [s.version for s in requirement.specifier if s.operator in ("==", "===") and "*" not in s.version]
            yield canonicalize_name(requirement.name), exact[0] if exact else None
