"""Inputs that the values themselves don't give: the calendar, and covariates that a reading brings with it.

`Context` is the part of a bundle that says which there are; `columns` makes them, the same in training and in service.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from stream_gru.columns import DAY_MS, Floats, Ints
from stream_gru.errors import BundleError, SettingsError

_COVARIATE_LIMIT = 8.0  # standard deviations of it: what lies beyond counts as this, as the inputs of the features do
_EPOCH_DAY = datetime.date(1970, 1, 1).toordinal()
_FIRST_DAY, _LAST_DAY = 1 - _EPOCH_DAY, datetime.date.max.toordinal() - _EPOCH_DAY  # of the years 1 to 9999


class Context(BaseModel):
    """Which further inputs a model has. None by default: time of the day is known anyway, in UTC.

    Raises `BundleError` for a place whose holidays aren't known.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    timezone: str = Field("UTC", description="time zone of the calendar, as Europe/Berlin")
    hour: bool = Field(False, description="hour of the day in that time zone, as sine and cosine")
    weekday: bool = Field(False, description="day of the week: sine and cosine, and whether it is a weekend")
    holidays: str | None = Field(None, description="country, or country-subdivision, whose holidays count: DE, US-CA")
    covariates: tuple[str, ...] = Field((), description="numbers that come with each reading, or never change")
    loc: tuple[float, ...] = Field((), description="centre of each covariate; set by the training data")
    scale: tuple[float, ...] = Field((), description="spread of each covariate; set by the training data")

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError):
            raise ValueError(f"there is no time zone {name!r}; names are like Europe/Berlin") from None
        return name

    @field_validator("holidays")
    @classmethod
    def _known_place(cls, place: str | None) -> str | None:
        if place is not None:
            _calendar(place)
        return place

    @model_validator(mode="after")
    def _consistent(self) -> Context:
        if self.loc or self.scale:
            if not len(self.loc) == len(self.scale) == len(self.covariates):
                raise ValueError("loc and scale need a number for each covariate")
            if min(self.scale) <= 0:
                raise ValueError("scale: must be positive")
        return self

    @property
    def size(self) -> int:
        """E, inputs of the network beside those of `features`."""
        return 2 * self.hour + 3 * self.weekday + (self.holidays is not None) + len(self.covariates)

    def are(self, fields: Sequence[str]) -> bool:
        """Whether these fields or columns are the covariates, in order: ``load`` or ``a.load`` is `load`."""
        return len(fields) == len(self.covariates) and all(
            field == name or field.endswith(f".{name}") for field, name in zip(fields, self.covariates, strict=True)
        )

    def require(self, fields: Sequence[str]) -> None:
        """Raise `SettingsError` unless these fields of a record are the covariates in order."""
        if not self.are(fields):
            there, wanted = (", ".join(names) or "none" for names in (fields, self.covariates))
            raise SettingsError(
                f"input.covariates: the model's are {wanted}, the settings name {there}; name a field for each in order"
            )

    def fitted(self, covariates: Floats) -> Context:
        """With the location and scale of covariates (N, C), NaN: unknown."""
        if not self.covariates:
            return self
        loc = [float(np.nanmean(column)) if np.isfinite(column).any() else 0.0 for column in covariates.T]
        spread = [float(np.nanstd(column)) if np.isfinite(column).any() else 0.0 for column in covariates.T]
        return self.model_copy(update={"loc": tuple(loc), "scale": tuple(s if s > 0 else 1.0 for s in spread)})

    def columns(self, timestamp: Ints, covariates: Floats) -> npt.NDArray[np.float32]:
        """Epoch ms (N,) and covariates (N, C) -> inputs (E, N). An unknown covariate (NaN) counts as its mean, 0."""
        out = np.empty((self.size, len(timestamp)), np.float32)
        row = 0
        if self.hour or self.weekday or self.holidays is not None:
            local = _local(timestamp, self.timezone)
            if self.hour:
                out[row : row + 2] = _circle(local % DAY_MS / DAY_MS)
                row += 2
            days = local // DAY_MS
            if self.weekday:
                weekday = (days + 3) % 7  # the epoch began on a Thursday; Monday is 0
                out[row : row + 2] = _circle(weekday / 7)
                out[row + 2] = weekday >= 5  # Saturday
                row += 3
            if self.holidays is not None:
                out[row] = _holidays(self.holidays, days)
                row += 1
        if self.covariates:
            loc, scale = np.array(self.loc or 0.0), np.array(self.scale or 1.0)
            out[row:] = np.nan_to_num((covariates - loc) / scale).clip(-_COVARIATE_LIMIT, _COVARIATE_LIMIT).T
        return out


def _circle(turn: Floats) -> Floats:
    """A share of a turn (N,) -> sine and cosine (2, N)."""
    angle = 2 * np.pi * turn
    return np.stack([np.sin(angle), np.cos(angle)])


def _local(timestamp: Ints, zone: str) -> Ints:
    """Epoch ms -> ms of the wall clock since its 1970."""
    if zone == "UTC":
        return timestamp
    times = pl.Series(timestamp).cast(pl.Datetime("ms", "UTC")).dt.convert_time_zone(zone)
    local: Ints = times.dt.replace_time_zone(None).to_physical().to_numpy()
    return local


def _holidays(place: str, days: Ints) -> npt.NDArray[np.bool_]:
    """Which days since 1970 are public holidays."""
    different, back = np.unique(days.clip(_FIRST_DAY, _LAST_DAY), return_inverse=True)
    known = np.fromiter((_is_holiday(place, day) for day in different.tolist()), np.bool_, len(different))
    return known[back]


@lru_cache(maxsize=100_000)
def _is_holiday(place: str, day: int) -> bool:
    return datetime.date.fromordinal(_EPOCH_DAY + day) in _calendar(place)


@lru_cache
def _calendar(place: str) -> dict[datetime.date, str]:
    """The public holidays of a country or its subdivision. Raises `BundleError` for one that isn't known."""
    try:
        import holidays
    except ImportError:
        raise BundleError("holidays need the `calendar` extra: pip install 'stream-gru[calendar]'") from None
    country, _, subdivision = place.partition("-")
    try:
        return holidays.country_holidays(country, subdiv=subdivision or None)
    except NotImplementedError:
        places = holidays.list_supported_countries(include_aliases=False)
        known = (
            f"{country} has {', '.join(places[country])}"
            if country in places
            else f"there are {', '.join(sorted(places))}"
        )
        raise BundleError(f"context.holidays: no holidays are known for {place!r}; {known}") from None
