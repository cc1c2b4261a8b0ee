"""PT rules: what is known beforehand of serving on provisioned throughput.

The lists are Databricks' documentation of 2025-02 (tasks, regions, limits) and 2026-06 (families); the last word is
the server's, and these rules say so.
"""

from __future__ import annotations

from collections.abc import Iterator

from catalogger.validators.expected import counted_parameters
from catalogger.validators.facts import Facts, NotChecked
from catalogger.validators.rules import Found, rule

_GENERATION = ("llm/v1/chat", "llm/v1/completions")
SERVED = {
    "LlamaForCausalLM": _GENERATION, "MistralForCausalLM": _GENERATION, "MixtralForCausalLM": _GENERATION,
    "MPTForCausalLM": _GENERATION, "MptForCausalLM": _GENERATION, "DbrxForCausalLM": _GENERATION,
    "BertModel": ("llm/v1/embeddings",), "NewModel": ("llm/v1/embeddings",),
}  # fmt: skip
"""Architectures of the families that are served by tokens per second, and the tasks that were seen for each."""
_LLAMA_SIZES = {"1B": 1.24e9, "3B": 3.21e9, "7B": 6.74e9, "8B": 8.03e9, "13B": 13.0e9, "70B": 70.6e9, "405B": 405.9e9}
"""Parameters of the published Llama models, the head counted."""
_NEAR = 0.05
_US = ("centralus", "eastus", "eastus2", "northcentralus", "westus", "westus2")
_REGIONS = {
    "DbrxForCausalLM": (
        "eastus", "eastus2", "westus", "centralus", "westeurope", "northeurope", "australiaeast", "canadacentral",
        "brazilsouth",
    ),
    "LlamaForCausalLM": _US,
}  # fmt: skip
"""Azure regions of 2025-02; on Google Cloud us-east1 and us-central1, in preview; others are not known."""
_GOOGLE = ("us-east1", "us-central1")


@rule("PT001", "warning")
def family(facts: Facts) -> Iterator[Found]:
    """The architecture and task are ones that provisioned throughput serves.

    The server goes by `architectures[0]`; other models are offered a GPU workload instead, or custom serving.

    Fix: register it all the same and serve it on a GPU workload, or choose a model of a served family.
    """
    found, task = facts.opened.architecture, facts.task
    if found is None or task is None:
        raise NotChecked("the architecture or the task is not known")
    fix = "It can be registered; for serving choose a GPU workload, custom serving, or a model of a served family."
    if found not in SERVED:
        yield Found("config.json", f'says "{found}", of no family that provisioned throughput is known to serve', fix)


@rule("PT002", "note")
def known_size(facts: Facts) -> Iterator[Found]:
    """A Llama has the size of a published one.

    Placement seems to go by the weights' total size, compared with the known Llama sizes; an odd size may be refused or
    badly placed.

    Fix: nothing before the server was asked: `optimizable` tells after registration.
    """
    if facts.opened.architecture != "LlamaForCausalLM" or not facts.weights.parameters:
        return
    count = counted_parameters(facts.weights)
    if not any(abs(count - size) <= _NEAR * size for size in _LLAMA_SIZES.values()):
        what = f"have {count:,} parameters, near no published Llama ({', '.join(_LLAMA_SIZES)})"
        yield Found("weights", what, "Whether it is served is known once the server is asked.")


@rule("PT003", "warning")
def retired(facts: Facts) -> Iterator[Found]:
    """The platform still serves the model.

    Families are retired with a notice; an endpoint that exists is then ended, and no new one can be made.

    Fix: choose a newer model, or serve it on a GPU workload.
    """
    if facts.wanted.serving and facts.wanted.serving.retired:
        what = f"is retired: {facts.wanted.serving.retired}"
        yield Found("provisioned throughput", what, "Choose a newer model, or serve it on a GPU workload.")


@rule("PT004", "warning")
def region(facts: Facts) -> Iterator[Found]:
    """The region serves the family.

    The table is Azure's and Google Cloud's of 2025-02; for other clouds none is known.

    Fix: serve from another region, or ask the account team.
    """
    if facts.region is None:
        raise NotChecked("no --region was given")
    at, architecture = facts.region.lower(), facts.opened.architecture or ""
    known = _REGIONS.get(architecture)
    if known is None:
        raise NotChecked(f"no table of regions is known for {architecture or 'this model'}")
    everywhere = {region for regions in _REGIONS.values() for region in regions}
    if at not in {*everywhere, *_GOOGLE}:
        raise NotChecked(f'"{facts.region}" is in none of the tables of regions that are known')
    if at not in (*known, *_GOOGLE):
        fix = f"Serve from {', '.join(known)}, or ask the account team: the table is of 2025-02."
        yield Found("region", f'"{facts.region}" is not listed for {architecture}', fix)


@rule("PT005", "note")
def server_decides(facts: Facts) -> Iterator[Found]:
    """What only the server can say is said to be so.

    Whether a version is served by tokens per second or by model units, and in which steps, is the answer
    (`optimizable`, `throughput_chunk_size`, `model_unit_chunk_size`) to a question about a registered, READY version.
    Known limits: a payload of 4 MB, 200 requests a second for the workspace, 120 s for one answer.

    Fix: register the version, then ask.
    """
    recipe, architecture = facts.recipe, facts.opened.architecture
    if architecture not in SERVED:
        return
    unit = recipe.serving.unit if recipe and recipe.serving and architecture in recipe.architectures else None
    known = f" (its family was served by {unit.replace('_', ' ')})" if unit else ""
    what = f"says only of a registered version whether it serves it{known}"
    yield Found("the server", what, "Register it, then ask for its optimization info before you plan capacity.")
