"""A model on disk: a folder with `bundle.json` (what it is) and `weights.safetensors`; no pickle anywhere."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from safetensors import SafetensorError
from safetensors.torch import load as load_weights
from safetensors.torch import save as save_weights

from stream_gru.detection.alert import Limits
from stream_gru.errors import BundleError
from stream_gru.features import Kind as Features
from stream_gru.models.context import Context
from stream_gru.models.forecaster import Forecaster
from stream_gru.models.network import Network
from stream_gru.models.scaling import Scaling

FORMAT = 2  # of `bundle.json`: raised when an older one can no longer be read as it was meant
DESCRIPTION = "bundle.json"
WEIGHTS = "weights.safetensors"
SHIPPED = {folder.name: folder for folder in sorted((Path(str(files("stream_gru.models"))) / "bundles").iterdir())}
DEFAULT = SHIPPED["zero-shot"]
_FARTHEST_LEAD = 96  # steps: every series keeps as many forecasts, and a farther one misses what comes in between


class Description(BaseModel):
    """What `bundle.json` holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = FORMAT
    name: str = Field(min_length=1, max_length=100)
    features: Features = Field("light", description="what the network sees of the past")
    network: Network = Network()
    horizons: tuple[int, ...] = Field((12, 36), min_length=1, description="steps ahead")
    context: Context = Context()
    scaling: Scaling = Scaling()
    missing: Literal["mask", "forward", "forecast"] = Field(
        "mask", description="a missing value is left out, or the last one or the model's own forecast takes its place"
    )
    alarms: Limits | None = Field(
        None, description="thresholds by expected alerts, as `stream-gru calibrate` finds them"
    )
    weights_sha256: str = ""
    training: dict[str, Any] = Field(default_factory=dict, description="how it was made, for people")

    @property
    def lead(self) -> int:
        """Which horizon detection waits for: the farthest one of at most 96 steps, if any is that near."""
        return max((step for step in self.horizons if step <= _FARTHEST_LEAD), default=self.horizons[0])

    @field_validator("horizons")
    @classmethod
    def _ascending(cls, horizons: tuple[int, ...]) -> tuple[int, ...]:
        if min(horizons) < 2 or max(horizons) > 1000 or sorted(set(horizons)) != list(horizons):
            raise ValueError("steps between 2 and 1000, ascending")
        return horizons


@dataclass(frozen=True)
class Bundle:
    """A loaded model."""

    description: Description
    forecaster: Forecaster
    digest: str  # sha256 over both files, hex

    @property
    def name(self) -> str:
        """What outputs say in `model`: the name and the start of the digest."""
        return f"{self.description.name}@{self.digest[:12]}"

    @property
    def horizons(self) -> tuple[int, ...]:
        """The farther steps that are forecast."""
        return self.description.horizons


def build(description: Description) -> Forecaster:
    """The network that a description means, with initial weights."""
    return Forecaster(description.network, description.horizons, description.context.size, description.features)


def save(folder: Path, description: Description, forecaster: Forecaster) -> Bundle:
    """Write a bundle; its parts appear whole or not at all."""
    weights = save_weights({name: tensor.contiguous() for name, tensor in forecaster.state_dict().items()})
    final = description.model_copy(update={"weights_sha256": hashlib.sha256(weights).hexdigest()})
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in ((WEIGHTS, weights), (DESCRIPTION, final.model_dump_json(indent=2).encode() + b"\n")):
        partial = folder / f".{name}.partial"
        partial.write_bytes(content)
        partial.replace(folder / name)
    return load(folder)


def load(folder: Path | None = None) -> Bundle:
    """Read a bundle: a folder, or the name of one in the package; none: `zero-shot`, the package's default.

    Raises `BundleError` for whatever is wrong with it.
    """
    folder = find(folder)
    return parse(read(folder), str(folder))


def find(folder: Path | None) -> Path:
    """The folder that is meant: none is the default's, and the name of one in the package is that one's."""
    folder = DEFAULT if folder is None else folder
    return folder if folder.exists() else SHIPPED.get(str(folder), folder)


def read(folder: Path) -> dict[str, bytes]:
    """A bundle's files by name. Raises `BundleError` for a folder without them."""
    try:
        return {name: (folder / name).read_bytes() for name in (DESCRIPTION, WEIGHTS)}
    except OSError as error:
        raise BundleError(
            f"{folder} is not a model bundle: {error.strerror} ({error.filename}); "
            f"a bundle is a folder with {DESCRIPTION} and {WEIGHTS}, as `stream-gru train --out` writes it, or one of "
            f"{', '.join(SHIPPED)}"
        ) from None


def parse(files: Mapping[str, bytes], where: str) -> Bundle:
    """The bundle that `read` read, or the group's from the store; errors say that it is at `where`.

    Raises `BundleError` for whatever is wrong with it.
    """
    if missing := [name for name in (DESCRIPTION, WEIGHTS) if name not in files]:
        raise BundleError(f"{where} has no {' and no '.join(missing)}")
    text, weights = files[DESCRIPTION], files[WEIGHTS]
    try:
        found = json.loads(text).get("format")
        if found != FORMAT:
            raise BundleError(f"{where}/{DESCRIPTION}: format {found!r}, this version reads {FORMAT}; train it again")
        description = Description.model_validate_json(text)
    except (ValidationError, ValueError, AttributeError) as error:
        reason = _first(error) if isinstance(error, ValidationError) else error
        raise BundleError(f"{where}/{DESCRIPTION}: {reason}") from None
    actual = hashlib.sha256(weights).hexdigest()
    if actual != description.weights_sha256:
        raise BundleError(
            f"{where}/{WEIGHTS} is damaged: its sha256 is {actual[:12]}..., {DESCRIPTION} says "
            f"{description.weights_sha256[:12]}...; copy the bundle again"
        )
    forecaster = build(description)
    try:
        forecaster.load_state_dict(load_weights(weights))
    except (RuntimeError, ValueError, SafetensorError) as error:
        raise BundleError(
            f"{where}/{WEIGHTS} does not fit {DESCRIPTION}: {str(error).splitlines()[-1].strip()}"
        ) from None
    return Bundle(description, forecaster.eval().requires_grad_(False), hashlib.sha256(text + weights).hexdigest())


def _first(error: ValidationError) -> str:
    problem = error.errors()[0]
    return f"{'.'.join(map(str, problem['loc']))}: {problem['msg'].removeprefix('Value error, ')}"
