"""What the row knows of a series' past, and what the network sees of it."""

from __future__ import annotations

from typing import Literal

from stream_gru.features.experts import Experts
from stream_gru.features.light import Light
from stream_gru.features.observation import OBSERVED, Arrival, Observation, imputed, observe
from stream_gru.features.set import FeatureSet, FeatureView, RowTable, asinh

__all__ = [
    "OBSERVED",
    "Arrival",
    "Experts",
    "FeatureSet",
    "FeatureView",
    "Kind",
    "Light",
    "Observation",
    "RowTable",
    "asinh",
    "find",
    "imputed",
    "observe",
]

Kind = Literal["light", "experts"]


def find(kind: Kind) -> FeatureSet:
    """The set of this name."""
    return {"light": Light, "experts": Experts}[kind]()
