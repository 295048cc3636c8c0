from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aiokafka.errors import MessageSizeTooLargeError

from stream_gru.cli.replay import replay
from stream_gru.cli.simulate import simulate
from stream_gru.cli.tail import tail
from stream_gru.cli.topics import check
from stream_gru.errors import BrokerError, SettingsError
from stream_gru.kafka import tail as reading
from stream_gru.records import dead_letters
from stream_gru.records.dead_letters import Reason
from stream_gru.settings import Input, Kafka, Settings, environment
from stream_gru.tools.embedded import free_port
from stream_gru.tools.feed import Feed
from stream_gru.tools.processes import wait_until
from stream_gru.tools.simulate import Simulation
from stream_gru.tools.simulate import simulate as send
from stream_gru.training.fleet import Label
from tests.support.command_line import command
from tests.support.writing import put


async def records(settings: Settings, topic: str) -> list[Any]:
    """Everything that is in `topic`."""
    async with reading.reader(settings, [topic], from_beginning=True) as consumer:
        left = sum((await consumer.end_offsets(consumer.assignment())).values())
        found: list[Any] = []
        while len(found) < left:
            found += [r for batch in (await consumer.getmany(timeout_ms=200)).values() for r in batch]
    return found


def output(series: str, n: int) -> bytes:
    return json.dumps({"id": f"r-0-{n}", "series": series, "timestamp": 1000 * n, "y": n, "level": "normal"}).encode()


async def test_series_stand_in_the_partition_that_any_client_would_choose(settings: Settings) -> None:
    names = [f"unit {i} µ" for i in range(50)]
    (topic,) = settings.topics.readings
    async with Feed(settings, names) as feed:
        await feed.send(np.arange(50), np.arange(50), np.arange(50.0)[:, None])
    await put(settings, topic, [(name.encode(), b"{}") for name in names])
    found = await records(settings, topic)
    ours = {r.key: r.partition for r in found if r.value != b"{}"}
    theirs = {r.key: r.partition for r in found if r.value == b"{}"}
    assert ours == theirs
    assert set(ours.values()) == {0, 1, 2, 3}


async def test_readings_are_written_as_the_settings_say(settings: Settings) -> None:
    spelled = Input(series=("site", "unit.id"), timestamp="at", timestamp_format="iso", values=("data.x", "data.y"))
    changed = settings.model_copy(update={"input": spelled})
    async with Feed(changed, ["hall/7"]) as feed:
        await feed.send(np.zeros(1, int), np.array([1_400_000_000_123]), np.array([[1.5, np.nan]]))
    (record,) = await records(settings, settings.topics.readings[0])
    assert json.loads(record.value) == {
        "site": "hall",
        "unit": {"id": "7"},
        "at": "2014-05-13T16:53:20.123+00:00",
        "data": {"x": 1.5, "y": None},
    }


async def test_a_simulation_sends_its_rate_and_tells_its_anomalies(settings: Settings) -> None:
    labels: list[Label] = []
    simulation = Simulation(
        rate=4000, series=20, seed=1, duration_s=2, anomalies_per_hour=3600 * 10, speedup=6000, quiet=20
    )
    begin = asyncio.get_running_loop().time()
    sent = await send(settings, simulation, labels.extend)
    assert asyncio.get_running_loop().time() - begin > 1.9
    found = await records(settings, settings.topics.readings[0])
    assert len(found) == sent
    assert 0.9 * 8000 < sent <= 8000, "gaps swallow a few"
    readings = {(r.key.decode(), json.loads(r.value)["timestamp"]): r for r in found}
    assert len(readings) == sent, "no reading twice"
    assert len(labels) > 5
    last = max(timestamp for _, timestamp in readings)
    assert all((label.series, label.start) in readings for label in labels if label.start <= last)
    for record in found:
        assert abs(json.loads(record.value)["timestamp"] - record.timestamp) < 2 * 6000 * 1000 + 60_000
        assert json.loads(record.value)["timestamp"] <= record.timestamp + 60_000, "never dated ahead"


def test_the_simulate_command_writes_its_labels(settings: Settings, tmp_path: Path) -> None:
    file = tmp_path / "labels.jsonl"
    result = command(
        simulate, settings, "--rate", 20_000, "--series", 10, "--duration", 0.5, "--labels", file,
        "--anomalies-per-hour", 400_000, "--seed", 3, "--speedup", 1000,
    )  # fmt: skip
    assert result.exit_code == 0
    labels = [json.loads(line) for line in file.read_text().splitlines()]
    assert labels
    assert set(labels[0]) == {"series", "kind", "start", "end"}


async def test_what_can_not_be_simulated_or_reached_is_said(settings: Settings) -> None:
    two = settings.model_copy(update={"input": Input(values=("x", "y"))})
    with pytest.raises(SettingsError, match=r"input\.values names 2 fields"):
        await send(two, Simulation(duration_s=1))
    nowhere = settings.model_copy(update={"kafka": Kafka(bootstrap_servers=f"127.0.0.1:{free_port()}")})
    with pytest.raises(BrokerError, match="no Kafka at 127"):
        await send(nowhere, Simulation(duration_s=1))


async def test_a_missing_topic_is_said_at_once(settings: Settings) -> None:
    missing = settings.topics.model_copy(update={"readings": ("not-there",), "alerts": "nor-this"})
    changed = settings.model_copy(update={"topics": missing})
    with pytest.raises(BrokerError, match="no topic not-there; `stream-gru topics create`"):
        await send(changed, Simulation(duration_s=1))
    with pytest.raises(BrokerError, match="no topic nor-this"):
        await anext(reading.read(changed, "alerts"))


async def test_a_refused_record_ends_the_feed(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> asyncio.Future[None]:
        future = asyncio.get_running_loop().create_future()
        future.set_exception(MessageSizeTooLargeError())
        return future

    async def send_one() -> None:
        async with Feed(settings, ["a"]) as feed:
            monkeypatch.setattr(feed._publisher, "send", refuse)
            await feed.send(np.zeros(1, int), np.zeros(1, int), np.zeros((1, 1)))

    with pytest.raises(BrokerError, match="MessageSizeTooLarge"):
        await send_one()


def test_a_replay_sends_every_row_in_the_order_of_time(settings: Settings, tmp_path: Path) -> None:
    late, early = tmp_path / "late.csv", tmp_path / "early.csv"
    late.write_text("t,v\n2014-01-01 00:00:02,3\n2014-01-01 00:00:00,\n")
    early.write_text("t,v\n2014-01-01 00:00:01,2\n")
    result = command(replay, settings, late, early, "--time", "t", "--value", "v", "--max")
    assert result.exit_code == 0
    assert "3 of 3 readings of 2 series sent" in result.output
    found = asyncio.run(records(settings, settings.topics.readings[0]))
    at = {(r.key, json.loads(r.value)["timestamp"]): json.loads(r.value)["value"] for r in found}
    second = 1_388_534_400_000
    assert at == {(b"late", second): None, (b"early", second + 1000): 2.0, (b"late", second + 2000): 3.0}
    of_late = [json.loads(r.value)["timestamp"] for r in found if r.key == b"late"]
    assert of_late == sorted(of_late), "a series' own order, so that nothing is late"


def test_a_replay_keeps_the_pace_it_was_asked_for(settings: Settings, tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("t,k,x,y\n" + "".join(f"{1_400_000_000 + 10 * i},{i % 2},{i},{-i}\n" for i in range(11)))
    two = settings.model_copy(update={"input": Input(values=("x", "y"))})
    result = command(replay, two, file, "--time", "t", "--value", "x,y", "--key", "k", "--speed", 100)  # 100 s of data
    assert result.exit_code == 0
    found = asyncio.run(records(settings, settings.topics.readings[0]))
    assert len(found) == 11
    sent = sorted((json.loads(r.value)["timestamp"], r.timestamp) for r in found)
    assert 900 < sent[-1][1] - sent[0][1] < 3000, "100 s at 100 times their pace"
    assert json.loads(found[0].value).keys() == {"timestamp", "x", "y"}


def test_columns_must_fit_the_fields(settings: Settings, tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("t,x,y\n1,2,3\n")
    with pytest.raises(Exception, match=r"2 value columns \(x, y\) can't be sent as the 1 fields of input.values"):
        command(replay, settings, file, "--time", "t", "--value", "x,y")


def test_tail_as_json_from_the_beginning(settings: Settings) -> None:
    messages: list[tuple[bytes | None, bytes]] = [(s.encode(), output(s, n)) for n, s in enumerate("abab")]
    asyncio.run(put(settings, settings.topics.forecasts, messages))
    result = command(tail, settings, "forecasts", "--json", "--from-beginning", "--no-follow")
    assert result.exit_code == 0
    assert [json.loads(line) for line in result.stdout.splitlines()] == [json.loads(value) for _, value in messages]
    only = command(tail, settings, "forecasts", "--json", "--from-beginning", "--limit", 1, "--series", "b")
    assert [json.loads(line)["id"] for line in only.stdout.splitlines()] == ["r-0-1"]


def test_tail_as_a_table(settings: Settings) -> None:
    key = b"\x1b[31mevil"
    letter = dead_letters.encode(Reason.INVALID_JSON, "r", 2, 7, 1_400_000_000_000, key, b"{oops\x07")
    asyncio.run(put(settings, settings.topics.dead_letters, [letter, (None, b"not one of ours")]))
    result = command(tail, settings, "dead-letters", "--from-beginning", "--no-follow")
    header, first, second = (line.split() for line in result.stdout.splitlines())
    assert header == ["sent", "(UTC)", "reason", "id", "original"]
    assert first == ["2014-05-13", "16:53:20", "invalid_json", "r-2-7", "{oops\\x07"]
    assert second[-2].startswith("dead-letters-"), "what is not ours is shown too"
    only = command(tail, settings, "dead-letters", "--from-beginning", "--no-follow", "--series", key.decode())
    assert len(only.stdout.splitlines()) == 2


async def test_tail_follows_what_is_new_only(settings: Settings) -> None:
    await put(settings, settings.topics.anomalies, [(b"a", output("a", 1))])
    stream = reading.read(settings, "anomalies")
    first = asyncio.ensure_future(anext(stream))
    n = 1
    while not first.done():  # until it reads from the end, what is put is old
        n += 1
        await put(settings, settings.topics.anomalies, [(b"a", output("a", n))])
        await asyncio.wait([first], timeout=0.05)
    assert first.result()[0]["id"] != "r-0-1"
    await stream.aclose()


def test_the_check_command_exits_with_1(settings: Settings) -> None:
    assert command(check, settings).exit_code == 0
    assert command(check, settings, "--partitions", 5).exit_code == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_simulation_is_ended_by_a_signal(settings: Settings, number: signal.Signals) -> None:
    program = "import typer; from stream_gru.cli.simulate import simulate; typer.run(simulate)"
    with subprocess.Popen(
        [sys.executable, "-c", program, "--series", "10"],
        env={**os.environ, **environment(settings)},
        stderr=subprocess.PIPE,
        text=True,
    ) as simulation:
        wait_until(
            lambda: bool(asyncio.run(records(settings, settings.topics.readings[0]))), "the first readings arrive", 30
        )
        simulation.send_signal(number)
        _, printed = simulation.communicate(timeout=30)
    assert simulation.returncode == 0
    assert "readings in" in printed
    assert "Traceback" not in printed
    assert int(printed.splitlines()[-1].split()[0]) <= len(asyncio.run(records(settings, settings.topics.readings[0])))
