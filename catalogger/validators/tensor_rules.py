"""CK rules on tensors: that the weights are those that the config describes, by names and shapes alone.

What an architecture has is for `expected` to say; each defect is one rule's, so that no two speak of the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain

from catalogger.checkpoints import Tensor
from catalogger.errors import human
from catalogger.validators.config_rules import quantised
from catalogger.validators.expected import Block, Expected, Experts, Shape, expected_tensors
from catalogger.validators.facts import Facts, NotChecked
from catalogger.validators.rules import Found, firsts, rule
from catalogger.validators.weight_rules import require_whole

_WEIGHTS = "weights"
_CONFIG = "config.json"
_AGAIN = "Save the whole model again, config and weights together."
_NOTHING: dict[str, Tensor] = {}


@rule("CK022", "error")
def layer_count(facts: Facts) -> Iterator[Found]:
    """The weights have as many layers as the config says, numbered from 0.

    Transformers builds the layers that the config counts: one without weights is random, one beyond the count is
    dropped. Neither ends the load, both answer noise.

    Fix: save the whole model again; where layers were cut or added on purpose, set `num_hidden_layers` (DBRX:
    `n_layers`) and number them without gaps.
    """
    held = _held(facts)
    if not held.layers:
        raise NotChecked(held.strange)
    wanted = held.expected.layers
    missing, beyond = held.missing_layers, held.layers.keys() - range(wanted)
    if missing or beyond:
        odd = (("missing", missing), ("too many", beyond))
        said = "".join(f"; {what}: {_ranges(numbers)}" for what, numbers in odd if numbers)
        counted = f"have {len(held.layers)} layers, config.json says {held.expected.layers_field} {wanted}"
        yield Found(_WEIGHTS, f"{counted}{said}{_instead(held) if missing else ''}", _AGAIN)


@rule("CK023", "error")
def expert_count(facts: Facts) -> Iterator[Found]:
    """Every layer has as many experts as the config says, and its router a row for each.

    Transformers 5 loads no such layer; 4 fills a missing expert with random numbers, and drops one too many. A router
    of another size ends the load of both, after the weights were moved.

    Fix: save the whole model again, or set `num_local_experts` (DBRX: `ffn_config.moe_num_experts`) to what the
    weights have.
    """
    held = _fitting(facts)
    experts = held.expected.experts
    if experts is None:
        return
    if held.without_experts:
        raise NotChecked("no layer has experts, as CK026 says")
    odd = [(layer, text) for layer in held.counted if (text := _odd_experts(held, experts, layer))]
    if odd:
        layer, text = odd[0]
        more = f"; more layers that differ: {len(odd) - 1}" if odd[1:] else ""
        said = f"have other experts than config.json says ({experts.counted_by} {experts.count})"
        yield Found(_WEIGHTS, f"{said}: layer {layer} {text}{more}{_instead(held)}", _AGAIN)


@rule("CK024", "error")
def vocabulary(facts: Facts) -> Iterator[Found]:
    """The embedding, and the head, have a row for each token of the vocabulary.

    Tokens that were added without `resize_token_embeddings`, or a config from before they were, end the load by a
    size mismatch.

    Fix: set `vocab_size` to the rows of the embedding, or resize the embedding and save the model again.
    """
    held = _held(facts)
    if held.expected.complete and not held.layers:
        raise NotChecked(held.strange)
    once = held.block(None, None)
    tables = {once[name].name: once[name].shape for name in held.expected.vocabulary if name in once}
    if not tables:
        raise NotChecked("no tensor is the embedding" + (", as CK026 says" if held.expected.complete else ""))
    rows = {name: shape[0] for name, shape in tables.items() if len(shape) == 2}
    if set(rows.values()) - {held.expected.words}:
        said = ", ".join(f'"{name}" has {count} rows' for name, count in rows.items())
        fix = "Set vocab_size to the rows of the embedding, or resize the embedding and save the model again."
        yield Found(_CONFIG, f"says vocab_size {held.expected.words}; {said}", fix)


@rule("CK025", "error")
def shapes(facts: Facts) -> Iterator[Found]:
    """Every tensor has the shape that follows from the config.

    A size mismatch ends the load, after the weights were moved. The config is mostly that of a sibling: another size,
    or another number of heads.

    Fix: take the config that belongs to these weights, or save the whole model again.
    """
    held = _fitting(facts)
    odd = [
        (tensor, wanted)
        for _, pattern, block in held.pairs()
        for name, tensor in block.items()
        if name in pattern and tensor.shape != (wanted := _wanted(held.expected, pattern[name], name, block))
    ]
    if odd:
        tensor, wanted = min(odd, key=lambda one: one[0].name)
        what = f'hold "{tensor.name}" of shape {list(tensor.shape)}, config.json makes it {list(wanted)}'
        more = f"; more tensors that differ: {len(odd) - 1}" if odd[1:] else ""
        yield Found(_WEIGHTS, what + more, "Take the config that belongs to these weights, or save them again with it.")


@rule("CK026", "error")
def missing_tensors(facts: Facts) -> Iterator[Found]:
    """No tensor that the architecture has is missing.

    Transformers fills a missing tensor with random numbers and prints a warning that nobody reads in a job.

    Fix: save the whole model again; names that a wrapper changed (`module.`, `_orig_mod.`) have to be changed back.
    """
    held = _complete(facts)
    if missing := held.missing:
        what = f"lack {firsts(missing)}, which {facts.opened.architecture} has; they would be random numbers"
        yield Found(_WEIGHTS, f"{what}{_instead(held)}", _AGAIN)


@rule("CK027", "error")
def head(facts: Facts) -> Iterator[Found]:
    """The head is there, or is tied to the embedding, and is not stored beside it.

    Without `tie_word_embeddings` a missing `lm_head.weight` becomes random numbers, and the model answers noise. Where
    it is tied, a stored head is so many bytes to move for nothing.

    Fix: set `tie_word_embeddings` to true where the model shares them, or save the model again with its head.
    """
    held = _fitting(facts)
    name, once = held.expected.head, held.block(None, None)
    if name is None:
        return
    if held.headless:
        what = "is missing, and tie_word_embeddings is not true in config.json: the head would be random numbers"
        fix = "Set tie_word_embeddings to true if the model shares its embedding, or save it again with its head."
        yield Found(name, what + _instead(held), fix)
    elif held.expected.tied and {name, held.expected.vocabulary[0]} <= once.keys():
        size = human(once[name].end - once[name].start)
        what = f"is stored beside the embedding that it is tied to: {size} more than are needed"
        yield Found(name, what, "Save the model by save_pretrained, which leaves it out.", "note")


@rule("CK028", "warning")
def unknown_tensors(facts: Facts) -> Iterator[Found]:
    """The weights hold no tensor that the architecture does not know.

    What it does not know is dropped on load: dead weight, or the sign that the checkpoint is of another architecture
    or was saved with another config (biases, for one).

    Fix: check `architectures` and the switches in `config.json`, or save the model again.
    """
    held = _fitting(facts)
    extra = held.extra
    if extra and (code := held.lacks):
        raise NotChecked(f"tensors are missing, as {code} says, which the unknown ones may be")
    if extra:
        what = f"hold {firsts(extra)}, which {facts.opened.architecture} does not know with this config"
        fix = "Check architectures and the switches (attention_bias, …) in config.json, or save the model again."
        yield Found(_WEIGHTS, f"{what}: dropped on load", fix)


@dataclass(frozen=True)
class _Held:
    """What is expected, the tensors sorted by layer and expert, and which layers there are with which experts."""

    expected: Expected
    blocks: Mapping[Block, dict[str, Tensor]]
    layers: Mapping[int, set[int]]

    def block(self, layer: int | None, expert: int | None) -> dict[str, Tensor]:
        return self.blocks.get((layer, expert), _NOTHING)

    @property
    def strange(self) -> str:
        """Why nothing can be compared where no layer was found."""
        if self.expected.complete:
            return "no tensor is named as those of the architecture's layers are, as CK026 says"
        return "no tensor is named as those of a layer are"

    @property
    def counted(self) -> list[int]:
        """The layers that the config counts and that are there."""
        return sorted(n for n in self.layers if n < self.expected.layers)

    @property
    def missing_layers(self) -> set[int]:
        return set(range(self.expected.layers)) - self.layers.keys()

    @property
    def without_experts(self) -> bool:
        """Whether experts should have tensors of their own and none has any."""
        experts = self.expected.experts
        return bool(experts and experts.each) and not any(self.layers.values())

    @property
    def headless(self) -> bool:
        """Whether the head is missing and nothing else stands for it."""
        name = self.expected.head
        return name is not None and not self.expected.tied and name not in self.block(None, None)

    def pairs(self) -> Iterator[tuple[str, Mapping[str, Shape], dict[str, Tensor]]]:
        """Each block that is to be compared: what its names begin with, what it should hold, what it holds.

        Layers and experts that are missing or too many are other rules'; where there is none at all, the first one
        stands for them.
        """
        expected, experts = self.expected, self.expected.experts
        yield "", expected.once, self.block(None, None)
        for layer in self.counted if self.layers else [0]:
            stem = f"{expected.stem}{layer}."
            yield stem, expected.layer, self.block(layer, None)
            if experts and experts.each:
                for one in [0] if self.without_experts else self.layers[layer]:
                    if one < experts.count:
                        yield f"{stem}{experts.stem}{one}.", experts.each, self.block(layer, one)

    @property
    def missing(self) -> list[str]:
        """Names of what is missing where its layer and its expert are there."""
        spared = self.expected.optional | {self.expected.head}
        lacking = chain.from_iterable(
            (f"{stem}{name}" for name in pattern.keys() - block.keys()) for stem, pattern, block in self.pairs()
        )
        return [name for name in lacking if name not in spared]

    @property
    def extra(self) -> list[str]:
        """Names of what nobody expects, in the layers and experts that are expected."""
        if not self.expected.complete:
            return []
        return [
            tensor.name for _, pattern, block in self.pairs() for name, tensor in block.items() if name not in pattern
        ]

    @property
    def lacks(self) -> str | None:
        """The code of the rule that misses something."""
        experts = self.expected.experts
        if self.missing:
            return "CK026"
        if self.headless:
            return "CK027"
        if self.missing_layers:
            return "CK022"
        return "CK023" if experts and any(_odd_experts(self, experts, layer) for layer in self.counted) else None


def _held(facts: Facts) -> _Held:
    """The tensors beside what is expected.  Raises NotChecked where another rule says that they cannot be compared."""
    require_whole(facts)
    architecture = facts.opened.architecture
    if facts.recipe and architecture not in facts.recipe.architectures:
        raise NotChecked("the architecture is not the recipe's, as CK001 says")
    if any(quantised(facts)):
        raise NotChecked("the weights are quantised, as CK016 says")
    tensors = [tensor for shard in facts.weights.shards for tensor in shard.tensors]
    expected = expected_tensors(architecture, facts.opened.config, (t.name for t in tensors))
    blocks = expected.blocks(tensors)
    layers: dict[int, set[int]] = {}
    for layer, expert in blocks:
        if layer is not None:
            layers.setdefault(layer, set()).update(() if expert is None else (expert,))
    return _Held(expected, blocks, layers)


def _complete(facts: Facts) -> _Held:
    """The same for an architecture of which every tensor is known."""
    held = _held(facts)
    if not held.expected.complete:
        raise NotChecked(f"the tensors of {facts.opened.architecture} are not known here")
    return held


def _fitting(facts: Facts) -> _Held:
    """The same where the names are those of the architecture at all."""
    held = _complete(facts)
    if not held.layers:
        raise NotChecked(held.strange)
    return held


def _odd_experts(held: _Held, experts: Experts, layer: int) -> str:
    """What is wrong with the experts of a layer; nothing where they are as the config says."""
    said = []
    if experts.each:
        wanted, there = set(range(experts.count)), held.layers[layer]
        odd = (("lacks", wanted - there), ("has in excess", there - wanted))
        said = [f"{what} {_ranges(numbers)}" for what, numbers in odd if numbers]
    rows = _router_rows(experts, held.block(layer, None))
    if rows not in (None, experts.count):
        said.append(f"has a router of {rows} rows")
    return ", ".join(said)


def _router_rows(experts: Experts, block: Mapping[str, Tensor]) -> int | None:
    router = block.get(experts.router)
    return router.shape[0] if router and len(router.shape) == 2 else None


def _wanted(expected: Expected, pattern: Shape, name: str, block: Mapping[str, Tensor]) -> Shape:
    """The shape as the config says it, but for the rows that other rules look at."""
    experts, found = expected.experts, block[name].shape
    if len(found) != len(pattern):
        return pattern
    if name in expected.vocabulary or (experts and name == experts.router):
        return (found[0], *pattern[1:])
    if experts and name in experts.stacked and found != pattern:
        return (pattern[0] // experts.count * (_router_rows(experts, block) or experts.count), *pattern[1:])
    return pattern


def _instead(held: _Held) -> str:
    """What is there under names that nobody knows, which may be what is missing."""
    extra = held.extra
    return f"; unknown ones are there instead: {firsts(extra)}" if extra else ""


def _ranges(numbers: Iterable[int], most: int = 5) -> str:
    """Numbers in a row drawn together: `0-3, 7`."""
    drawn: list[list[int]] = []
    for number in sorted(numbers):
        if drawn and drawn[-1][-1] == number - 1:
            drawn[-1][1:] = [number]
        else:
            drawn.append([number])
    shown = ", ".join("-".join(map(str, ends)) for ends in drawn[:most])
    return f"{shown} and more" if drawn[most:] else shown
