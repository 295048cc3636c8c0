"""What a report tells in tables: the fit, the network and the recipe."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel

from stream_gru.models.network import Network
from stream_gru.training.recipe import Recipe

if TYPE_CHECKING:  # it brings lightning, which a table doesn't need
    from stream_gru.training.fit import Fitted

_STOPPED = {
    "steps": "its steps were done",
    "time": "its time was up",
    "patience": "the held-back loss no longer fell",
    "pruned": "the search gave it up",
}


def facts(fitted: Fitted) -> dict[str, str]:
    """What was made, and how."""
    parameters = sum(weight.numel() for weight in fitted.forecaster.parameters())
    network = fitted.description.network
    usual = _flat(Network(), "")
    parts = [f"{name} {_text(value)}" for name, value in _flat(network, "").items() if value != usual[name]]
    beside = [part for part in parts if not part.startswith(("cells ", "hidden "))]
    seconds = max(fitted.seconds, 1e-9)
    facts = {
        "Network": ", ".join([" + ".join(network.cells), f"{network.hidden} units", *beside]),
        "Steps ahead": ", ".join(map(str, fitted.quality.steps)),
        "Parameters": f"{parameters:,}",
        "Size of the weights": size(4 * parameters),
        "State of the network, each series": size(4 * fitted.forecaster.network.state_size),
        "Steps": f"{fitted.steps:,}, stopped as {_STOPPED.get(fitted.stopped, fitted.stopped)}",
        "Readings learned from": f"{fitted.readings:,}",
        "Time": f"{duration(fitted.seconds)}, {fitted.readings / seconds:,.0f} readings/s",
        "Batches skipped": f"{fitted.skipped:,}",
    }
    looks = [(0, fitted.before.loss), *((check.step, check.held_back) for check in fitted.checks)]
    step, loss = min(looks, key=lambda look: look[1] if np.isfinite(look[1]) else np.inf)
    facts["Held-back loss"] = f"{fitted.before.loss:.4g} before, at best {loss:.4g} at step {step:,}, which was kept"
    return facts


def settings(recipe: Recipe) -> tuple[dict[str, str], dict[str, str]]:
    """All settings by dotted names, and those that are not as by default."""
    every, usual = _flat(recipe, ""), _flat(Recipe(), "")
    changed = {name: _text(value) for name, value in every.items() if value != usual.get(name)}
    return {name: _text(value) for name, value in every.items()}, changed


def _flat(model: BaseModel, before: str) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name in type(model).model_fields:
        value = getattr(model, name)
        flat |= _flat(value, f"{before}{name}.") if isinstance(value, BaseModel) else {before + name: value}
    return flat


def _text(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(_text, value)) or "-"
    if isinstance(value, bool):
        return str(value).lower()
    return "-" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def size(n: float) -> str:
    """Bytes for people."""
    for unit in ("bytes", "kB"):
        if n < 1000:
            return f"{n:,.3g} {unit}"
        n /= 1000
    return f"{n:,.3g} MB"


def duration(seconds: float) -> str:
    """A time for people."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"
