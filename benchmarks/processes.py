"""What the measured processes do, each as `python -P processes.py NAME ARGUMENTS`; run by path to import nothing else.

Must not know how they are measured.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any


def upstream(source: str, uri: str, name: str, registry: str = "") -> None:
    """MLflow's documented way: load the model, then log and register it; explicit requirements, no input example."""
    from importlib.metadata import version

    import mlflow
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(registry or uri)
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.bfloat16)
    tokenizer = AutoTokenizer.from_pretrained(source)
    with mlflow.start_run():
        mlflow.transformers.log_model(
            {"model": model, "tokenizer": tokenizer},
            name="model",
            task="llm/v1/chat",
            registered_model_name=name,
            pip_requirements=[f"{package}=={version(package)}" for package in ("mlflow", "torch", "transformers")],
            input_example=None,
        )


def catalogger(*arguments: str) -> None:
    """The console script `log-model`."""
    sys.argv = ["log-model", *arguments]
    from catalogger.cli import main

    main()


def mlflow_command(*arguments: str) -> None:
    """The console script `mlflow`."""
    sys.argv = ["mlflow", *arguments]
    from mlflow.cli import cli

    cli()


def floor(uri: str) -> None:
    """What nobody who uses MLflow can avoid: import it and open the store."""
    import mlflow

    mlflow.MlflowClient(uri).search_experiments()


def hash_once(*files: str) -> None:
    """SHA-256 of each file, by hashlib in one thread."""
    import hashlib

    for file in files:
        with Path(file).open("rb", buffering=0) as stream:
            hashlib.file_digest(stream, "sha256")


def boto3_upload(bucket: str, *files: str) -> None:
    """A plain upload of each file by boto3, keys and endpoint from the environment."""
    import boto3

    client = boto3.client("s3")
    for file in files:
        client.upload_file(file, bucket, f"plain/{Path(file).name}")


def sdk_upload(*files: str) -> None:
    """A plain upload of each file by the Databricks SDK to its Files API."""
    from databricks.sdk import WorkspaceClient

    workspace = WorkspaceClient()
    for file in files:
        with Path(file).open("rb") as stream:
            workspace.files.upload(f"/Volumes/main/ml/plain/{Path(file).name}", stream, overwrite=True)


def fetch(repo: str) -> None:
    """The files of a repository into the cache, by huggingface_hub."""
    from huggingface_hub import snapshot_download

    snapshot_download(repo)


def checkpoint(folder: str, gigabytes: str, shards: str, sparse: str = "") -> None:
    """Write a synthetic Llama, `sparse` of holes; in a process of its own, as a child's RSS begins at its parent's."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from fakes.checkpoints import big_llama

    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    big_llama(target, float(gigabytes), shards=int(shards), sparse=bool(sparse))


def lora(base: str, folder: str, rank: str) -> None:
    """Write a LoRA adapter of random factors for every matrix of a synthetic Llama's layers."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    import json

    import numpy as np
    from fakes.checkpoints import write_safetensors

    random, tensors, modules = np.random.default_rng(0), {}, set()
    for file in sorted(Path(base).glob("*.safetensors")):
        with file.open("rb") as stream:
            table = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
        for name, tensor in table.items():
            if ".layers." in name and len(tensor["shape"]) == 2:
                rows, columns = tensor["shape"]
                module = name.removesuffix(".weight")
                modules.add(module.rpartition(".")[2])
                for half, shape in (("A", (int(rank), columns)), ("B", (rows, int(rank)))):
                    values = random.normal(0, 0.01, shape).astype("<f4").tobytes()
                    tensors[f"base_model.model.{module}.lora_{half}.weight"] = ("F32", shape, values)
    Path(folder).mkdir()
    write_safetensors(Path(folder) / "adapter_model.safetensors", tensors)
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": int(rank), "lora_alpha": 2 * int(rank)}
    config |= {"base_model_name_or_path": base, "target_modules": sorted(modules)}
    (Path(folder) / "adapter_config.json").write_text(json.dumps(config))


def widen(source: str, folder: str) -> None:
    """Write a bfloat16 checkpoint once more in float32, with lower bits that rounding takes away."""
    import json
    import shutil

    import numpy as np

    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    for file in sorted(Path(source).glob("*.safetensors")):
        with file.open("rb") as stream, (Path(folder) / file.name).open("wb") as out:
            table = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
            for name, tensor in table.items():
                if name != "__metadata__":
                    tensor["dtype"] = "F32"
                    tensor["data_offsets"] = [2 * at for at in tensor["data_offsets"]]
            header = json.dumps(table).encode()
            out.write(len(header).to_bytes(8, "little") + header)
            while block := stream.read(1 << 24):
                out.write((np.frombuffer(block, "<u2").astype("<u4") << 16 | 0x5A5A).tobytes())


def merge_with_peft(base: str, adapter: str, out: str) -> None:
    """PEFT's documented way: load, merge, save."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base, dtype="auto")
    PeftModel.from_pretrained(model, adapter).merge_and_unload().save_pretrained(out, max_shard_size="1GB")


def compare(one: str, other: str) -> None:
    """Print how many tensors of two checkpoints are equal bit by bit, and of how many."""
    from safetensors import safe_open

    held: list[dict[str, Any]] = []
    for folder in (one, other):
        shards: list[Any] = [safe_open(file, "pt") for file in Path(folder).glob("*.safetensors")]
        held.append({name: shard for shard in shards for name in shard.keys()})  # noqa: SIM118  it cannot be iterated
    assert held[0].keys() == held[1].keys()
    same = sum(bool((held[0][n].get_tensor(n) == held[1][n].get_tensor(n)).all()) for n in held[0])
    print([same, len(held[0])])


if __name__ == "__main__":
    _ALL = (upstream, catalogger, mlflow_command, floor, hash_once, boto3_upload, sdk_upload, checkpoint)
    _CHANGING = (fetch, lora, widen, merge_with_peft, compare)
    _PROCESSES = {f.__name__: f for f in (*_ALL, *_CHANGING)}
    _PROCESSES[sys.argv[1]](*sys.argv[2:])
