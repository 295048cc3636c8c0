"""What is done around a worker: topics, test data in, results out, servers to try it on, the demo, the backtest."""
