"""What was lost on its way is fetched, and what can't be had is given up aloud."""

from __future__ import annotations

import asyncio

import pytest

from stream_gru.alerts import alerter as module
from stream_gru.alerts import waiting
from stream_gru.alerts.waiting import StalledError
from tests.support.played_faust import Fake, record, started


async def test_what_was_lost_on_its_way_is_fetched(link: Fake) -> None:
    alerter = await started(link)
    await alerter.take([record(0), record(1)])
    records = [record(2), record(5), record(6), record(8)]
    assert await alerter.take(records) == records
    assert link.fetched == [(0, 3, 5), (0, 7, 8)]
    assert await alerter.take([record(3), record(9)]) == [record(3), record(9)], "Faust brings it after all"
    assert [id_ for id_, _ in link.statuses()] == [f"readings-0-{n}" for n in range(10)]


async def test_a_start_fetches_what_faust_has_committed_but_not_delivered(link: Fake) -> None:
    await (await started(link)).take([record(0)])
    link.fail_at = {len(link.calls) + 1}
    assert await (await started(link)).take([record(2)]) == [record(2)]
    assert [id_ for id_, _ in link.statuses()] == ["readings-0-0", "readings-0-1", "readings-0-2"]


async def test_much_is_fetched_in_portions(link: Fake) -> None:
    alerter = await started(link)
    await alerter.take([record(0)])
    await alerter.take([record(1300)])
    assert link.fetched == [(0, 1, 501), (0, 501, 1001), (0, 1001, 1300)]
    assert len(link.alerts) == 1301


async def test_what_kafka_no_longer_has_is_given_up_aloud(link: Fake, caplog: pytest.LogCaptureFixture) -> None:
    alerter = await started(link)
    await alerter.take([record(0)])
    link.first = 7
    assert await alerter.take([record(9)]) == [record(9)]
    assert "anomalies-0: 6 records of [1, 9) are gone" in caplog.text
    assert len(link.alerts) == 4


async def test_what_is_dropped_before_the_first_delivery_is_fetched(link: Fake) -> None:
    """Two members that start together: a rebalance takes what was on its way to the first of them."""
    link.first = 2
    alerter = await started(link)
    await alerter.take([record(5)])
    assert link.fetched == [(0, 2, 5)]
    assert [id_ for id_, _ in link.statuses()] == [f"readings-0-{n}" for n in (2, 3, 4, 5)]
    again = await started(link)
    await again.take([record(5), record(6)])
    assert link.fetched == [(0, 2, 5)], "from then on the table says where it is"


async def test_what_is_never_delivered_is_fetched_from_the_start(link: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "FETCH_AFTER_S", 0.0)
    link.end, link.mine = 3, {1}
    alerter = await started(link)
    await alerter.sweep(0)
    await alerter.sweep(0)
    assert link.fetched == [(1, 0, 3)]
    assert len(link.statuses()) == 3


async def test_what_is_lost_at_the_end_is_fetched_too(link: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    link.mine = {0}
    alerter = await started(link)
    await alerter.take([record(0)])
    link.end = 3
    await alerter.sweep(0)
    assert link.fetched == []
    monkeypatch.setattr(waiting, "FETCH_AFTER_S", 0.0)
    await alerter.sweep(0)
    assert link.fetched == [(0, 1, 3)]
    assert len(link.alerts) == 3
    await alerter.sweep(0)
    assert link.fetched == [(0, 1, 3)]


async def test_a_partition_whose_records_never_arrive_is_an_error(link: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    alerter = await started(link)
    await alerter.take([record(0)])
    link.end = 9
    await alerter.sweep(0)
    monkeypatch.setattr(waiting, "STALLED_S", 0.0)
    await alerter.take([record(1)])  # it moves after all
    monkeypatch.setattr(waiting, "STALLED_S", 60.0)
    await alerter.sweep(0)
    monkeypatch.setattr(waiting, "STALLED_S", 0.0)
    with pytest.raises(StalledError, match="anomalies-0: nothing was delivered for"):
        await alerter.sweep(0)


async def test_a_topic_that_was_made_again_is_named(link: Fake) -> None:
    alerter = await started(link)
    await alerter.take([record(0), record(1)])
    link.end = 2
    await alerter.sweep(0)
    assert alerter.problem() is None
    link.end = 1
    await alerter.sweep(0)
    assert "anomalies-0 ends at 1, but was read up to 2: was the topic made again?" in (alerter.problem() or "")


async def test_what_kafka_does_not_do_is_a_problem_until_it_does(link: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "STUCK_S", 0.0)
    monkeypatch.setattr(module, "_BACKOFF_S", (0.01,))
    alerter = await started(link)
    link.fail_at = set(range(1000))
    taking = asyncio.create_task(alerter.take([record(0)]))
    await asyncio.wait([taking], timeout=0.05)
    assert alerter.problem() == "Kafka does not acknowledge alerts (no leader)"
    link.fail_at = set()
    await taking
    assert alerter.problem() is None


async def test_waiting_for_kafka_is_not_a_standstill(link: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    alerter = await started(link)
    await alerter.take([record(0)])
    link.end = 9
    await alerter.sweep(0)
    monkeypatch.setattr(waiting, "STALLED_S", 0.0)
    monkeypatch.setattr(waiting, "UNSEEN_S", 0.0)  # as if this sweep came long after the one before
    await alerter.sweep(0)
