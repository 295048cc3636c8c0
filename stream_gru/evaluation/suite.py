"""The names of the benchmarks, apart from what runs them: the command line needs no model to know them."""

from __future__ import annotations

from enum import StrEnum


class Suite(StrEnum):
    """The benchmarks."""

    nab = "nab"
    skab = "skab"
    smd = "smd"
    asd = "asd"
    smap_msl = "smap_msl"
    mscloud = "mscloud"
    ett = "ett"
    m4 = "m4"
    one_step = "one-step"
