"""Real loopback servers that stand in for services which the tests may not reach."""
