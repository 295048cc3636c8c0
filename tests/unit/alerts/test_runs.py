"""When a series fires, and when that ends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from stream_gru.alerts.runs import FORGET_SILENT_MS, KEEP_ENDED_MS, Alert, Ledger, Place
from stream_gru.records.output import OutputRecord
from tests.support.alert_records import entry, output

SILENCE_MS = 300_000


def told(ledger: Ledger, *outputs: OutputRecord) -> list[Alert]:
    change = ledger.take(map(entry, outputs))
    ledger.apply(change)
    return change.alerts


def hushed(ledger: Ledger, now: int) -> list[Alert]:
    change = ledger.hush(now, SILENCE_MS)
    ledger.apply(change)
    return change.alerts


def brief(alerts: Sequence[Alert]) -> list[tuple[str, str, str | None]]:
    return [(alert.id, alert.status, alert.reason) for alert in alerts]


def test_a_run_fires_once_and_is_resolved_once() -> None:
    ledger = Ledger()
    assert brief(told(ledger, output(5, alert=True))) == [("readings-0-5", "firing", None)]
    assert told(ledger, output(6), output(7, alert=True), output(8)) == []
    assert ledger.firing() == 1
    (resolved,) = told(ledger, output(9, anomaly=False))
    assert (resolved.id, resolved.status, resolved.reason) == ("readings-0-5", "resolved", "normal")
    assert (resolved.start, resolved.end) == (5000, 9000)
    assert ledger.firing() == 0


def test_it_fires_at_the_alert_and_starts_at_the_first_anomalous_reading() -> None:
    ledger = Ledger()
    assert told(ledger, output(5), output(6)) == []
    (firing,) = told(ledger, output(7, alert=True))
    assert (firing.id, firing.start, firing.end, firing.status) == ("readings-0-5", 5000, None, "firing")


def test_a_run_without_an_alert_says_nothing() -> None:
    ledger = Ledger()
    assert told(ledger, output(5), output(6), output(7, anomaly=False)) == []
    assert told(ledger, output(8, anomaly=False)) == []


def test_a_late_reading_belongs_to_no_run() -> None:
    ledger, late = Ledger(), dict[str, Any](level="late", timestamp=1000)
    assert told(ledger, output(4, **late), output(5, alert=True), output(6, anomaly_score=9.0, **late)) != []
    (resolved,) = told(ledger, output(7, anomaly=False))
    assert (resolved.id, resolved.start, resolved.score) == ("readings-0-5", 5000, 1.5)
    assert told(ledger, output(8, **late)) == []
    assert ledger.firing() == 0


def test_an_alert_shows_the_worst_reading_so_far() -> None:
    ledger = Ledger()
    (firing,) = told(ledger, output(5, anomaly_score=2.0, alert=True))
    assert (firing.actual, firing.expected, firing.interval, firing.score) == (5.0, 0.0, [-1.0, 1.0], 2.0)
    told(ledger, output(6, anomaly_score=7.5), output(7, anomaly_score=3.0))
    (resolved,) = told(ledger, output(8, anomaly=False, anomaly_score=0.2))
    assert (resolved.actual, resolved.score) == (6.0, 7.5)


def test_several_values_keep_their_names() -> None:
    many = output(
        5,
        alert=True,
        y={"heat": 3.0, "flow": None},
        yhat={"heat": 1.0, "flow": 2.0},
        yhat_lower={"heat": 0.0, "flow": 1.0},
        yhat_upper={"heat": 2.0, "flow": 3.0},
    )
    (firing,) = told(Ledger(), many)
    assert firing.actual == {"heat": 3.0, "flow": None}
    assert firing.interval == {"heat": [0.0, 2.0], "flow": [1.0, 3.0]}


def test_a_reading_without_a_forecast_has_no_interval() -> None:
    (firing,) = told(Ledger(), output(5, alert=True, yhat=None, yhat_lower=None, yhat_upper=None))
    assert (firing.expected, firing.interval) == (None, None)


def test_series_and_topics_are_told_apart() -> None:
    ledger = Ledger()
    other = output(5, alert=True, id="others-0-5")
    alerts = told(ledger, output(5, alert=True), output(6, "fan", alert=True), other)
    assert [(a.id, a.series, a.topic) for a in alerts] == [
        ("readings-0-5", "pump", "readings"),
        ("readings-0-6", "fan", "readings"),
        ("others-0-5", "pump", "others"),
    ]
    assert brief(told(ledger, output(7, anomaly=False))) == [("readings-0-5", "resolved", "normal")]
    assert ledger.firing() == 2


def test_a_silent_series_is_resolved_at_its_last_reading() -> None:
    ledger = Ledger()
    told(ledger, output(5, alert=True), output(6))
    assert hushed(ledger, 6000 + SILENCE_MS - 1) == []
    (resolved,) = hushed(ledger, 6000 + SILENCE_MS)
    assert (resolved.id, resolved.status, resolved.reason, resolved.end) == (
        "readings-0-5",
        "resolved",
        "silent",
        6000,
    )
    assert hushed(ledger, 6000 + 2 * SILENCE_MS) == []


def test_a_series_that_returns_from_its_silence_still_anomalous_fires_again() -> None:
    ledger = Ledger()
    told(ledger, output(5, alert=True))
    hushed(ledger, 5000 + SILENCE_MS)
    assert brief(told(ledger, output(900))) == [("readings-0-900", "firing", None)]


def test_a_series_that_returns_from_its_silence_normal_says_nothing() -> None:
    ledger = Ledger()
    told(ledger, output(5, alert=True))
    hushed(ledger, 5000 + SILENCE_MS)
    assert told(ledger, output(900, anomaly=False), output(901)) == []


def test_a_pending_run_that_falls_silent_is_forgotten_quietly() -> None:
    ledger = Ledger()
    told(ledger, output(5))
    assert hushed(ledger, 5000 + SILENCE_MS) == []
    assert ledger.runs == {}


@pytest.mark.parametrize("silent", [False, True])
def test_what_is_over_is_dropped_and_still_recognised(silent: bool) -> None:
    ledger = Ledger()
    history = [output(5, alert=True), output(6)] + ([] if silent else [output(7, anomaly=False)])
    told(ledger, *history)
    hushed(ledger, 7000 + SILENCE_MS)
    hushed(ledger, 7000 + max(KEEP_ENDED_MS, FORGET_SILENT_MS if silent else 0))
    assert ledger.runs == {}
    assert told(ledger, *history) == []
    assert brief(told(ledger, output(8, alert=True))) == [("readings-0-8", "firing", None)]


def test_dropping_leaves_a_cursor_that_says_how_far_the_topic_was_read() -> None:
    ledger = Ledger()
    told(ledger, output(5, alert=True), output(6, anomaly=False))
    change = ledger.hush(6000 + KEEP_ENDED_MS, SILENCE_MS)
    assert change.runs == {("readings", "pump"): None}
    assert change.cursor is not None
    assert change.cursor.next == ledger.cursor.next == 7
    assert ledger.hush(6000 + KEEP_ENDED_MS - 1, SILENCE_MS).cursor is None


def test_a_topic_made_anew_is_not_taken_for_a_replay() -> None:
    ledger = Ledger()
    told(ledger, output(1000, alert=True), output(1001, anomaly=False))
    later = output(3, alert=True, timestamp=2_000_000)
    assert brief(told(ledger, later)) == [("readings-0-3", "firing", None)]


@pytest.mark.parametrize("text", ["", "readings", "readings-0", "readings-0-x", "-0-1", "readings-0--1"])
def test_what_is_no_output_id(text: str) -> None:
    with pytest.raises(ValueError, match="topic-partition-offset"):
        Place.of(text)


def test_a_topic_may_have_hyphens() -> None:
    assert Place.of("plant-7-readings-12-345") == Place("plant-7-readings", 12, 345)
