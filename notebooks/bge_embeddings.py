# Databricks notebook source
# MAGIC %md
# MAGIC # BGE embeddings
# MAGIC
# MAGIC Registers BGE large v1.5 to Unity Catalog and, on request, serves it on provisioned throughput.
# MAGIC
# MAGIC BGE wants an instruction before a query, and none before a passage; `recipe` gives it.

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
    recipe="bge-large",
    source="BAAI/bge-large-en-v1.5",
    name="main.default.bge_large",
    alias="challenger",
    cache=catalogger.local_disk("huggingface"),
    deploy=False,
    endpoint="bge-large",
    input_tokens=512,
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
    found = endpoint.embed(["Unity Catalog is a governance layer.", "A shard holds tensors."], recipe=asked.recipe)
    print(len(found.vectors), "vectors of", len(found.vectors[0]), "numbers")

# COMMAND ----------

if asked.deploy:
    shape = {"input_tokens": asked.input_tokens, "seconds": asked.seconds}
    display(catalogger.load_test(WorkspaceClient(), asked.endpoint, tokenizer=asked.source, **shape))
