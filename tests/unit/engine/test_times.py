from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

from stream_gru import DataError, Engine
from stream_gru.engine.times import epoch_ms
from tests.support.waves import MINUTE

BERLIN = timezone(timedelta(hours=1))
MOMENT = 1_767_265_200_000  # 2026-01-01 11:00 UTC


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


def test_a_date_is_its_midnight() -> None:
    midnight = 1_767_225_600_000
    for times in ([date(2026, 1, 1)], pl.Series([date(2026, 1, 1)]), np.array(["2026-01-01"], "datetime64[D]")):
        assert epoch_ms(times).tolist() == [midnight]
