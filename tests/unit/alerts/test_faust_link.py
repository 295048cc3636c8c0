"""What the alerter is told of Kafka's errors, and what becomes of records for which there is no room yet."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiokafka.errors import (
    KafkaConnectionError,
    KafkaError,
    KafkaTimeoutError,
    OutOfOrderSequenceNumber,
    TopicAuthorizationFailedError,
)
from faust.exceptions import ProducerSendError

from stream_gru.alerts import agent, faust_link
from stream_gru.alerts.link import UnavailableError
from stream_gru.process.tasks import LeakedCancellationError


def of_the_producer(cause: KafkaError) -> ProducerSendError:
    error = ProducerSendError(f"Error while sending: {cause!r}")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    "error", [KafkaConnectionError("closed"), TimeoutError(), of_the_producer(KafkaTimeoutError()), OSError("no route")]
)
def test_what_passes_is_tried_again(error: Exception) -> None:
    with pytest.raises(UnavailableError, match=type(error).__name__), faust_link._unavailable():
        raise error


@pytest.mark.parametrize("cause", [TopicAuthorizationFailedError("alerts"), OutOfOrderSequenceNumber()])
def test_what_does_not_pass_is_not(cause: KafkaError) -> None:
    for error in (cause, of_the_producer(cause)):
        with pytest.raises(type(cause)), faust_link._unavailable():
            raise error


async def test_a_record_waits_for_room_alone() -> None:
    outcomes: list[Any] = [of_the_producer(KafkaTimeoutError()), of_the_producer(KafkaTimeoutError()), None]

    async def send() -> Any:
        if error := outcomes.pop(0):
            raise error
        return asyncio.sleep(0)

    await (await faust_link._hand_over(send))
    assert not outcomes

    outcomes.append(of_the_producer(TopicAuthorizationFailedError("alerts")))
    with pytest.raises(ProducerSendError):
        await faust_link._hand_over(send)


class App:
    """As much of a Faust app as its guard uses."""

    def __init__(self) -> None:
        self.should_stop = False
        self.crashed_by: BaseException | None = None

    async def crash(self, error: BaseException) -> None:
        self.crashed_by = error


async def test_a_cancellation_that_nobody_asked_for_crashes_the_app() -> None:
    app = App()

    async def leaking() -> None:
        async with agent._crashing(app):  # type: ignore[arg-type] # it is enough of one
            raise asyncio.CancelledError

    with pytest.raises(LeakedCancellationError):
        await asyncio.create_task(leaking())
    assert isinstance(app.crashed_by, LeakedCancellationError)

    app = App()
    app.should_stop = True
    task = asyncio.create_task(leaking())
    await asyncio.wait([task])
    assert task.cancelled()
    assert app.crashed_by is None


async def test_a_cancellation_of_ours_does_not() -> None:
    app = App()

    async def waiting() -> None:
        async with agent._crashing(app):  # type: ignore[arg-type] # it is enough of one
            await asyncio.sleep(60)

    task = asyncio.create_task(waiting())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert app.crashed_by is None
