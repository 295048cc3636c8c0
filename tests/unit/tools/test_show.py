from __future__ import annotations

import pytest

from stream_gru.tools import show


def test_an_output_as_a_row() -> None:
    payload = {
        "timestamp": 1_400_000_000_000,
        "series": "a",
        "level": "anomaly",
        "y": 12.345678,
        "yhat": {"x": 1, "y": None},
        "yhat_lower": {"x": 0.5, "y": None},
        "yhat_upper": {"x": 2, "y": None},
        "anomaly_score": 1.5,
    }
    assert show.row("anomalies", payload) == [
        "2014-05-13 16:53:20", "a", "anomaly", "12.3457", "x=1 y=–", "x=0.5 … 2 y=–", "1.5",
    ]  # fmt: skip


def test_an_alert_and_a_dead_letter_as_rows() -> None:
    alert = {"start": 0, "end": None, "status": "firing", "series": "a", "actual": 1, "interval": [0, 2], "score": 3}
    assert show.row("alerts", alert) == ["1970-01-01 00:00:00", "–", "firing", "a", "1", "–", "0 … 2", "3"]
    letter = {"timestamp": 0, "reason": "tombstone", "id": "t-0-1", "value": {"data": "{", "truncated": True}}
    assert show.row("dead-letters", letter) == ["1970-01-01 00:00:00", "tombstone", "t-0-1", "{ …"]


@pytest.mark.parametrize("kind", show.COLUMNS)
def test_what_is_missing_is_a_dash(kind: str) -> None:
    assert set(show.row(kind, {})) == {"–"}


def test_control_characters_do_not_reach_the_terminal() -> None:
    row = show.row("forecasts", {"series": "a\x1b[2Jb\n", "y": {"\x07": 1.0}})
    assert row[1] == "a\\x1b[2Jb\\n"
    assert row[3] == "\\x07=1"


def test_times_past_the_calendar_are_numbers() -> None:
    assert show.moment(10**18) == str(10**18)
