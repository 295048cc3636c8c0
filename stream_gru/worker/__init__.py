"""The data plane. `worker.py` puts it together; the other files are in the order in which the data flows:
assignment, source, intake, outbox, publisher, checkpoint."""

from stream_gru.worker.worker import Worker

__all__ = ["Worker"]
