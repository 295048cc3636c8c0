"""Benchmarks: what the project's performance figures come from. Each is a ratio to a yardstick of the same run."""
