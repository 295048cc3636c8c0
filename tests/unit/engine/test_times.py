from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_gru import DataError, Engine
from stream_gru.engine.times import epoch_ms, refuse_seconds
from tests.support.waves import MINUTE

BERLIN = timezone(timedelta(hours=1))
MOMENT = 1_767_265_200_000  # 2026-01-01 11:00 UTC
EARLIEST, LATEST = -62_135_596_800_000, 253_402_300_799_999  # years 1 to 9999
DAY_MS = 86_400_000


@pytest.fixture(autouse=True, scope="module")
def _far_from_utc() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", "America/New_York")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.parametrize(
    "times",
    [
        [MOMENT],
        [float(MOMENT)],
        np.array([MOMENT], np.uint64),
        [datetime(2026, 1, 1, 12, tzinfo=BERLIN)],
        pd.Series([MOMENT], dtype="Int64"),
        [datetime(2026, 1, 1, 11)],  # noqa: DTZ001 - a naive one is UTC
        np.array(["2026-01-01T11"], "datetime64[h]"),
        pl.Series([datetime(2026, 1, 1, 12, tzinfo=BERLIN)]),
        pd.Series(pd.to_datetime(["2026-01-01 12:00+01:00"])),
        pd.DatetimeIndex(["2026-01-01 11:00"]),
        [pd.Timestamp("2026-01-01 12:00+01:00")],
        iter([MOMENT]),
    ],
)
def test_times_as_notebooks_hold_them(times: Any) -> None:
    assert epoch_ms(times).tolist() == [MOMENT]


@pytest.mark.parametrize(
    ("times", "what"),
    [
        ([MOMENT / 1000 + 0.5], "reading 0: the time has a fraction"),
        ([MOMENT, np.nan], "reading 1: the time is missing"),
        (np.array([MOMENT, "NaT"], "datetime64[ms]"), "reading 1: the time is missing"),
        ([MOMENT * 1000, MOMENT * 1_000_000], "reading 0: .* not between the years 1 and 9999"),
        (["yesterday"], "is no time"),
        ("yesterday", "are no times"),
        (MOMENT, "are no times"),
        ([[MOMENT]], "the shape .1, 1."),
        ([[MOMENT], MOMENT], "can't be read"),
        ([pd.NaT], "reading 0: the time is missing"),
        (pl.Series(["1 January"]), "is no time"),
        (pl.Series([MOMENT], dtype=pl.Int128), "can't be read"),
        (pl.Series([MOMENT, None]), "reading 1: the time is missing"),
        ([datetime(2026, 1, 1, tzinfo=UTC), "soon"], "no time"),
        ([True], "is no time"),
    ],
)
def test_what_cannot_be_epoch_ms_is_refused_with_what_to_do(times: Any, what: str) -> None:
    with pytest.raises(DataError, match=f"{what}.*epoch milliseconds as integers, or datetimes"):
        epoch_ms(times)


def test_seconds_are_no_milliseconds() -> None:
    engine = Engine("light", capacity=2)
    with pytest.raises(DataError, match="reading 0: the time looks like epoch seconds"):
        engine.score(["a"], [MOMENT // 1000], [1.0])
    engine.score(["b"] * 2, [0, MINUTE], [1.0, 2.0])
    engine.score(["b"], [MOMENT // 1000], [1.0])  # this one began in 1970 and goes on
    with pytest.raises(DataError, match="reading 1: the time looks like epoch seconds"):
        engine.score(["b", "c", "c"], [MOMENT // 1000, MOMENT // 1000, MOMENT], [1.0] * 3)
    engine.score(["c", "c"], [0, MOMENT // 1000], [1.0] * 2)  # it is the first one's time that a series begins with


def test_a_date_is_its_midnight() -> None:
    midnight = 1_767_225_600_000
    for times in ([date(2026, 1, 1)], pl.Series([date(2026, 1, 1)]), np.array(["2026-01-01"], "datetime64[D]")):
        assert epoch_ms(times).tolist() == [midnight]


@given(st.integers(EARLIEST + DAY_MS, LATEST - DAY_MS), st.integers(-23, 23))
def test_a_datetime_is_exact_and_a_naive_one_is_utc(ms: int, hours: int) -> None:
    wanted = list(range(ms, ms + 50))  # in float seconds, one of some hundred is rounded down
    moments = [datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=each) for each in wanted]
    assert epoch_ms(moments).tolist() == wanted
    assert epoch_ms([moment.replace(tzinfo=None) for moment in moments]).tolist() == wanted
    zone = timezone(timedelta(hours=hours))
    assert epoch_ms([moment.astimezone(zone) for moment in moments]).tolist() == wanted


def test_the_first_and_the_last_time_there_is() -> None:
    assert epoch_ms([EARLIEST, LATEST]).tolist() == [EARLIEST, LATEST]
    for beyond in (EARLIEST - 1, LATEST + 1):
        with pytest.raises(DataError, match=r"reading 1: .* not between the years 1 and 9999"):
            epoch_ms([0, beyond])


@pytest.mark.parametrize("moment", [datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)])
def test_what_would_be_seconds_of_this_century_is_refused_and_no_more(moment: datetime) -> None:
    edge, inwards = int(moment.timestamp()), 1 if moment.year == 2000 else -1
    begins = np.array([False, True])
    refuse_seconds(np.array([edge, edge - inwards]), begins)
    for inside in (edge, edge + inwards):
        with pytest.raises(DataError, match="reading 1: the time looks like epoch seconds"):
            refuse_seconds(np.array([inside, inside]), begins)
