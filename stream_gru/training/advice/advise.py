"""A recommendation for a history, each part of it with the number that it rests on. Rules only; `traits` measures.

Where a rule comes from is said beside it. How sure it is, is part of the advice: ``sure``, ``fair`` (it mostly holds)
or ``guess`` (try both).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from stream_gru.columns import DAY_MS, HOUR_MS, WEEK_MS
from stream_gru.models import bundle as bundles
from stream_gru.models.network import VARIANTS, Network, compose
from stream_gru.settings import toml
from stream_gru.training.advice.traits import Traits
from stream_gru.training.recipe import Recipe, load

Start = Literal["packaged", "fine-tune", "scratch"]
Sure = Literal["sure", "fair", "guess"]

# Below FEW_READINGS there is little to learn from. On ETTh1 and M4 hourly fine-tuning helped from the smallest part
# tried, 2,500, on, and up to 100,000 it beat random weights each time; only above MANY_READINGS may another network
# pay.
FEW_READINGS, MANY_READINGS = 2_000, 250_000
_STRONG_SHARE = 0.3  # share of the variance that a period explains, to build a network for it
_RING_READINGS = 64  # back: what a ring of states holds at a fair price
_SLOW_READINGS = 1000  # back: what slow cells still count
_STILL_SHARE = 0.5  # wander or offsets, below which one scale suits all series
_ALIKE_RATIO = 2.0  # of spreads, below which it does
_PASSES = 40  # over the data
_HORIZONS = (12, 36)  # the package's
_FINE_TUNING_RATE = 5e-4  # of learning: a sixth of that from scratch, so that what was learned before stays


@dataclass(frozen=True, slots=True)
class AdviceReason:
    """What is advised, and why in plain words with the measured number."""

    about: str
    choice: str
    because: str
    sure: Sure


@dataclass(frozen=True, slots=True)
class Advice:
    """How to begin, the recipe for it, and the reasons."""

    start: Start
    variant: str  # the network's name
    recipe: Recipe
    reasons: list[AdviceReason] = field(default_factory=list)

    @property
    def flag(self) -> str:
        """What `stream-gru train` needs beside the recipe."""
        return " --scratch" if self.start == "scratch" else ""


def advise(traits: Traits, start: Start | None = None) -> Advice:
    """What to do with such series. `start` is how to begin if that was found out otherwise, by trying."""
    changes: dict[str, Any] = {}
    reasons: list[AdviceReason] = []

    def take(parts: Iterator[tuple[dict[str, Any], AdviceReason]]) -> None:
        for change, reason in parts:
            changes.update(change)
            reasons.append(reason)

    own = list(_model(traits))  # what only a network of their own can have
    if start is None:
        start = (
            "packaged"
            if traits.readings < FEW_READINGS
            else "scratch"
            if own and traits.readings >= MANY_READINGS
            else "fine-tune"
        )
        reasons.append(_beginning(start, traits, own))
    if start == "scratch":
        take(iter(own))
    else:
        take(_kept(start))
    take(_window(traits, start))
    take(_missing(traits))
    reasons += _notes(traits)
    recipe = load(None, changes)
    names = {**VARIANTS, "zero-shot": bundles.load().description.network} if start != "scratch" else VARIANTS
    variant = next((name for name, network in names.items() if network == recipe.network), "a network of your own")
    return Advice(start, variant, recipe, reasons)


def as_toml(advice: Advice) -> str:
    """The recipe as the file that `stream-gru train --recipe` reads, the reasons as comments; defaults are left out."""
    lines = [f"# {reason.about}: {reason.choice}. {reason.because} ({reason.sure})" for reason in advice.reasons]
    tree = advice.recipe.model_dump(mode="json", exclude_defaults=True)
    return "\n".join(lines) + "\n\n" + "\n".join(toml.lines(tree)).strip() + "\n"


def _beginning(start: Start, traits: Traits, own: list[tuple[dict[str, Any], AdviceReason]]) -> AdviceReason:
    amount = f"{traits.readings:,} readings in {traits.series:,} series"
    if start == "packaged":
        because = f"{amount}: fewer than {FEW_READINGS:,} teach little, and it was made for series that it never saw"
        return AdviceReason("start", "use the packaged model as it is", because, "sure")
    if start == "scratch":
        return AdviceReason(
            "start",
            "train from random weights",
            f"{amount} may be enough for a network of their own, and the packaged one has no {_listed(own)}; try it "
            "against the fine-tuned one",
            "guess",
        )
    because = f"{amount}: on real histories of 2,500 to 100,000 this did better than the packaged model as it is, and"
    because += " much better than random weights at the same number of steps"
    if own and traits.readings < MANY_READINGS:
        because += f". With {MANY_READINGS:,} or more a network of its own, with {_listed(own)}, would be worth a try"
    return AdviceReason("start", "fine-tune the packaged model", because, "fair")


def _listed(own: list[tuple[dict[str, Any], AdviceReason]]) -> str:
    return ", ".join(reason.about for _, reason in own)


def _kept(start: Start) -> Iterator[tuple[dict[str, Any], AdviceReason]]:
    package = bundles.load().description
    first, last = package.horizons
    yield (
        {"features": package.features, "network": package.network.model_dump(exclude_defaults=True)},
        AdviceReason(
            "features, network, horizons, scaling",
            f"those of the packaged model: {package.features}, GRU of {package.network.hidden}, {first} and {last} "
            "steps ahead, online",
            "weights fit no other network" if start == "fine-tune" else "it is used as it is",
            "sure",
        ),
    )


def _model(traits: Traits) -> Iterator[tuple[dict[str, Any], AdviceReason]]:
    """What would be another network or other inputs than the package's."""
    yield from _calendar(traits)
    yield from _network(traits)
    yield from _scaling(traits)


def _calendar(traits: Traits) -> Iterator[tuple[dict[str, Any], AdviceReason]]:
    """Weekdays, where they show. The hour of the day, in UTC, is an input of every model."""
    for period, share in ((traits.period, traits.repeats), (traits.longer, traits.repeats_longer)):
        if period and abs(period * traits.step_ms / WEEK_MS - 1) < 0.02:
            because = f"a week ({period:,} readings) explains {share:.0%} of the variance that is left to it"
            yield {"context.weekday": True}, AdviceReason("weekdays", "an input", because, "fair")


def _network(traits: Traits) -> Iterator[tuple[dict[str, Any], AdviceReason]]:
    """A memory as long as what repeats. The calendar tells the phase of a day, but not of another period."""
    period = traits.period
    if not period or traits.repeats < _STRONG_SHARE or _daily(traits):
        return
    told = f"every {period:,} readings repeat {traits.repeats:.0%} of the variance, and no clock tells where they begin"
    if 4 <= period <= _RING_READINGS:
        network = Network(attention=min(2 * period, 2 * _RING_READINGS))
        yield (
            {"network.attention": network.attention},
            AdviceReason("attention", f"over {network.attention} readings", f"{told}; {_price(network)}", "guess"),
        )
    elif _RING_READINGS < period <= _SLOW_READINGS:
        scales = 3 if period <= 4 * _RING_READINGS else 4
        network = Network(scales=scales)
        yield (
            {"network.scales": scales},
            AdviceReason(
                "multi-scale cells", f"ticking every 1 to {4 ** (scales - 1)}", f"{told}; {_price(network)}", "guess"
            ),
        )


def _price(network: Network) -> str:
    """What a row grows by."""
    more = 4 * (compose(network, 27).state_size - Network().hidden)
    return f"it costs {more:,} bytes more a series"


def _daily(traits: Traits) -> bool:
    return traits.period is not None and abs(traits.period * traits.step_ms / DAY_MS - 1) < 0.02


def _scaling(traits: Traits) -> Iterator[tuple[dict[str, Any], AdviceReason]]:
    """One scale for all, for fleets of equal sensors that stay where they are."""
    if traits.series < 2:
        return
    alike = traits.sizes < _ALIKE_RATIO and traits.offsets < _STILL_SHARE and traits.wander < _STILL_SHARE
    if alike:
        kind = "robust" if traits.spikes > 0.01 else "standard"
        because = (
            f"spreads differ {traits.sizes:.1f} times at most, levels by {traits.offsets:.1f} spreads, and they stay: "
            "a value says something by itself"
        )
        yield {"data.scaling": kind}, AdviceReason("a fixed scale", kind, because, "guess")


def _window(traits: Traits, start: Start) -> Iterator[tuple[dict[str, Any], AdviceReason]]:
    """Windows of several periods; cold starts are learned from their beginnings, so more is no gain."""
    longest = max(traits.longer or 0, traits.period or 0)
    wanted = max(512, _power(4 * longest))
    length = max(16, min(wanted, 4096, int(traits.typical * 0.68)))  # what is left to learn from of a typical series
    if length < min(wanted, 4096):
        because = f"a typical series has {traits.typical:,}, a part of which is held back"
    elif longest:
        because = f"at least four times the longest period, {longest:,} readings"
        because += "" if wanted <= 4096 else ", but for the time that longer ones take"
    else:
        because = "nothing repeats in them that asks for more"
    batch = max(8, min(64, 32_768 // length))
    yield {"data.length": length, "data.batch": batch}, AdviceReason("window", f"{length:,} readings", because, "fair")
    chunk = min(256, length)
    least = 2000 if start == "scratch" else 300
    steps = max(least, min(6000, round(_PASSES * traits.readings / (batch * chunk))))
    passes = steps * batch * chunk / max(traits.readings, 1)
    plan: dict[str, Any] = {"plan.chunk": max(chunk, 8), "plan.steps": steps, "plan.check_every": max(25, steps // 20)}
    plan |= {"plan.patience": 6, "plan.learning_rate": _FINE_TUNING_RATE if start != "scratch" else 3e-3}
    because = f"about {passes:,.0f} times over {traits.readings:,} readings; it stops early when the last part says so"
    yield plan, AdviceReason("plan", f"{steps:,} steps", because, "fair")
    period = traits.period
    if start == "scratch" and period and _HORIZONS[0] < period <= 1000:
        because = f"a whole period, {period:,} readings, ahead"
        yield {"horizons": [_HORIZONS[0], period]}, AdviceReason("horizons", f"12 and {period}", because, "fair")


def _missing(traits: Traits) -> Iterator[tuple[dict[str, Any], AdviceReason]]:
    """What takes the place of a missing value, in service as in training."""
    share = f"{traits.missing:.1%} of the readings are missing"
    if traits.missing < 0.001:
        yield {}, AdviceReason("missing values", "nothing to do", share if traits.missing else "none is", "sure")
    elif traits.irregular > 0.2:
        because = f"{traits.irregular:.0%} of the readings come off the beat: the time since the last one is an input"
        yield {"data.missing": "mask"}, AdviceReason("missing values", "leave them out", because, "fair")
    elif traits.unchanged > 0.5:
        because = f"{share}, and {traits.unchanged:.0%} repeat the one before: it is reported when it changes"
        yield {"data.missing": "forward"}, AdviceReason("missing values", "repeat the last value", because, "fair")
    elif traits.gap <= 3 and traits.missing < 0.3 and traits.noise < 0.5:
        because = f"{share}, typically {traits.gap} in a row: the model's own forecast bridges that and keeps the beat"
        yield {"data.missing": "forecast"}, AdviceReason("missing values", "forecast them", because, "guess")
    else:
        because = f"{share}, typically {traits.gap} in a row: too many to make up; the gap itself is an input"
        yield {"data.missing": "mask"}, AdviceReason("missing values", "leave them out", because, "fair")


def _notes(traits: Traits) -> list[AdviceReason]:
    """What is good to know though it changes no setting."""
    notes = [
        AdviceReason(
            "cell",
            "GRU",
            "an LSTM costs a third more and has not been better in `stream-gru compare`; a plain RNN forgets within "
            "a few readings",
            "fair",
        )
    ]
    if traits.noise > 0.3:
        because = f"{traits.noise:.0%} of the variance is white noise: no model forecasts that part"
        notes.append(AdviceReason("expect", "wide intervals", because, "sure"))
    if traits.wander > 1:
        because = (
            f"the level moves {traits.wander:.1f} times as far as the values do around it; rows follow their own level"
        )
        notes.append(AdviceReason("scaling", "online", because, "sure"))
    elif traits.sizes >= _ALIKE_RATIO:
        because = f"the largest spread of a series is {traits.sizes:,.1f} times the smallest; each row finds its own"
        notes.append(AdviceReason("scaling", "online", because, "sure"))
    if traits.irregular > 0.2:
        because = f"{traits.irregular:.0%} of the intervals are off the usual {_span(traits.step_ms)}; steps ahead are "
        notes.append(AdviceReason("expect", "steps that are no time", f"{because}readings, not time", "sure"))
    if traits.period:
        because = f"{traits.period:,} readings ({_span(traits.period * traits.step_ms)}) repeat {traits.repeats:.0%} "
        clock = "; the hour of the day is an input of every model" if _daily(traits) else ""
        notes.append(AdviceReason("period", f"{traits.period:,}", f"{because}of the variance{clock}", "fair"))
    return notes


def _power(number: int) -> int:
    """The next power of two."""
    return 1 << max(number - 1, 0).bit_length()


def _span(milliseconds: float) -> str:
    for size, unit in ((WEEK_MS, "weeks"), (DAY_MS, "days"), (HOUR_MS, "hours"), (60_000, "minutes"), (1000, "s")):
        if milliseconds >= size:
            return f"{milliseconds / size:.3g} {unit}"
    return f"{milliseconds:.3g} ms"
