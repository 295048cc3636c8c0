"""Questions to Kafka's brokers, each with an answer or an error within ten seconds."""

from __future__ import annotations

import asyncio
from typing import Any

from aiokafka.conn import AIOKafkaConnection
from aiokafka.errors import KafkaError, for_code
from aiokafka.protocol.coordination import FindCoordinatorRequest

from stream_gru.errors import BrokerError, SettingsError
from stream_gru.kafka.causes import explain, joined
from stream_gru.kafka.options import aiokafka_options, bootstrap_addresses
from stream_gru.settings import Kafka

Address = tuple[str, int]

ANSWER_S = 9.0  # for an answer, connecting and a change of coordinator included: under ten seconds
_CONNECT_S = 4.0  # to one broker, so that another can be tried within ANSWER_S
_RETRY_S = 0.2  # until the coordinator is asked for again
_CLOSE_S = 0.5  # for a connection to say goodbye
_GROUP = 0  # the type of a coordinator
_PASSING = {14, 15, 16}  # loading, not available, not coordinator: a fresh broker makes its offsets topic at first use


class Link:
    """Connections that are made when they are needed, with the credentials of that moment, and dropped when they fail.

    Unlike the clients of the libraries it keeps nothing going by itself, and logs nothing: errors are `BrokerError`s.
    """

    def __init__(self, kafka: Kafka) -> None:
        self._kafka = kafka
        self._open: dict[Address | None, AIOKafkaConnection] = {}
        self._coordinators: dict[str, Address] = {}
        self._connecting = asyncio.Lock()
        self._closing: set[asyncio.Future[None]] = set()

    async def ask(self, request: Any, address: Address | None = None) -> Any:
        """The answer of the broker at `address`, or of any."""
        at = None if address is None else f"{address[0]}:{address[1]}"
        try:
            async with asyncio.timeout(ANSWER_S):
                connection = await self._connection(address)
                return await connection.send(request)
        except BrokerError:
            raise
        except (KafkaError, SettingsError, OSError, EOFError, TimeoutError) as error:
            self._drop(address)
            raise explain(error, self._kafka, at) from error

    async def ask_coordinator(self, group: str, request: Any, code: Any) -> Any:
        """The answer of the group's coordinator; `code` finds the error code in it."""
        try:
            async with asyncio.timeout(ANSWER_S):
                while True:
                    answer = await self.ask(request, await self._coordinator(group))
                    if (found := code(answer)) not in _PASSING:
                        break
                    self._coordinators.pop(group, None)
                    await asyncio.sleep(_RETRY_S)
        except TimeoutError as error:
            raise explain(error, self._kafka) from error
        except BrokerError:
            self._coordinators.pop(group, None)
            raise
        if found:
            refused = for_code(found)(group)
            raise explain(refused, self._kafka) from refused
        return answer

    async def close(self) -> None:
        """Disconnect."""
        for address in list(self._open):
            self._drop(address)
        if self._closing:
            await asyncio.wait(self._closing, timeout=_CLOSE_S)

    async def _coordinator(self, group: str) -> Address:
        while group not in self._coordinators:
            answer = await self.ask(FindCoordinatorRequest(group, _GROUP))
            if not answer.error_code:
                self._coordinators[group] = (answer.host, answer.port)
            elif answer.error_code in _PASSING:
                await asyncio.sleep(_RETRY_S)
            else:
                refused = for_code(answer.error_code)(group)
                raise explain(refused, self._kafka) from refused
        return self._coordinators[group]

    async def _connection(self, address: Address | None) -> AIOKafkaConnection:
        async with self._connecting:
            connection = self._open.get(address)
            if connection is None or not connection.connected():
                self._drop(address)
                connection = self._open[address] = await self._connect(address)
            return connection

    async def _connect(self, address: Address | None) -> AIOKafkaConnection:
        """The first that works, of the bootstrap servers if none is asked for."""
        options = aiokafka_options(self._kafka) | {"request_timeout_ms": int(_CONNECT_S * 1000)}
        del options["bootstrap_servers"]
        problems: list[BrokerError] = []
        for host, port in [address] if address else bootstrap_addresses(self._kafka):
            connection = AIOKafkaConnection(host, port, **options)
            try:
                async with asyncio.timeout(_CONNECT_S):
                    await connection.connect()
                return connection
            except (KafkaError, OSError, EOFError, TimeoutError) as error:
                problems.append(explain(error, self._kafka, f"{host}:{port}"))
                self._put_away(connection)
        raise joined(problems)

    def _drop(self, address: Address | None) -> None:
        connection = self._open.pop(address, None)
        if connection is not None:
            self._put_away(connection)

    def _put_away(self, connection: AIOKafkaConnection) -> None:
        closed = connection.close()
        self._closing.add(closed)
        closed.add_done_callback(self._closing.discard)
