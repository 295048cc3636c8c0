"""What is written in which order, and what happens when records are lost, repeated or taken away on their way."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from stream_gru.alerts.link import Record
from stream_gru.alerts.runs import Cursor
from stream_gru.alerts.table import Epochs, pack_key, unpack_key
from stream_gru.metrics import Metrics
from tests.support.alert_records import payload
from tests.support.played_faust import TOPIC, Fake, record, started


async def test_alerts_are_acknowledged_before_what_says_so_is_stored(link: Fake) -> None:
    alerter = await started(link)
    records = [record(0), record(1)]
    assert await alerter.take(records) == records
    assert link.calls == ["cursor", "publish", "store"]
    assert link.statuses() == [("readings-0-0", "firing"), ("readings-0-1", "firing")]
    await alerter.take([record(2)])
    assert link.calls[3:] == ["publish", "store"]


@pytest.mark.parametrize("rows", [0, 1, 2])
async def test_a_batch_that_is_stored_in_part_is_read_again(link: Fake, rows: int) -> None:
    """What is stored of one series says nothing of the records of another that came before."""
    history = [
        record(0, payload(0, "a", alert=True)),
        record(1, payload(1, "b", alert=True)),
        record(2, payload(2, "b", anomaly=False)),
        record(3, payload(3, "a", anomaly=False)),
    ]
    alerter = await started(link)
    link.cut_after = rows
    with pytest.raises(asyncio.CancelledError):
        await alerter.take(history)
    link.cut_after, link.alerts = None, []
    again = await started(link)
    assert await again.take(history) == history
    if rows < 2:
        assert ("readings-0-1", "firing") in link.statuses()
        assert ("readings-0-1", "resolved") in link.statuses()
    assert await (await started(link)).take(history) == history
    assert len(link.statuses()) == 2 * (2 - rows), "what was stored is told once"


async def test_what_a_zombie_had_on_its_way_does_not_count(link: Fake) -> None:
    """It was frozen while it wrote; the rows arrive after those of its successor, which has read further."""
    first = [record(0, payload(0, "a", alert=True)), record(1, payload(1, "b", alert=True))]
    then = [record(2, payload(2, "a", anomaly=False)), record(3, payload(3, "b", anomaly=False))]
    zombie = await started(link)
    await zombie.take(first)
    late = link.log[-3:]
    successor = await started(link)
    await successor.take(then)
    link.log += late  # again, and last
    link.alerts = []
    third = await started(link)
    assert await third.take([record(4, payload(4, "a", alert=True))])
    assert link.statuses() == [("readings-0-4", "firing")], "a's first run has ended"
    # What does not count was written anew, so that the log may be compacted.
    last = {key: value for _, key, value in link.log}
    assert {key: value for key, value in last.items() if value is not None} == link.rows
    assert link.recovered()[1] == set()


def test_a_log_that_is_read_from_its_start_again_is_read_anew() -> None:
    epochs, key = Epochs(), pack_key(0)
    assert epochs.counts(0, 5, key, b'{"epoch": 7}')
    assert not epochs.counts(0, 6, key, b'{"epoch": 6}')
    assert epochs.overruled == {key}
    assert epochs.counts(0, 5, key, b'{"epoch": 6}')
    assert epochs.counts(0, 6, key, None)
    assert epochs.counts(1, 6, key, b"no JSON")
    assert epochs.counts(0, 7, key, b"{}") is False


@pytest.mark.parametrize("crash_at", [1, 2, 3, 4, 5])
async def test_a_crash_loses_no_alert(link: Fake, crash_at: int) -> None:
    history = [record(0, payload(0, alert=True)), record(1, payload(1)), record(2, payload(2, anomaly=False))]
    alerter = await started(link)
    link.fail_at = set(range(crash_at, 1000))  # from here on nothing is written; then the process is killed
    task = asyncio.create_task(alerter.take(history[:2]))
    done, _ = await asyncio.wait([task], timeout=0.05)
    if done:
        task = asyncio.create_task(alerter.take(history[2:]))
        await asyncio.wait([task], timeout=0.05)
    task.cancel()

    link.fail_at, before = set(), link.statuses()
    await (await started(link)).take(history)
    everything = link.statuses()
    assert set(everything) == {("readings-0-0", "firing"), ("readings-0-0", "resolved")}
    assert len(everything) <= 3, "a repeated alert at most"
    assert everything[: len(before)] == before


async def test_a_start_from_the_table_repeats_nothing(link: Fake) -> None:
    await (await started(link)).take([record(0, payload(0, alert=True)), record(1, payload(1))])
    alerter = await started(link)
    again = [record(0, payload(0, alert=True)), record(1, payload(1))]
    assert await alerter.take(again) == again
    await alerter.take([record(2, payload(2, anomaly=False))])
    assert link.statuses() == [("readings-0-0", "firing"), ("readings-0-0", "resolved")]


async def test_it_tries_again_until_kafka_takes_it(link: Fake) -> None:
    link.fail_at = {1, 2, 4}
    alerter = await started(link)
    assert await alerter.take([record(0)]) == [record(0)]
    assert link.calls == ["cursor", "cursor", "cursor", "publish", "cursor", "publish", "store"]
    assert link.statuses() == [("readings-0-0", "firing")]


@pytest.mark.parametrize("lose_at", [1, 2])
async def test_nothing_is_stored_once_the_partition_is_another_workers(link: Fake, lose_at: int) -> None:
    link.lose_at, link.fail_at = lose_at, {1}
    alerter = await started(link)
    assert await alerter.take([record(0)]) == []
    assert "store" not in link.calls


async def test_records_of_an_assignment_that_is_over_are_left_alone(link: Fake) -> None:
    alerter = await started(link)
    link.generation = 2
    assert await alerter.take([record(0)]) == []
    assert await alerter.take([record(0, partition=7, generation=2)]) == []
    assert link.calls == []


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"rubbish",
        b"[1]",
        b"{}",
        b"\xff\xfe",
        b"[" * 100_000,
        payload(5).replace(b"readings-0-5", b"nonsense"),
        payload(5).replace(b"5000", b'"secret"'),
    ],
)
async def test_what_can_not_be_read_is_skipped_counted_and_not_shown(
    link: Fake, value: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    metrics = Metrics()
    alerter = await started(link, metrics)
    bad = Record(0, 0, 0, value, 1)
    assert await alerter.take([bad, record(1)]) == [bad, record(1)]
    assert link.statuses() == [("readings-0-1", "firing")]
    assert "anomalies-0-0" in caplog.text
    for content in ("rubbish", "nonsense", "secret"):
        assert content not in caplog.text
    assert metrics.registry.get_sample_value("stream_gru_control_unreadable_total", {"topic": TOPIC}) == 1


async def test_a_tombstone_is_skipped(link: Fake) -> None:
    alerter = await started(link)
    assert len(await alerter.take([Record(0, 0, 0, None, 1), record(1)])) == 2


async def test_silence_is_measured_by_the_clock_when_everything_was_read(link: Fake) -> None:
    alerter = await started(link)
    await alerter.take([record(0)])
    link.end = 1
    await alerter.sweep(299_999)
    assert len(link.alerts) == 1
    await alerter.sweep(300_000)
    assert link.statuses()[1:] == [("readings-0-0", "resolved")]


async def test_a_backlog_is_not_silence(link: Fake) -> None:
    alerter = await started(link)
    await alerter.take([record(0)])
    link.end = 900
    await alerter.sweep(10_000_000)
    assert len(link.alerts) == 1, "the record that says it goes on may be among those to be read"
    await alerter.take([record(n, payload(n, "other")) for n in range(1, 400)])
    await alerter.sweep(10_000_000)
    assert link.statuses()[1:] == [("readings-0-0", "resolved")], "the topic itself is past the silence"


async def test_a_sweep_stores_the_cursor_before_it_drops(link: Fake) -> None:
    alerter = await started(link)
    await alerter.take([record(0, payload(0, alert=True)), record(1, payload(1, anomaly=False))])
    link.calls.clear()
    link.end = 2
    await alerter.sweep(1_000_000)
    assert link.calls == ["cursor", "store"]
    assert list(link.rows) == [pack_key(0)]
    assert msgspec.json.decode(link.rows[pack_key(0)], type=Cursor).next == 2
    again = await started(link)
    await again.take([record(0, payload(0, alert=True)), record(1, payload(1, anomaly=False))])
    assert len(link.alerts) == 2


async def test_damaged_rows_are_left_out(link: Fake, caplog: pytest.LogCaptureFixture) -> None:
    await (await started(link)).take([record(0), record(1)])
    damaged = pack_key(0, ("readings", "s0"))
    link.rows[damaged] = b'{"secret": 1}'
    link.rows[b"what?"] = b"{}"
    alerter = await started(link)
    await alerter.take([record(2)])
    assert "secret" not in caplog.text
    assert [id_ for id_, _ in link.statuses()] == ["readings-0-0", "readings-0-1", "readings-0-2"]


def test_keys_of_the_table() -> None:
    for packed in (pack_key(3), pack_key(3, ("readings", 'a/"b"\\'))):
        assert pack_key(*unpack_key(packed)) == packed
    for wrong in (b"[]", b'["3"]', b'[3,"readings"]', b'[3,"readings",4]'):
        with pytest.raises(ValueError, match="not a key"):
            unpack_key(wrong)
