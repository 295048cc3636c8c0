"""One process from its first signal handler to its exit code."""
