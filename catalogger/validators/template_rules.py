"""TK rules on the chat template: what it makes of a short chat, beside what it should."""

from __future__ import annotations

from collections.abc import Iterator

from catalogger.checkpoints import Checkpoint
from catalogger.checkpoints.probe import ANSWER, FOLLOW_UP, QUESTION, SYSTEM, Probe
from catalogger.validators.facts import Facts, NotChecked
from catalogger.validators.rules import Found, firsts, rule
from catalogger.validators.tokenizer_rules import require_probe, require_tokenizer

_CHAT = "llm/v1/chat"
_OWN_FILE = "chat_template.jinja"
_CONFIG = "tokenizer_config.json"
_SAID = {
    SYSTEM: "the system message",
    QUESTION: "the first question",
    ANSWER: "the answer",
    FOLLOW_UP: "the last question",
}


@rule("TK003", "error")
def keeps_turns(facts: Facts) -> Iterator[Found]:
    """The chat template writes questions and answers, and keeps what they say.

    It is applied to a question, an answer and a second question, as serving does, in Jinja's sandbox with bounded time
    and memory. A template that fails there fails at the first request; one that drops a turn makes the model answer
    something else.

    Fix: take the template that the model was trained with.
    """
    if facts.task != _CHAT:
        return
    plain, fix = _probe(facts).plain, "Take the template that the model was trained with."
    if plain.problem:
        yield Found(_place(facts.opened), f"has a chat template that cannot write a chat: {plain.problem}", fix)
    elif dropped := _dropped(plain.text, QUESTION, ANSWER, FOLLOW_UP):
        yield Found(_place(facts.opened), f"has a chat template that drops {dropped}", fix)


@rule("TK004", "warning")
def system_message(facts: Facts) -> Iterator[Found]:
    """The chat template takes a system message and keeps what it says.

    Many clients send one. A template that refuses it makes the request fail; one that drops it answers as if nothing
    had been said.

    Fix: tell the clients, or add the system message to the template as the model was trained with it.
    """
    if facts.task != _CHAT:
        return
    chat, fix = _turns(facts).chat, "Tell whoever asks it, or add system messages as the model was trained with them."
    if chat.problem:
        yield Found(_place(facts.opened), f"has a chat template that refuses a system message: {chat.problem}", fix)
    elif dropped := _dropped(chat.text, *_SAID):
        also = "" if dropped == _SAID[SYSTEM] else " of a chat with a system message"
        yield Found(_place(facts.opened), f"has a chat template that drops {dropped}{also}", fix)


@rule("TK005", "warning")
def generation_prompt(facts: Facts) -> Iterator[Found]:
    """The chat template opens the answer.

    Serving asks for a generation prompt (`add_generation_prompt=True`): the text that stands before each answer. A
    template that ignores it, and writes nothing of the kind after a question anyway, leaves the model to go on with the
    question.

    Fix: write the start of an answer at the end, `{% if add_generation_prompt %}…{% endif %}`.
    """
    if facts.task != _CHAT:
        return
    probe = _turns(facts)
    if probe.open_end.problem:
        raise NotChecked(f"the template cannot do without a generation prompt: {probe.open_end.problem}")
    if probe.plain.text == probe.open_end.text and not _opens(probe):
        what = "has a chat template that ignores add_generation_prompt: nothing opens the answer"
        fix = "Write the start of an answer at its end: {% if add_generation_prompt %}…{% endif %}."
        yield Found(_place(facts.opened), what, fix)


@rule("TK006", "warning")
def control_tokens(facts: Facts) -> Iterator[Found]:
    """The control tokens that the chat template writes are tokens of this tokenizer.

    `<|im_start|>` and its like are one token each to a model that was trained with them. Where the tokenizer has none,
    they are cut into pieces that the model never saw in this place: the template is another model's.

    Fix: take the template of this model, or the tokenizer that the template was made for.
    """
    if facts.task != _CHAT:
        return
    probe = _turns(facts)
    require_tokenizer(facts)
    written = {**probe.chat.markers, **probe.plain.markers, **probe.open_end.markers}
    if strange := [marker for marker, number in written.items() if number is None]:
        what = f"has a chat template with control tokens that the tokenizer does not have: {firsts(strange)}"
        fix = "Take the template of this model, or the tokenizer that the template was made for."
        yield Found(_place(facts.opened), what, fix)


@rule("TK007", "warning")
def template_drift(facts: Facts) -> Iterator[Found]:
    """The chat template is that of the newest version under the name.

    Whoever serves the name by an alias gets other prompts with the new version, and with them other answers, though
    perhaps only the weights were meant to change.

    Fix: compare the two templates; keep the old one, or tell whoever uses the name.
    """
    if facts.task != _CHAT:
        return
    goal, now = facts.goal, facts.opened.chat_template_sha256
    if goal.unreachable:
        raise NotChecked("the registry could not be asked")
    was = goal.existing and goal.existing.chat_template
    if goal.existing and was and now and was != now:
        version = f"{goal.name} version {goal.existing.number}"
        what = f"has another chat template than {version}: sha256 {now[:12]}…, there {was[:12]}…"
        fix = "Compare the two templates; keep the old one, or tell whoever uses the name."
        yield Found(_place(facts.opened), what, fix)


@rule("TK015", "note")
def template_place(facts: Facts) -> Iterator[Found]:
    """The chat template is where older readers look for it too.

    Transformers 5 writes `chat_template.jinja`; older readers and some servers look into `tokenizer_config.json` only,
    and find no template (https://github.com/huggingface/transformers/pull/33957).

    Fix: `--normalize 4` writes the template as `chat_template` into `tokenizer_config.json` too.
    """
    checkpoint = facts.opened
    if facts.task == _CHAT and _place(checkpoint) == _OWN_FILE and not checkpoint.tokenizer_config.get("chat_template"):
        what = f"holds the chat template, {_CONFIG} does not: older readers find none"
        yield Found(_OWN_FILE, what, f'Give --normalize 4, which writes it as "chat_template" into {_CONFIG} too.')


def _probe(facts: Facts) -> Probe:
    """What was found out about the template.  Raises NotChecked where there is none."""
    if facts.opened.chat_template is None:
        raise NotChecked("there is no chat template, as TK002 says")
    return require_probe(facts)


def _turns(facts: Facts) -> Probe:
    """The same, of a template that writes a plain chat.  Raises NotChecked where it does not."""
    probe = _probe(facts)
    if any(keeps_turns(facts)):
        raise NotChecked("the template cannot write a plain chat, as TK003 says")
    return probe


def _place(checkpoint: Checkpoint) -> str:
    return _OWN_FILE if _OWN_FILE in checkpoint.small else _CONFIG


def _dropped(text: str, *contents: str) -> str:
    """What of the messages is not in the text, in words."""
    return " and ".join(_SAID[content] for content in contents if content not in text)


def _opens(probe: Probe) -> bool:
    """Whether what stands after the last question is more than the end of a turn: what stands before an answer."""
    text, eos = probe.plain.text, probe.named.get("eos_token", "")
    end = text.rpartition(FOLLOW_UP)[2].strip()
    before_answer = text.partition(QUESTION)[2].partition(ANSWER)[0].strip()
    cut_short = before_answer != end and before_answer.startswith(end)
    return bool(end.removesuffix(eos).strip()) and not cut_short
