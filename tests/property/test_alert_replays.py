"""What comes twice changes nothing, however the scorer's replays and the alerter's pauses fall."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stream_gru.alerts.runs import Alert, Ledger
from stream_gru.records.output import OutputRecord
from tests.support.alert_records import entry, output

SILENCE_MS = 10**15  # nothing falls silent: what is compared must not depend on when it is looked at


@st.composite
def histories(draw: st.DrawFn) -> list[OutputRecord]:
    """Readings of a few series as the anomalies topic shows them: anomalous ones and the first one after them."""
    anomalous: set[str] = set()
    shown = []
    for offset in range(draw(st.integers(1, 40))):
        series = draw(st.sampled_from("abc"))
        anomaly = draw(st.booleans())
        if anomaly or series in anomalous:
            score = draw(st.floats(0, 10))
            shown.append(
                output(offset, series, anomaly=anomaly, alert=anomaly and draw(st.booleans()), anomaly_score=score)
            )
        (anomalous.add if anomaly else anomalous.discard)(series)
    return shown


def alerts(batches: list[list[OutputRecord]], sweeps: list[bool]) -> list[Alert]:
    """What is published for records that arrive in `batches`, each at its place in the topic, with sweeps between."""
    ledger, published, position = Ledger(), [], 0
    for batch, sweep in zip(batches, sweeps, strict=True):
        change = ledger.take(entry(record, position + i) for i, record in enumerate(batch))
        ledger.apply(change)
        position += len(batch)
        assert ledger.cursor.next <= position
        published += change.alerts
        if sweep:
            ledger.apply(ledger.hush(10**9, SILENCE_MS))
    return published


@given(histories(), st.data())
def test_replayed_suffixes_change_nothing(history: list[OutputRecord], data: st.DataObject) -> None:
    once = alerts([history], [False])
    batches, read = [], 0
    while read < len(history):
        until = data.draw(st.integers(read + 1, len(history)))
        again = data.draw(st.integers(0, read))  # the scorer fell back to here and repeats itself
        batches.append(history[again:until])
        read = until
    sweeps = data.draw(st.lists(st.booleans(), min_size=len(batches), max_size=len(batches)))
    assert alerts(batches, sweeps) == once


@given(histories())
def test_every_run_with_an_alert_fires_once_and_is_resolved_at_most_once(history: list[OutputRecord]) -> None:
    published = alerts([history], [False])
    firing = [alert.id for alert in published if alert.status == "firing"]
    resolved = [alert.id for alert in published if alert.status == "resolved"]
    assert len(set(firing)) == len(firing)
    assert len(set(resolved)) == len(resolved)
    assert set(resolved) <= set(firing)

    expected = 0
    for series in "abc":
        told = False
        for record in (r for r in history if r.series == series):
            expected += record.alert and not told
            told = record.is_anomaly and (told or record.alert)
    assert len(firing) == expected


@given(histories(), st.integers(0, 40), st.integers(0, 4))
def test_a_start_from_any_beginning_of_what_is_stored_loses_nothing(
    history: list[OutputRecord], whole: int, rows: int
) -> None:
    """Of a batch some runs may be stored and others not: what those were made of is read again."""
    ledger = Ledger()
    told = []
    for batch in (slice(0, whole), slice(whole, None)):
        change = ledger.take(entry(record, i) for i, record in enumerate(history) if i in range(len(history))[batch])
        told += change.alerts
        if batch.stop is None and rows <= len(change.runs):
            change.runs, change.read = dict([*change.runs.items()][:rows]), None
        ledger.apply(change)
    again = Ledger(dict(ledger.runs), ledger.cursor)
    told += again.take(entry(record, i) for i, record in enumerate(history) if i >= again.cursor.next).alerts
    assert {(one.id, one.status) for one in told} == {(one.id, one.status) for one in alerts([history], [False])}
    if ledger.cursor.next == len(history):
        assert told == alerts([history], [False])
