"""How a model is made: its network, the data it learns from and the plan of the fit, as one TOML file."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from stream_gru.errors import BundleError
from stream_gru.features import Kind as Features
from stream_gru.models.cells import Scheme
from stream_gru.models.context import Context
from stream_gru.models.network import VARIANTS, Network
from stream_gru.models.scaling import Kind

SHIPPED = {file.stem: file for file in sorted((Path(str(files("stream_gru.training"))) / "recipes").glob("*.toml"))}
"""Recipes in the package, by name."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Augment(_Part):
    """How windows are varied, each time they are drawn. 0 leaves it out."""

    noise: float = Field(
        0.0,
        ge=0,
        le=10,
        description="standard deviation of added noise, in mean differences between readings of the series",
    )
    mask: float = Field(0.0, ge=0, lt=1, description="share of readings that are taken away")
    warp: float = Field(0.0, ge=0, le=1, description="how much slower or faster stretches of a window may run")


class Data(_Part):
    """What a fit learns from, and in which portions."""

    length: int = Field(1024, ge=16, le=1_000_000, description="readings in a window")
    stride: int | None = Field(
        None, ge=1, description="readings from one window to the next; unset: windows start anywhere"
    )
    batch: int = Field(64, ge=1, le=100_000, description="windows in a batch")
    tokens: int | None = Field(
        None, ge=16, description="readings in a batch, padding included, instead of `batch` windows"
    )
    recent: int | None = Field(None, ge=16, description="only the last readings of each series")
    scaling: Kind = Field(
        "online", description="each row finds its own scale; or one scale for all, fitted on the training part"
    )
    missing: Literal["mask", "forward", "interpolate", "forecast"] = Field(
        "mask",
        description="a missing value is left out (the time since the last reading is an input), or filled in",
    )
    augment: Augment = Augment()
    held_back: float = Field(0.2, gt=0, lt=1, description="share of each series, its end, that the fit never sees")


class FitPlan(_Part):
    """How a fit goes. Give `steps` for a result that can be repeated, or `minutes`; 8 minutes without either."""

    steps: int | None = Field(None, ge=1, description="optimizer steps")
    minutes: float | None = Field(None, gt=0, description="wall-clock time of the fit")
    seed: int = Field(0, ge=0, description="same seed, steps and machine: same weights")
    init: Scheme = Field("orthogonal", description="how the first weights are drawn")
    learning_rate: float = Field(3e-3, gt=0, le=10, description="learning rate of AdamW after the warm-up")
    weight_decay: float = Field(0.01, ge=0, le=10, description="weight decay of AdamW")
    clip: float = Field(1.0, gt=0, description="greatest norm of the gradient")
    accumulate: int = Field(1, ge=1, le=1000, description="batches whose gradients make one step")
    precision: Literal["32", "16-mixed", "bf16-mixed"] = Field("32", description="mixed precision is for a GPU")
    schedule: Literal["cosine", "step", "exponential", "plateau", "constant"] = Field(
        "cosine", description="how the learning rate falls after the warm-up"
    )
    warm_up: int = Field(60, ge=0, description="steps in which the learning rate rises")
    decay: float = Field(
        0.5, gt=0, lt=1, description="factor on the learning rate, for the schedules step, exponential and plateau"
    )
    decay_every: int = Field(
        1000, ge=1, description="steps from one such factor to the next; for plateau: steps without a gain"
    )
    chunk: int = Field(256, ge=8, description="readings that gradients flow back through")
    check_every: int = Field(200, ge=1, description="steps between two looks at the held-back data")
    patience: int | None = Field(None, ge=1, description="checks without a gain before an early stop")
    min_gain: float = Field(1e-3, ge=0, description="smallest gain that counts, as a share of the loss")
    max_skipped: int = Field(
        20, ge=0, description="most batches that are left out because their loss or gradient is not finite"
    )


class Recipe(_Part):
    """All of it."""

    features: Features = Field(
        "light", description="light: a few averages of the past; experts: the thirteen forecasters of zero-shot"
    )
    network: Network = Network()
    horizons: tuple[int, ...] = Field(
        (12, 36), min_length=1, description="farther steps to forecast; detection waits for the last one up to 96"
    )
    context: Context = Context()
    data: Data = Data()
    plan: FitPlan = FitPlan()

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        if min(self.horizons) < 2 or max(self.horizons) > 1000 or sorted(set(self.horizons)) != list(self.horizons):
            raise ValueError("horizons: steps between 2 and 1000, ascending")
        return self


def load(source: str | Path | None = None, assignments: Mapping[str, Any] | None = None) -> Recipe:
    """A recipe from a TOML file, the name of one in the package or of a variant, and settings by dotted names
    (``network.layers``).

    Raises `BundleError` for what is wrong, naming it.
    """
    tree: dict[str, Any] = {}
    if source is not None and str(source) in VARIANTS:
        tree = {"network": VARIANTS[str(source)].model_dump()}
    elif source is not None and str(source) in SHIPPED:
        tree = _read(SHIPPED[str(source)])
    elif source is not None:
        tree = _read(Path(source))
    for name, value in (assignments or {}).items():
        *parents, leaf = name.split(".")
        section = tree
        for parent in parents:
            section = section.setdefault(parent, {})
            if not isinstance(section, dict):
                raise BundleError(f"recipe: {name}: {parent} is no section")
        section[leaf] = value
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"]))
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            message = "there is no such setting"
        raise BundleError(f"recipe{f' {source}' if source else ''}: {where + ': ' if where else ''}{message}") from None


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text())
    except OSError as error:
        raise BundleError(
            f"{file} is neither a recipe ({error.strerror}) nor one of {', '.join([*SHIPPED, *VARIANTS])}"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BundleError(f"{file} is no TOML: {error}") from None
