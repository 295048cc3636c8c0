"""What is done around a worker: topics, test data in, servers to try it on, the demo."""
