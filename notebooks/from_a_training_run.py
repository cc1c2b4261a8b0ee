# Databricks notebook source
# MAGIC %md
# MAGIC # From a training run to a registered version
# MAGIC
# MAGIC Trains a few steps, then registers model and tokenizer as they are in memory, in the MLflow run of the training.
# MAGIC They are saved once, checked like any checkpoint, and never loaded again.

# COMMAND ----------

# MAGIC %pip install --quiet "catalogger[databricks,torch,notebook]==0.1.0"

# COMMAND ----------

if "dbutils" in globals():
    dbutils.library.restartPython()

# COMMAND ----------

import mlflow
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import catalogger

asked = catalogger.parameters(
    base="meta-llama/Llama-3.2-1B-Instruct",
    text="Unity Catalog is a governance layer for data and AI.",
    name="main.default.trained_bot",
    alias="challenger",
    steps=10,
    learning_rate=1e-5,
)

# COMMAND ----------

tokenizer = AutoTokenizer.from_pretrained(asked.base)
model = AutoModelForCausalLM.from_pretrained(asked.base, dtype=torch.bfloat16)
batch = tokenizer(asked.text, return_tensors="pt")
optimizer = torch.optim.AdamW(model.parameters(), lr=asked.learning_rate)

# COMMAND ----------

with mlflow.start_run():
    for step in range(asked.steps):
        loss = model(**batch, labels=batch["input_ids"]).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        mlflow.log_metric("loss", loss.item(), step=step)
    outcome = catalogger.log_model(
        "llama-chat", model=model, tokenizer=tokenizer, name=asked.name, aliases=[asked.alias]
    )
outcome

# COMMAND ----------

catalogger.lint(outcome.model_uri)
