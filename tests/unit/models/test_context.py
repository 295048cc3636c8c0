from __future__ import annotations

import datetime
from datetime import UTC
from zoneinfo import ZoneInfo

import holidays
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from stream_gru.errors import BundleError, SettingsError
from stream_gru.models.context import Context
from stream_gru.training import recipe


def columns(context: Context, *moments: datetime.datetime) -> np.ndarray:
    stamps = np.array([round(moment.timestamp() * 1000) for moment in moments])
    made = context.columns(stamps, np.empty((len(stamps), 0)))
    assert made.shape == (context.size, len(stamps))
    assert made.dtype == np.float32
    return made


def hour(sine: float, cosine: float) -> float:
    return float(np.arctan2(sine, cosine) / (2 * np.pi) * 24 % 24)


def test_none_by_default() -> None:
    assert Context().size == 0
    assert columns(Context(), datetime.datetime.now(UTC)).shape == (0, 1)


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe"])
@given(stamp=st.integers(-600_000_000_000, 2_100_000_000_000))
def test_the_wall_clock_of_the_zone(zone: str, stamp: int) -> None:
    moment = datetime.datetime(1970, 1, 1, tzinfo=UTC) + datetime.timedelta(milliseconds=stamp)
    sine, cosine, day_sine, day_cosine, weekend = columns(Context(timezone=zone, hour=True, weekday=True), moment)[:, 0]
    local = moment.astimezone(ZoneInfo(zone))
    at = local.hour + local.minute / 60 + local.second / 3600 + local.microsecond / 3.6e9
    assert abs((hour(sine, cosine) - at + 12) % 24 - 12) < 1e-3
    assert round(float(np.arctan2(day_sine, day_cosine)) / (2 * np.pi) * 7) % 7 == local.weekday()
    assert weekend == (local.weekday() >= 5)


def test_a_change_of_clocks() -> None:
    """In Berlin 2 o'clock is left out on 2024-03-31 and comes twice on 2024-10-27; the day has its own length."""
    context = Context(timezone="Europe/Berlin", hour=True)
    for day, hours in (((2024, 3, 30), [23, 0, 1, 3, 4]), ((2024, 10, 26), [0, 1, 2, 2, 3])):
        first = datetime.datetime(*day, 22, tzinfo=UTC)
        made = columns(context, *(first + datetime.timedelta(hours=i) for i in range(5)))
        assert [round(hour(*column)) % 24 for column in made.T] == hours


def test_holidays_of_a_country_and_its_part() -> None:
    noon = [datetime.datetime(2024, month, day, 12, tzinfo=UTC) for month, day in ((1, 6), (5, 1), (7, 4), (12, 25))]
    assert columns(Context(holidays="DE"), *noon)[0].tolist() == [0, 1, 0, 1]
    assert columns(Context(holidays="DE-BY"), *noon)[0].tolist() == [1, 1, 0, 1]
    assert columns(Context(holidays="US"), *noon)[0].tolist() == [0, 0, 1, 1]


def test_a_holiday_lasts_as_long_as_the_local_day() -> None:
    context = Context(timezone="Pacific/Auckland", holidays="NZ")
    midnight = datetime.datetime(2024, 12, 25, tzinfo=ZoneInfo("Pacific/Auckland"))
    hours = [midnight + datetime.timedelta(hours=h) for h in (-24 - 1, -1, 0, 47, 48)]
    assert columns(context, *hours)[0].tolist() == [0, 0, 1, 1, 0]  # Christmas and the day after it


@given(days=st.lists(st.integers(-40_000, 60_000), min_size=1, max_size=20))
def test_every_day_is_what_the_calendar_says(days: list[int]) -> None:
    made = Context(holidays="FR").columns(np.array(days) * 86_400_000, np.empty((len(days), 0)))
    france = holidays.country_holidays("FR")
    assert made[0].tolist() == [datetime.date(1970, 1, 1) + datetime.timedelta(days=day) in france for day in days]


def test_the_first_and_the_last_day_that_there_is() -> None:
    every = Context(timezone="Asia/Tokyo", hour=True, weekday=True, holidays="JP")
    assert np.isfinite(every.columns(np.array([-62_135_596_800_000, 253_402_300_799_999]), np.empty((2, 0)))).all()


@pytest.mark.parametrize(
    ("place", "known"), [("XX", "there are AD, AE"), ("DE-QQ", "DE has BB, BE, BW"), ("Narnia", "there are AD")]
)
def test_places_without_known_holidays_are_refused_at_once(place: str, known: str) -> None:
    with pytest.raises(BundleError, match=f"context.holidays: no holidays are known for '{place}'; {known}"):
        Context(holidays=place)
    with pytest.raises(BundleError, match="no holidays are known"):
        recipe.load(None, {"context.holidays": place})


def test_what_else_is_wrong_is_said() -> None:
    with pytest.raises(ValidationError, match="no time zone 'Mars/Olympus'"):
        Context(timezone="Mars/Olympus")
    with pytest.raises(ValidationError, match="a number for each covariate"):
        Context(covariates=("a", "b"), loc=(1.0,), scale=(1.0,))
    with pytest.raises(ValidationError, match="must be positive"):
        Context(covariates=("a",), loc=(1.0,), scale=(0.0,))


def test_covariates_in_their_own_scale() -> None:
    data = np.array([[1.0, 7.0, np.nan], [3.0, 7.0, np.nan], [np.nan, 7.0, np.nan], [5.0, 7.0, np.nan]])
    context = Context(hour=True, covariates=("a", "same", "never")).fitted(data)
    assert context.loc == (3.0, 7.0, 0.0)
    np.testing.assert_allclose(context.scale, [np.sqrt(8 / 3), 1, 1])
    made = context.columns(np.zeros(4, np.int64), data)
    assert made.shape == (5, 4)
    np.testing.assert_allclose(made[2], [-1.2247, 0, 0, 1.2247], atol=1e-4)  # unknown counts as the mean
    assert not made[3:].any()
    far = context.columns(np.zeros(1, np.int64), np.array([[1e30, -1e30, 5.0]]))
    assert far[2:, 0].tolist() == [8, -8, 5]


def test_fields_of_a_record_must_be_the_covariates_in_order() -> None:
    context = Context(covariates=("load", "site.wind"))
    for fields in (("load", "site.wind"), ("meta.load", "site.wind"), ("load", "a.site.wind")):
        context.require(fields)
    for wrong in ((), ("load",), ("site.wind", "load"), ("load", "wind"), ("load", "site.wind", "more")):
        with pytest.raises(SettingsError, match=r"input.covariates: the model's are load, site\.wind, the settings"):
            context.require(wrong)
    Context().require(())
    with pytest.raises(SettingsError, match="the model's are none, the settings name load"):
        Context().require(("load",))
