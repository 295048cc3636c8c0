"""Consumers that do not hammer a broker which answers a fetch at once even when it has nothing.

Apache Kafka holds such a fetch back for a while (`fetch_max_wait_ms`). The embedded broker does not, and an idle
consumer of aiokafka's then asks some 3,000 times a second and takes half a core for it.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.protocol.fetch import FetchRequest

_AT_ONCE_S = 0.005
PAUSE_S = 0.02


def polite(consumer: AIOKafkaConsumer) -> AIOKafkaConsumer:
    """Have `consumer` pause after an empty answer that came at once; returns it.

    Where the broker holds empty answers back nothing changes.
    """
    client = consumer._client
    ask = client.send

    async def send(node: Any, request: Any, **options: Any) -> Any:
        asked = time.monotonic()
        answer = await ask(node, request, **options)
        if isinstance(request, FetchRequest) and time.monotonic() - asked < _AT_ONCE_S and _is_empty(answer):
            await asyncio.sleep(PAUSE_S)
        return answer

    client.send = send
    return consumer


def _is_empty(answer: Any) -> bool:
    """No records and no errors in a fetch's answer: each partition is (number, error code, ..., records)."""
    return not any(part[1] or part[-1] for _topic, parts in answer.topics for part in parts)
