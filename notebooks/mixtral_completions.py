# Databricks notebook source
# MAGIC %md
# MAGIC # Mixtral completions
# MAGIC
# MAGIC Registers Mixtral 8x7B to Unity Catalog as a model that continues texts and, on request, serves it on
# MAGIC provisioned throughput.
# MAGIC
# MAGIC The checkpoint has 93 GB: it is fetched once to `cache`, and sent once.

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
    recipe="mixtral-8x7b",
    source="mistralai/Mixtral-8x7B-v0.1",
    name="main.default.mixtral_8x7b",
    alias="challenger",
    cache=catalogger.local_disk("huggingface"),
    deploy=False,
    endpoint="mixtral-8x7b",
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
    print(endpoint.complete("Unity Catalog is", max_tokens=asked.output_tokens).text)

# COMMAND ----------

if asked.deploy:
    shape = {"input_tokens": asked.input_tokens, "output_tokens": asked.output_tokens, "seconds": asked.seconds}
    display(catalogger.load_test(WorkspaceClient(), asked.endpoint, tokenizer=asked.source, **shape))
