"""The terms in which the output record says of each column what it is.

`records.output` notes a `Column` beside each field, once; the writer of JSON, the polars table and the documentation go
by these notes.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum, auto
from typing import NamedTuple


class ColumnKind(StrEnum):
    """What a column holds of each reading; it decides how the column is written."""

    TEXT = auto()  # known to the caller, not to the engine
    TIME = auto()  # the same, epoch ms
    READING = auto()  # a number for each feature, written as it came in
    QUANTITY = auto()  # a number for each feature, rounded
    NUMBER = auto()  # rounded
    SCORE = auto()  # rounded, but never across 1
    FLAG = auto()
    COUNT = auto()
    LEVEL = auto()  # the name of a `columns.Level`
    STEPS = auto()  # a `ForecastStep` for each step ahead
    STEP = auto()  # of a `ForecastStep`: how many readings ahead


TYPES = {
    ColumnKind.TEXT: "text",
    ColumnKind.TIME: "integer",
    ColumnKind.READING: "number, or object by feature",
    ColumnKind.QUANTITY: "number, or object by feature",
    ColumnKind.NUMBER: "number",
    ColumnKind.SCORE: "number",
    ColumnKind.FLAG: "boolean",
    ColumnKind.COUNT: "integer",
    ColumnKind.LEVEL: "text",
    ColumnKind.STEPS: "array of objects",
    ColumnKind.STEP: "integer",
}
"""Kind -> its type in JSON, for people."""


class Presence(StrEnum):
    """Which records have the column. The values are for people."""

    ALWAYS = "always"
    ENSEMBLE = "if the model is an ensemble"
    FILLED = "if it is above 0"
    EXPLAINED = "with several features, if `is_anomaly`"


@dataclass(frozen=True, slots=True)
class Column:
    """One column of the output."""

    kind: ColumnKind
    description: str  # a phrase or sentences with the unit, for the documentation
    source: str = ""  # the field of `columns.Forecasts` that it comes from, if its name is another
    when: Presence = Presence.ALWAYS


class DescribedColumn(NamedTuple):
    """A row of the output's table in the documentation."""

    name: str  # `forecast[].yhat` is the field `yhat` of each object in `forecast`
    type: str
    when: str
    description: str
