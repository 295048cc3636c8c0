"""Why Kafka can't be used now: fresh connections to its bootstrap servers, each step told apart.

The libraries only say that no connection came about, after their whole timeout and without the reason.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
import threading
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from aiokafka.conn import AIOKafkaConnection
from aiokafka.errors import KafkaConnectionError
from aiokafka.protocol.metadata import MetadataRequest

from stream_gru.errors import BrokerError, BrokerRefusedError, SettingsError
from stream_gru.kafka.causes import explain, joined
from stream_gru.kafka.options import CLIENT_ID, aiokafka_options, bootstrap_addresses
from stream_gru.settings import Kafka

SERVER_S = 4.0  # for one server; all of them are asked at once, and then all the brokers that they name
_CLOSE_S = 0.5  # for a connection to say goodbye
_CORRELATION = 1  # the number of our request, which comes back with its answer
_HELLO = struct.pack(">hhih", 18, 0, _CORRELATION, len(CLIENT_ID)) + CLIENT_ID.encode()  # ApiVersions, version 0
_TLS_ALERT, _TLS_HANDSHAKE = 21, 22  # the first byte of what a TLS port says to a plain hello

Address = tuple[str, int]
T = TypeVar("T")


async def diagnose(kafka: Kafka) -> BrokerError | None:
    """Why Kafka can't be used now; None if a bootstrap server answers, and a broker that it names.

    A `BrokerRefusedError` is what waiting alone does not mend, beyond doubt: a password, a certificate, a protocol.
    """
    try:
        servers = bootstrap_addresses(kafka)
        options = aiokafka_options(kafka)
    except SettingsError as error:
        return explain(error, kafka)
    answers = await asyncio.gather(*(_Probe(kafka, options, server).run() for server in servers))
    wrong = [answer for answer in answers if isinstance(answer, BrokerError)]
    if len(wrong) == len(servers):
        return joined(wrong)
    good = {server: answer for server, answer in zip(servers, answers, strict=True) if isinstance(answer, set)}
    named = {address for brokers in good.values() for address in brokers}
    if not named or not named.isdisjoint(good):
        return None
    further = await asyncio.gather(*(_Probe(kafka, options, address).run() for address in sorted(named)))
    wrong = [answer for answer in further if isinstance(answer, BrokerError)]
    if len(wrong) < len(further):
        return None
    cause = joined(wrong)
    return type(cause)(
        f"Kafka at {kafka.bootstrap_servers} answers and names brokers that can't be used (advertised.listeners "
        f"there): {cause}"
    )


def require_answer(kafka: Kafka) -> None:
    """Raise the `BrokerError` of `diagnose`, if there is one. Blocks."""
    problem = blocking(diagnose(kafka))
    if problem is not None:
        raise problem


def blocking(asked: Coroutine[Any, Any, T]) -> T:
    """What `asked` returns, for a caller that is not asynchronous, whatever event loop its thread has."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, asked).result()


class _Probe:
    """One server, step by step. `step` is what an answer is waited for."""

    def __init__(self, kafka: Kafka, options: dict[str, Any], address: Address) -> None:
        self._kafka = kafka
        self._options = options
        self._host, self._port = address
        self._at = f"[{self._host}]:{self._port}" if ":" in self._host else f"{self._host}:{self._port}"
        self._step = ""

    async def run(self) -> set[Address] | BrokerError:
        """The brokers that it names, or what is wrong."""
        try:
            async with asyncio.timeout(SERVER_S):
                await self._greet()
                return await self._ask()
        except BrokerError as error:
            return error
        except TimeoutError:
            return BrokerError(f"no Kafka at {self._at}: no answer within {SERVER_S:g} s {self._step}")
        except Exception as error:  # whatever a library raises here is an answer to the question
            return explain(error, self._kafka, self._at)

    async def _greet(self) -> None:
        """TCP, TLS, and the first words of the protocol, which need no user."""
        self._step = "to the question for the address of this host; does the name service work?"
        await _resolve(self._host, self._port)
        self._step = "to a connection: is the machine up, and does a firewall let us through?"
        reader, writer = await asyncio.open_connection(self._host, self._port, happy_eyeballs_delay=0.25)
        try:
            if "ssl_context" in self._options:
                self._step = "to the TLS handshake: is the broker stuck, or is it the port of another protocol?"
                await self._start_tls(writer)
            self._step = "though the port is open: is the broker stuck, stopped or just starting?"
            writer.write(struct.pack(">i", len(_HELLO)) + _HELLO)
            await self._check_hello(reader)
        finally:
            writer.transport.abort()
            await asyncio.sleep(0)  # the turn in which it is closed

    async def _start_tls(self, writer: asyncio.StreamWriter) -> None:
        try:
            await writer.start_tls(self._options["ssl_context"], server_hostname=self._host)
        except ssl.SSLError as error:
            raise explain(error, self._kafka, self._at) from None
        except (ConnectionError, EOFError):
            raise BrokerError(  # a broker on its way down does it too
                f"Kafka at {self._at} closes the connection when TLS begins: does the port take no TLS? "
                f"kafka.security_protocol is {self._kafka.security_protocol}; set PLAINTEXT or SASL_PLAINTEXT, or give "
                "the port that does"
            ) from None

    async def _check_hello(self, reader: asyncio.StreamReader) -> None:
        plain = "ssl_context" not in self._options
        try:
            start = await reader.readexactly(8)
        except ssl.SSLError as error:
            raise explain(error, self._kafka, self._at) from None
        except asyncio.IncompleteReadError as error:
            start = error.partial
        except ConnectionError:
            start = b""
        if plain and start[:1] and start[0] in (_TLS_ALERT, _TLS_HANDSHAKE):
            raise BrokerRefusedError(
                f"Kafka at {self._at} asks for TLS, but kafka.security_protocol is {self._kafka.security_protocol}; "
                "set SSL or SASL_SSL, or give the port that is not encrypted"
            )
        if len(start) == 8:
            if start[4:] != struct.pack(">i", _CORRELATION):
                raise BrokerRefusedError(
                    f"what answers at {self._at} is not Kafka (it says {start!r}); is the port in "
                    "kafka.bootstrap_servers right?"
                )
            return
        if plain:
            raise BrokerError(  # so does a proxy or a load balancer whose broker is away
                f"what listens at {self._at} closes the connection at the first word: is the Kafka behind it down or "
                f"just starting, or does the port ask for TLS? kafka.security_protocol is "
                f"{self._kafka.security_protocol}"
            )
        if self._kafka.ssl_certfile is None:
            raise BrokerError(
                f"Kafka at {self._at} closed the connection after the TLS handshake: does it ask for a client "
                "certificate (kafka.ssl_certfile, kafka.ssl_keyfile)?"
            )
        raise BrokerError(
            f"Kafka at {self._at} closed the connection after the TLS handshake: does it trust kafka.ssl_certfile "
            f"{self._kafka.ssl_certfile}?"
        )

    async def _ask(self) -> set[Address]:
        """User and password, and a question that only a client which may be here is answered."""
        self._step = "to the user and password: is the broker stuck?"
        options = {name: value for name, value in self._options.items() if name != "bootstrap_servers"}
        connection = AIOKafkaConnection(self._host, self._port, **options)
        try:
            await connection.connect()
            self._step = "to a question about its brokers: is it stuck?"
            return await self._brokers(connection)
        finally:
            await asyncio.wait({connection.close()}, timeout=_CLOSE_S)

    async def _brokers(self, connection: AIOKafkaConnection) -> set[Address]:
        try:
            metadata = await connection.send(MetadataRequest([]))
        except KafkaConnectionError as error:
            if self._kafka.security_protocol.startswith("SASL"):
                raise
            protocol = "SASL_SSL" if self._kafka.security_protocol == "SSL" else "SASL_PLAINTEXT"
            raise BrokerError(
                f"Kafka at {self._at} closes the connection at the first question: does it ask for a user and a "
                f"password? kafka.security_protocol is {self._kafka.security_protocol}; set {protocol}"
            ) from error
        return {(host, port) for _, host, port, *_ in metadata.brokers}


async def _resolve(host: str, port: int) -> None:
    """Look the name up, on a thread that nobody waits for: a name service that is away can take minutes."""
    loop = asyncio.get_running_loop()
    found: asyncio.Future[None] = loop.create_future()

    def tell(error: OSError | None) -> None:
        if not found.done():
            found.set_result(None) if error is None else found.set_exception(error)

    def look() -> None:
        problem = None
        try:
            socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            problem = error
        if not loop.is_closed():
            loop.call_soon_threadsafe(tell, problem)

    threading.Thread(target=look, name="stream-gru-resolve", daemon=True).start()
    await found
