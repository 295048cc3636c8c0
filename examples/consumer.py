"""Print what stream_gru says: forecasts, anomalies or alerts.

It needs kafka-python, and a broker that a worker writes to::

    pip install kafka-python
    python examples/consumer.py --bootstrap-servers 127.0.0.1:9092 --topic anomalies
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections import OrderedDict
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from kafka import KafkaConsumer
from kafka.errors import KafkaError

REMEMBERED = 100_000


class Seen:
    """The last ids: after a crash a record may come again, under the id that it had."""

    def __init__(self) -> None:
        self._ids: OrderedDict[str, None] = OrderedDict()

    def before(self, record: dict[str, Any]) -> bool:
        """Whether it came before. An alert has one id for its two records, firing and resolved."""
        name = f"{record['id']} {record.get('status', '')}"
        if name in self._ids:
            return True
        self._ids[name] = None
        if len(self._ids) > REMEMBERED:
            self._ids.popitem(last=False)
        return False


def line(record: dict[str, Any]) -> str:
    """One record for people to read."""
    if "status" in record:  # an alert
        return f"{time(record['start'])} {record['series']} {record['status']}, score {record['score']}"
    expected = f"expected {record['yhat']} ({record['yhat_lower']} to {record['yhat_upper']})"
    return f"{time(record['timestamp'])} {record['series']} {record['level']}: {record['y']}, {expected}"


def time(epoch_ms: int) -> str:
    """ISO 8601, UTC."""
    return datetime.fromtimestamp(epoch_ms / 1000, UTC).isoformat(timespec="seconds")


def main() -> None:
    parser = argparse.ArgumentParser(description="Print what stream_gru says.")
    parser.add_argument("--bootstrap-servers", default="127.0.0.1:9092", metavar="HOST:PORT")
    parser.add_argument("--topic", default="anomalies", help="forecasts, anomalies or alerts")
    parser.add_argument("--group", help="consumers of one group share the records; unset: example-TOPIC")
    parser.add_argument("--count", type=int, help="end after so many; else never")
    arguments = parser.parse_args()

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: the group hears that this one leaves
    consumer = KafkaConsumer(
        arguments.topic,
        bootstrap_servers=arguments.bootstrap_servers,
        group_id=arguments.group or f"example-{arguments.topic}",
        auto_offset_reset="earliest",  # a new group begins with the oldest record
        enable_auto_commit=False,
        value_deserializer=json.loads,
    )
    seen = Seen()
    try:
        for message in islice(consumer, arguments.count):
            if not seen.before(message.value):
                print(line(message.value), flush=True)
            consumer.commit()  # only now: what was not printed comes again
    except KeyboardInterrupt:
        pass
    finally:
        consumer.close()


if __name__ == "__main__":
    try:
        main()
    except KafkaError as error:
        sys.exit(f"Kafka: {error}")
    except KeyboardInterrupt:  # while it connects, or leaves
        sys.exit(130)
