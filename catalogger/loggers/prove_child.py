"""The process that loads a model and asks it one thing.  It is run by its path and knows nothing of catalogger.

The order is one line of JSON on stdin, which stays open: when it is closed nobody waits any more, and the process ends.
The result is JSON on stdout; whatever libraries print goes to stderr, and so does the traceback of what failed.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any


def main() -> None:
    """Do what the order says.  The exit code is 0 when there is a result."""
    results = os.dup(1)
    os.dup2(2, 1)
    order = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        document = json.dumps(_result(order), default=_plain)
        with os.fdopen(results, "w") as stream:
            stream.write(document)
    except BaseException:  # also SystemExit, by which code of the model might pass for an answer
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    os._exit(0)  # without waiting for threads of libraries


def _end_with_parent() -> None:
    while os.read(0, 1):
        pass
    os._exit(1)


def _result(order: dict[str, Any]) -> dict[str, Any]:
    import mlflow
    import torch  # noqa: F401  beforehand, so that the time to load is the model's
    import transformers

    watch = _Watch()
    watch.over(transformers.PreTrainedModel)
    began = time.monotonic()
    model = mlflow.pyfunc.load_model(order["folder"])
    loaded = time.monotonic()
    answer = None
    try:
        answer = model.predict(order["payload"])
    except Exception:
        if watch.finite:
            raise
        traceback.print_exc()  # sampling fails where a probability is no number: that is the cause, this the effect
    answered = time.monotonic()
    return {
        "answer": answer,
        "prompt": _prompt(model, order["payload"]),
        "made_up": sorted(watch.made_up),
        "finite": watch.finite,
        "looks": watch.looks,
        "seconds_to_load": loaded - began,
        "seconds_to_answer": answered - loaded,
        "peak_bytes": _peak_bytes(),
    }


class _Watch:
    """Looks at what Transformers loads, and at every forward pass of it."""

    def __init__(self) -> None:
        self.made_up: set[str] = set()
        self.finite = True
        self.looks = 0

    def over(self, base: Any) -> None:
        """Have `from_pretrained` of the base class tell which tensors it found in no file: it only warns of them."""
        plain = base.from_pretrained.__func__

        def from_pretrained(cls: Any, /, *arguments: Any, output_loading_info: bool = False, **more: Any) -> Any:
            model, told = plain(cls, *arguments, output_loading_info=True, **more)
            self.made_up.update(map(str, told["missing_keys"]))
            model.register_forward_hook(self._look)
            return (model, told) if output_loading_info else model

        base.from_pretrained = classmethod(from_pretrained)

    def _look(self, _module: Any, _inputs: Any, output: Any) -> None:
        """The logits of the last position, or the hidden states of a model that has none."""
        logits = getattr(output, "logits", None)
        seen = output[0] if logits is None else logits[:, -1]
        self.looks += 1
        self.finite = self.finite and bool(seen.isfinite().all())


def _prompt(model: Any, payload: dict[str, Any]) -> str | None:
    """The text that the chat template makes of the messages, as MLflow calls it."""
    if "messages" not in payload:
        return None
    tokenizer = model._model_impl.pipeline.tokenizer
    return str(tokenizer.apply_chat_template(payload["messages"], tokenize=False, add_generation_prompt=True))


def _peak_bytes() -> int:
    """The most memory that was resident, mapped weight files included.

    Of Linux' own count: `getrusage` counts the process that started this one too.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def _plain(value: Any) -> Any:
    """Arrays and numbers of numpy as lists and numbers; anything else as text."""
    return value.tolist() if hasattr(value, "tolist") else str(value)


if __name__ == "__main__":
    main()
