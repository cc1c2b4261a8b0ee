"""The load test: how fast an endpoint answers so many requests at the same time, and where its throughput ends."""
