"""SERVE IT: eligibility, sizing, endpoints, queries, load test.  It knows nothing of `loggers`."""
