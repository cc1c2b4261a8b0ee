# Databricks notebook source
# MAGIC %md
# MAGIC # DeepSeek-R1-Distill-Llama chat
# MAGIC
# MAGIC Registers DeepSeek-R1-Distill-Llama 8B to Unity Catalog and, on request, serves it on provisioned throughput.
# MAGIC
# MAGIC The model thinks before it answers: leave room for that in `output_tokens`.

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
    recipe="deepseek-r1-distill-llama-8b",
    source="deepseek-ai/DeepSeek-R1-Distill-Llama-8B",
    name="main.default.deepseek_r1_distill_llama_8b",
    alias="challenger",
    cache=catalogger.local_disk("huggingface"),
    deploy=False,
    endpoint="deepseek-r1-8b",
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
