"""What Transformers computes with a checkpoint's own folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any


class Truth:
    """A causal language model, and its tokenizer."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(str(folder))
        self.model = AutoModelForCausalLM.from_pretrained(str(folder), dtype="auto").eval()

    def greedy(self, prompt: list[int], count: int) -> tuple[list[int], Any]:
        """The tokens that it goes on with, and the log probabilities at the place of each."""
        import torch

        ids = torch.tensor([prompt])
        out = self.model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=count,
            output_logits=True,
            return_dict_in_generate=True,
            pad_token_id=0,
        )
        logprobs = torch.stack([logits[0] for logits in out.logits]).float().log_softmax(-1)
        return out.sequences[0, len(prompt) :].tolist(), logprobs

    def prompt(self, messages: Any) -> list[int]:
        ids = self.tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)["input_ids"]
        return list(ids)

    def text(self, tokens: list[int]) -> str:
        return str(self.tokenizer.decode(tokens, skip_special_tokens=True))


def first_states(folder: Path, texts: list[str]) -> list[list[float]]:
    """The hidden state of each text's first token."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(str(folder)), AutoModel.from_pretrained(str(folder)).eval()
    with torch.inference_mode():
        states = [model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0, 0] for text in texts]
    return [state.tolist() for state in states]


def tokens_of(folder: Path, texts: list[str]) -> list[list[int]]:
    """The tokens of each text, with those that the tokenizer puts around it."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    return [list(tokenizer(text)["input_ids"]) for text in texts]
