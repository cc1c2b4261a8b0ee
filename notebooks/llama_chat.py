# Databricks notebook source
# MAGIC %md
# MAGIC # Llama chat, fine-tuned
# MAGIC
# MAGIC Registers a fine-tuned Llama checkpoint from a folder or a Volume to Unity Catalog and, on request, serves it on
# MAGIC provisioned throughput.
# MAGIC
# MAGIC `source` is the folder that `save_pretrained` wrote: config, tokenizer with its chat template, and safetensors.

# COMMAND ----------

# MAGIC %pip install --quiet "catalogger[databricks,bench,notebook]==0.1.0"

# COMMAND ----------

if "dbutils" in globals():
    dbutils.library.restartPython()

# COMMAND ----------

import os

from databricks.sdk import WorkspaceClient

import catalogger

asked = catalogger.parameters(
    recipe="llama-chat",
    source="/Volumes/main/default/checkpoints/support-bot",
    name="main.default.support_bot",
    alias="challenger",
    cache=catalogger.local_disk("huggingface"),
    deploy=False,
    endpoint="support-bot",
    input_tokens=2048,
    output_tokens=256,
    seconds=30.0,
)
os.environ["HF_HOME"] = asked.cache

# COMMAND ----------

catalogger.check(asked.recipe, source=asked.source, name=asked.name)

# COMMAND ----------

outcome = catalogger.log_model(
    asked.recipe,
    source=asked.source,
    name=asked.name,
    aliases=[asked.alias],
    progress=catalogger.Terminal(),
)
outcome

# COMMAND ----------

if asked.deploy:
    version = f"{outcome.name}/{outcome.version}"
    display(catalogger.deploy(WorkspaceClient(), version, endpoint=asked.endpoint, progress=catalogger.Terminal()))

# COMMAND ----------

if asked.deploy:
    endpoint = catalogger.Endpoint(WorkspaceClient(), asked.endpoint)
    print(endpoint.chat("What is Unity Catalog?", max_tokens=asked.output_tokens).text)

# COMMAND ----------

if asked.deploy:
    shape = {"input_tokens": asked.input_tokens, "output_tokens": asked.output_tokens, "seconds": asked.seconds}
    display(catalogger.load_test(WorkspaceClient(), asked.endpoint, tokenizer=asked.source, **shape))
