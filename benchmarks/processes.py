"""What the measured processes do, each as `python -P processes.py NAME ARGUMENTS`; run by path to import nothing else.

Must not know how they are measured.
"""

from __future__ import annotations

import sys
from pathlib import Path


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


def checkpoint(folder: str, gigabytes: str, shards: str) -> None:
    """Write a synthetic Llama; in a process of its own, as a child's peak RSS begins at its parent's."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from fakes.checkpoints import big_llama

    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    big_llama(target, float(gigabytes), shards=int(shards))


if __name__ == "__main__":
    _ALL = (upstream, catalogger, mlflow_command, floor, hash_once, boto3_upload, sdk_upload, checkpoint)
    _PROCESSES = {f.__name__: f for f in _ALL}
    _PROCESSES[sys.argv[1]](*sys.argv[2:])
