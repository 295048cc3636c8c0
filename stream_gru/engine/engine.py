"""What users import: the model side by names and times, for notebooks and for embedding in other programs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar, overload

import numpy as np
import polars as pl
import torch
from narwhals.typing import IntoDataFrame

from stream_gru import codecs, settings
from stream_gru.columns import Floats, Forecasts, Ints, Readings
from stream_gru.engine import inputs, saved, tables, times
from stream_gru.engine.arena import ArenaFullError
from stream_gru.engine.frame import frame as output_table
from stream_gru.engine.frame import outlook
from stream_gru.engine.recall import Recall
from stream_gru.engine.row import as_bytes
from stream_gru.engine.stepper import LARGEST_STEP, MAX_ABS_VALUE, Stepper
from stream_gru.errors import DataError, SettingsError
from stream_gru.models.bundle import Bundle
from stream_gru.records.output import OutputRecord

Frame = TypeVar("Frame", bound=IntoDataFrame)
Time = int | datetime | np.datetime64

_OWN = 0  # the partition that all series are in


class Engine:
    """Scores readings of any series as they come, and learns from them.

    Parameters
    ----------
    bundle
        A model: the name of one in the package (``"zero-shot"``, the default, or ``"light"``), a folder that
        ``stream-gru train`` wrote, or a loaded one.
    features
        How many values a reading has, or their names. One is called ``value``, several ``value_1``, ``value_2``...
    capacity
        The most series that are held at once.
    device
        ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:1"``.
    threads
        CPU threads of one step. Steps are short, and one thread is the fastest for all but very large batches; what the
        rest of the process has set is as before after each call.
    detector
        What to call an anomaly.
    gaps
        What to do about missing readings.
    horizons
        Farther steps to forecast at each reading, instead of the model's own, if it can forecast any step. The one that
        detection waits for, 36 in the models of the package, is always among them.

    Raises
    ------
    BundleError
        There is no such model, or it is damaged, or made for readings of another number of features.
    SettingsError
        A parameter is not what is described here, the device is not there, or the model can't forecast the horizons.

    Examples
    --------
    >>> import numpy as np
    >>> import polars as pl
    >>> from stream_gru import Engine
    >>> minutes = np.arange(600)
    >>> value = 20 + 5 * np.sin(minutes / 60) + np.random.default_rng(0).normal(0, 0.3, 600)
    >>> value[500] += 10
    >>> readings = pl.DataFrame({"timestamp": 1_763_800_000_000 + 60_000 * minutes, "value": value})
    >>> engine = Engine("light")
    >>> out = engine.score(readings.with_columns(series=pl.lit("pump-3")))
    >>> out.filter("alert")["timestamp"].to_list() == [1_763_800_000_000 + 60_000 * 500]
    True
    """

    def __init__(
        self,
        bundle: str | Path | Bundle | None = None,
        *,
        features: int | Sequence[str] = 1,
        capacity: int = 1_000_000,
        device: str = "auto",
        threads: int = 1,
        detector: settings.Detector | None = None,
        gaps: settings.Gaps | None = None,
        horizons: Sequence[int] = (),
    ) -> None:
        self._threads = inputs.threads(threads)
        inputs.section("detector", detector, settings.Detector)
        inputs.section("gaps", gaps, settings.Gaps)
        try:
            self._stepper = Stepper(
                inputs.bundle(bundle),
                features=inputs.features(features),
                capacity=inputs.capacity(capacity),
                device=inputs.device(device),
                detector=detector,
                gaps=gaps,
                horizons=inputs.horizons(horizons),
            )
            self._clear()
        except MemoryError:
            raise SettingsError(f"capacity: the rows of {capacity:,} series do not fit in memory") from None

    def _clear(self) -> None:
        self._arena = self._stepper.arena
        if _OWN in self._arena.partitions:
            self._arena.close(_OWN)
        self._arena.open(_OWN)
        self._stepper.tape = self._recall = Recall(self._arena.bodies.view(-1, self._stepper.layout.width))
        self._scored = 0  # readings

    @property
    def features(self) -> tuple[str, ...]:
        """The names of the values of a reading."""
        return self._stepper.features

    @property
    def covariates(self) -> tuple[str, ...]:
        """The names of the numbers beside them that the model wants with each reading."""
        return self._stepper.covariates

    @property
    def steps(self) -> tuple[int, ...]:
        """Which steps ahead are forecast at each reading."""
        return self._stepper.steps

    @property
    def model(self) -> str:
        """The name and the start of the digest of the model, as outputs have it."""
        return self._stepper.bundle.name

    @property
    def series(self) -> list[str]:
        """The names of the series that are held, in the order in which they came."""
        return [name.decode() for name in self._arena.names(_OWN)]

    @overload
    def score(self, readings: Frame, /) -> Frame: ...

    @overload
    def score(
        self,
        series: Sequence[str],
        /,
        timestamp: Iterable[Any],
        value: Iterable[Any],
        covariates: Iterable[Any] | None = None,
    ) -> pl.DataFrame: ...

    def score(
        self,
        readings: Any,
        /,
        timestamp: Iterable[Any] | None = None,
        value: Iterable[Any] | None = None,
        covariates: Iterable[Any] | None = None,
    ) -> Any:
        """Score N readings of any series, in order, and learn from them.

        Call it again as more come: each series goes on where it stopped.

        Parameters
        ----------
        readings
            A data frame of polars, pandas or another library that narwhals knows, in long form: the columns ``series``
            (text), ``timestamp``, and one by the name of each feature and covariate. Or, with the parameters below,
            the series alone, N texts.
        timestamp
            (N,) epoch milliseconds or datetimes; those without a time zone are UTC.
        value
            (N,) or (N, F), in the units of the series; None and NaN are missing values.
        covariates
            (N, C) those that the model wants; None and NaN are unknown ones.

        Returns
        -------
        A frame of the same library, polars for columns, with a row for each reading and the columns of the output
        record; ``id`` counts the readings that this engine scored.

        Raises
        ------
        DataError
            A column is missing or of another type or length, a value is infinite or beyond 1e30, a time can't be epoch
            milliseconds, or there are more series than `capacity`. Nothing was scored then.
        """
        frame = tables.of(readings)
        if frame is not None and (timestamp is not None or value is not None or covariates is not None):
            raise DataError("a data frame holds all columns; give it alone")
        if frame is not None:
            table = tables.read(frame, self.features, self.covariates)
        elif timestamp is None or value is None:
            raise DataError("give a data frame, or series, timestamp and value")
        else:
            series = inputs.names(readings)
            table = tables.ReadingTable(series, timestamp, *self._numbers(len(series), value, covariates))
        when = times.epoch_ms(table.timestamp)
        ids = [str(self._scored + i) for i in range(len(when))]
        forecasts = self._step(table.series, when, table.value, table.covariates)
        scored = output_table(
            *(table.series, when, ids, forecasts),
            features=self.features,
            steps=self.steps,
            model=self.model,
        )
        return scored if frame is None else tables.like(frame, scored)

    def score_one(
        self,
        series: str,
        timestamp: Time,
        value: float | Sequence[float | None] | Mapping[str, float | None] | None,
        covariates: Sequence[float | None] | Mapping[str, float | None] | None = None,
    ) -> OutputRecord:
        """Score one reading, and learn from it.

        `timestamp` is epoch milliseconds or a datetime; `value` a number, or with several features their F numbers, in
        order or by name; None is a missing one, and so is one that is not named. `covariates` are the C that the model
        wants, in the same way.
        Returns the record that the forecasts topic would hold. Raises `DataError` as `score` does.

        Examples
        --------
        >>> from stream_gru import Engine
        >>> engine = Engine("light")
        >>> record = engine.score_one("pump-3", 1_763_800_000_000, 21.5)
        >>> record.level, record.y, record.yhat
        ('warmup', 21.5, None)
        """
        names = inputs.names([series])
        when, ids = times.epoch_ms([timestamp]), [str(self._scored)]
        more = None if covariates is None else [inputs.one(covariates, self.covariates)]
        forecasts = self._step(names, when, *self._numbers(1, [inputs.one(value, self.features)], more))
        codec = codecs.load(settings.Input(values=self.features), self.steps)
        return codec.decode_output(codec.encode([series.encode()], when, ids, self.model, forecasts)[0])

    def forecast(self, series: str | Sequence[str], steps: int) -> pl.DataFrame:
        """Forecast the next `steps` readings (1 to 1,000) of one series, or of several, from where they are.

        Returns, for each series and step, ``series``, ``step``, ``timestamp`` (epoch ms, by the usual interval of the
        series; null before its second reading), and ``yhat``, ``yhat_lower``, ``yhat_upper``, median and central 90%
        interval in the units of the series; with several features these are structs by feature. A model that can
        forecast only some steps (``light``) gives those. Learns nothing.

        Raises
        ------
        DataError
            A series is not known, or `steps` is not between 1 and 1,000.

        Examples
        --------
        >>> from stream_gru import Engine
        >>> engine = Engine()
        >>> hours = range(200)
        >>> _ = engine.score(["pump-3"] * 200, [3_600_000 * hour for hour in hours], [hour % 24 for hour in hours])
        >>> engine.forecast("pump-3", steps=3)["yhat"].round().to_list()
        [8.0, 9.0, 10.0]
        """
        steps = inputs.steps(steps, LARGEST_STEP)
        names, slots = self._known(series)
        bodies = self._bodies(slots)
        had = np.flatnonzero(self._recall.knows(bodies))
        heads = self._arena.take(slots)
        with _threads(self._threads):
            ahead_steps, some = self._stepper.ahead(*self._recall.read(bodies[had]), steps)
        ahead = np.full((len(ahead_steps), 3, len(bodies)), np.nan)
        ahead[:, :, had] = some + heads["last"].ravel()[had]
        return outlook(names, heads, ahead_steps, ahead.reshape(-1, 3, len(slots), len(self.features)), self.features)

    def reset(self, series: str | Sequence[str]) -> None:
        """Forget one series, or several: they start anew with their next reading, if there is one.

        Raises `DataError` for a series that is not known; nothing is forgotten then.
        """
        names, slots = self._known(series)
        self._recall.forget(self._bodies(slots))
        self._arena.remove(_OWN, [name.encode() for name in names])

    def save(self, path: str | Path) -> None:
        """Write all that was learned of the series to one file, so that `load` can go on from it.

        The model is not in it; raises `OutputError` where it can't be written.

        Examples
        --------
        >>> import tempfile
        >>> from stream_gru import Engine
        >>> engine = Engine("light")
        >>> _ = engine.score(["a"] * 3, [0, 60_000, 120_000], [1.0, 2.0, 3.0])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     engine.save(f"{folder}/rows.safetensors")
        ...     again = Engine("light")
        ...     again.load(f"{folder}/rows.safetensors")
        >>> again.forecast("a", 1).equals(engine.forecast("a", 1))
        True
        """
        names = self._arena.names(_OWN)
        slots = self._arena.lookup(_OWN, names)
        bodies = self._bodies(slots)
        had = np.flatnonzero(self._recall.knows(bodies))
        rows = self._arena.read(slots)
        kept = saved.Saved(self._scored, names, rows, had, *self._recall.read(bodies[had]))
        saved.write(inputs.path(path), self._identity(), kept)

    def load(self, path: str | Path) -> None:
        """Go on from a file that `save` wrote, in the place of all that is held.

        Raises `DataError` for a file that is none, or is of another model, other features or another version; nothing
        has changed then.
        """
        found = saved.read(inputs.path(path), self._identity())
        if len(found.names) > self._stepper.capacity:
            raise DataError(self._full(len(found.names)))
        self._clear()
        self._scored = found.scored
        slots = self._arena.insert(_OWN, found.names, as_bytes(found.rows))
        self._arena.mark_dirty(slots)  # no store has them: they must not be evicted
        self._recall.write(self._bodies(slots)[found.had], found.before, found.given)

    def _step(self, series: Sequence[str], when: Ints, value: Floats, covariates: Floats) -> Forecasts:
        """Check N readings, then step them."""
        if not len(series) == len(when) == len(value) == len(covariates):
            raise DataError(f"{len(series)} series, {len(when)} times and {len(value)} values do not fit together")
        with np.errstate(invalid="ignore"):
            beyond = (np.abs(value) > MAX_ABS_VALUE).any(1)
        if beyond.any():
            row = int(beyond.argmax())
            raise DataError(f"reading {row}: {value[row].tolist()} is infinite or larger than {MAX_ABS_VALUE:g}")
        names = [name.encode() for name in series]
        begins = np.zeros(len(names), np.bool_)
        absent = np.flatnonzero(self._arena.lookup(_OWN, names) < 0).tolist()
        begins[list({names[row]: row for row in reversed(absent)}.values())] = True
        times.refuse_seconds(when, begins)
        try:
            slots = self._arena.admit(_OWN, names)
        except ArenaFullError:
            raise DataError(self._full(len({*names, *self._arena.names(_OWN)}))) from None
        offsets = np.arange(self._scored, self._scored + len(slots))
        self._scored += len(slots)
        with _threads(self._threads):
            return self._stepper.step(Readings(slots, offsets, when, np.concatenate([value, covariates], axis=1)))

    def _numbers(self, n: int, value: Iterable[Any], covariates: Iterable[Any] | None) -> tuple[Floats, Floats]:
        """(n, F) and (n, C), NaN for what is missing."""
        unknown = np.full((n, len(self.covariates)), np.nan)
        return (
            inputs.numbers("value", value, n, self.features),
            unknown if covariates is None else inputs.numbers("covariates", covariates, n, self.covariates),
        )

    def _known(self, series: str | Sequence[str]) -> tuple[list[str], Ints]:
        """Names and slots of series. Raises `DataError`."""
        names = list(dict.fromkeys(inputs.names([series] if isinstance(series, str) else series)))
        if not names:
            raise DataError("no series is named")
        slots = self._arena.lookup(_OWN, [name.encode() for name in names])
        if len(absent := np.flatnonzero(slots < 0)):
            raise DataError(f"no reading of series {names[absent[0]]!r} was scored")
        return names, slots

    def _bodies(self, slots: Ints) -> Ints:
        """The bodies of N series, (N F,), as `Recall` counts them."""
        width = len(self.features)
        return (slots[:, None] * width + np.arange(width)).ravel()

    def _full(self, wanted: int) -> str:
        return f"{wanted} series are more than capacity={self._stepper.capacity}; make an Engine with a larger capacity"

    def _identity(self) -> saved.Identity:
        return saved.Identity(self.features, self.model, self._stepper.bundle.digest, self._stepper.layout.version)


@contextmanager
def _threads(n: int) -> Iterator[None]:
    """So many threads of torch, and then as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)
