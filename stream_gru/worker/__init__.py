"""The data plane. `worker.py` puts it together; the other files in the order of the data: assignment, restoring,
source, guarding, intake, outbox, checkpoint. What reads and writes Kafka for it is in `stream_gru.kafka`."""
