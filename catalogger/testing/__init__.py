"""Stand-ins of a Databricks workspace on this machine, for tests and rehearsals."""
