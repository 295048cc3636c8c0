"""Send made-up readings of one sensor to stream_gru: a daily cycle, noise, and one spike.

It needs kafka-python, and a broker with the topic::

    pip install kafka-python
    python examples/producer.py --bootstrap-servers 127.0.0.1:9092 --series plant-7/pump-3 --count 2000
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
import time

from kafka import KafkaProducer
from kafka.errors import KafkaError

DAY_S = 86_400


def main() -> None:
    parser = argparse.ArgumentParser(description="Send made-up readings of one sensor to stream_gru.")
    parser.add_argument("--bootstrap-servers", default="127.0.0.1:9092", metavar="HOST:PORT")
    parser.add_argument("--topic", default="readings")
    parser.add_argument("--series", default="plant-7/pump-3", help="the sensor's name, which is the record key")
    parser.add_argument("--count", type=int, default=2000, help="how many readings")
    parser.add_argument("--every", type=float, default=60.0, metavar="SECONDS", help="from one reading to the next")
    parser.add_argument("--spike", type=float, default=6.0, help="how far off one value is, at three quarters of them")
    arguments = parser.parse_args()

    producer = KafkaProducer(
        bootstrap_servers=arguments.bootstrap_servers,
        key_serializer=str.encode,
        value_serializer=lambda reading: json.dumps(reading).encode(),
        acks="all",  # a reading counts as sent when Kafka would not lose it
        linger_ms=20,
    )
    noise = random.Random(0)
    start = time.time() - arguments.count * arguments.every  # the last one is of now
    sent = []
    for i in range(arguments.count):
        now = start + i * arguments.every
        value = 20 + 5 * math.sin(2 * math.pi * now / DAY_S) + noise.gauss(0, 0.3)
        if i == arguments.count * 3 // 4:
            value += arguments.spike
        # One key is one partition, so the readings of a series stay in order.
        reading = {"timestamp": round(now * 1000), "value": round(value, 3)}
        sent.append(producer.send(arguments.topic, key=arguments.series, value=reading))
    for future in sent:
        future.get(timeout=30)  # raises what went wrong
    producer.close()
    print(f"{len(sent)} readings of {arguments.series} sent to {arguments.topic}")


if __name__ == "__main__":
    try:
        main()
    except KafkaError as error:
        sys.exit(f"Kafka: {error}")
