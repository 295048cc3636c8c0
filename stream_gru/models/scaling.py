"""What one is, for the network: the scale of the row, which is learned online, or one that was fitted before."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from stream_gru.columns import Floats

Kind = Literal["online", "standard", "minmax", "robust"]


class Scaling(BaseModel):
    """The scale of a bundle. ``online``: each row finds its own as it goes; the others are fixed numbers a feature.

    standard: mean and standard deviation; minmax: middle and half of the range; robust: median and the distance of the
    quartiles. A fixed scale suits a fleet of equal sensors; a series of another size needs ``online``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind = "online"
    loc: tuple[float, ...] = Field((), description="one, or one a feature")
    scale: tuple[float, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Scaling:
        if self.kind == "online":
            if self.loc or self.scale:
                raise ValueError("an online scaling has no numbers")
        elif not self.loc or len(self.loc) != len(self.scale) or min(self.scale) <= 0:
            raise ValueError(f"{self.kind} scaling needs loc and a positive scale for each feature")
        return self

    def of(self, feature: np.ndarray) -> tuple[Floats, Floats] | None:
        """loc and scale of readings of these features, by number; None: online."""
        if self.kind == "online":
            return None
        feature = feature if len(self.loc) > 1 else np.zeros_like(feature)
        return np.array(self.loc)[feature], np.array(self.scale)[feature]


def fit(kind: Kind, values: list[Floats]) -> Scaling:
    """The scaling of training values, an array of any number of values for each feature; NaN are left out."""
    if kind == "online":
        return Scaling()
    pairs = [_fit(kind, column[np.isfinite(column)]) for column in values]
    loc, scale = zip(*pairs, strict=True)
    return Scaling(kind=kind, loc=loc, scale=scale)


def _fit(kind: Kind, values: Floats) -> tuple[float, float]:
    if not len(values):
        return 0.0, 1.0
    if kind == "standard":
        loc, scale = float(values.mean()), float(values.std())
    elif kind == "minmax":
        low, high = float(values.min()), float(values.max())
        loc, scale = (low + high) / 2, (high - low) / 2
    else:
        low, loc, high = (float(q) for q in np.quantile(values, [0.25, 0.5, 0.75]))
        scale = high - low
    return loc, scale if scale > 0 else 1.0
