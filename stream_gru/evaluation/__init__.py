"""`stream-gru evaluate`: published benchmarks through the streaming engine, beside baselines of the same run."""
