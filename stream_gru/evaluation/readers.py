"""The data of the benchmarks, as published: one reader a suite, each folder beside the others in one place.

Where a data set gives no times they start on Monday 2020-01-06, 00:00 UTC, at the rate that its authors name.
"""

from __future__ import annotations

import gzip
import json
import zipfile
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from stream_gru.columns import DAY_MS, HOUR_MS, Floats, Ints
from stream_gru.errors import DataError
from stream_gru.evaluation.cases import SuiteCase, runs
from stream_gru.history import files as history

_START_MS = 1_578_268_800_000  # of files without times: 6 January 2020, a Monday
_MINUTE_MS = 60_000
_SKAB_WARM = 400  # rows at the start of a SKAB file that do not count: its detectors are fitted to them
_SENSORS = (
    *("Accelerometer1RMS", "Accelerometer2RMS", "Current", "Pressure", "Temperature", "Thermocouple", "Voltage"),
    "Volume Flow RateRMS",
)
_ETT = ("HUFL", "HULL", "MUFL", "MULL", "LUFL", "LULL", "OT")


def nab(data: Path) -> list[SuiteCase]:
    """Numenta Anomaly Benchmark (Lavin and Ahmad 2015): univariate files with labelled windows."""
    folder = _folder(data, "NAB", "labels/combined_windows.json", "data/*/*.csv")
    found = json.loads((folder / "labels" / "combined_windows.json").read_text("utf-8"))
    cases = []
    for name in sorted(found):
        file = folder / "data" / name
        if not file.is_file():
            continue
        table = history.read(file, "timestamp", ["value"])
        windows = tuple((_row(file, table.timestamp, a), _row(file, table.timestamp, b)) for a, b in found[name])
        cases.append(SuiteCase(name, table.timestamp, table.value, windows))
    return cases


def skab(data: Path) -> list[SuiteCase]:
    """Skoltech Anomaly Benchmark (Katser and Kozitsin 2020): a water loop, 8 sensors at 1 Hz."""
    folder = _folder(data, "SKAB", "data/*/*.csv")
    cases = []
    for file in sorted(folder.glob("data/*/*.csv")):
        if file.parent.name == "anomaly-free":
            continue
        table = history.read(file, "datetime", [*_SENSORS, "anomaly"])
        label = table.value[:, -1] > 0
        label[:_SKAB_WARM] = False
        name = f"{file.parent.name}/{file.name}"
        cases.append(SuiteCase(name, table.timestamp, table.value[:, :-1], runs(label), min(_SKAB_WARM, len(table))))
    return cases


def smd(data: Path) -> list[SuiteCase]:
    """Server Machine Dataset (Su et al. 2019): 38 metrics a minute of each machine."""
    return _packed(_folder(data, "SMD_ASD", "SMD/*.npz"), "SMD/*.npz", _MINUTE_MS)


def asd(data: Path) -> list[SuiteCase]:
    """Application Server Dataset (Li et al. 2021): 19 metrics every five minutes."""
    return _packed(_folder(data, "SMD_ASD", "ASD/*.npz"), "ASD/*.npz", 5 * _MINUTE_MS)


def smap_msl(data: Path) -> list[SuiteCase]:
    """Spacecraft telemetry (Hundman et al. 2018): the channel itself, in which anomalies are labelled; the one-hot
    commands beside it are left out."""
    return _packed(_folder(data, "SMAP_MSL", "*/*.npz"), "*/*.npz", _MINUTE_MS, features=1)


def mscloud(data: Path) -> list[SuiteCase]:
    """Cloud Monitoring Dataset (Microsoft 2019): labelled rows of service telemetry, hourly or by the minute."""
    folder = _folder(data, "MSCloud", "data/*/*.csv")
    cases = []
    for file in sorted(folder.glob("data/*/*.csv")):
        table = history.read(file, "TimeStamp", ["Value", "Label"])
        name = f"{file.parent.name}/{file.name}"
        cases.append(SuiteCase(name, table.timestamp, table.value[:, :1], runs(table.value[:, 1] > 0)))
    return cases


def ett(data: Path) -> list[SuiteCase]:
    """ETTh1 (Zhou et al. 2021), a case a column: two years of hours of a transformer."""
    folder = _folder(data, "ETT", "ETTh1.csv")
    table = history.read(folder / "ETTh1.csv", "date", _ETT)
    return [SuiteCase(name, table.timestamp, table.value[:, [i]], group="ETTh1") for i, name in enumerate(_ETT)]


def m4(data: Path) -> list[SuiteCase]:
    """M4 hourly (Makridakis et al. 2020), the training part and then the 48 values to forecast; `warm` is the first."""
    folder = _folder(data, "M4", "Dataset/Train/Hourly-train.csv", "Dataset/Test/Hourly-test.csv")
    train, test = (_rows(folder / "Dataset" / part / f"Hourly-{part.lower()}.csv") for part in ("Train", "Test"))
    if missing := sorted(train.keys() - test.keys()):
        raise DataError(f"{folder}/Dataset/Test/Hourly-test.csv lacks {len(missing)} series, {missing[0]} for one")
    cases = []
    for name, values in train.items():
        whole = np.concatenate([values, test[name]])
        cases.append(SuiteCase(name, _times(len(whole), HOUR_MS), whole[:, None], warm=len(values), group="M4 hourly"))
    return cases


def one_step(data: Path) -> list[SuiteCase]:
    """Everything that is forecast one step ahead, a case a series: the whole stream, of SMD and ASD the train part."""
    cases = [*_univariate(ett(data), "ETTh1"), *_univariate(m4(data), "M4 hourly")]
    cases += _univariate([case for case in nab(data) if case.name.startswith("real")], "NAB real")
    cases += _univariate(mscloud(data), "MSCloud")
    cases += _univariate(smd(data), "SMD")
    cases += _univariate(asd(data), "ASD")
    return cases + _exchange(data)


READERS: dict[str, Callable[[Path], list[SuiteCase]]] = {
    "nab": nab,
    "skab": skab,
    "smd": smd,
    "asd": asd,
    "smap_msl": smap_msl,
    "mscloud": mscloud,
    "ett": ett,
    "m4": m4,
    "one-step": one_step,
}


def _exchange(data: Path) -> list[SuiteCase]:
    """Daily exchange rates of 8 countries (Lai et al. 2018)."""
    folder = _folder(data, "exchange_rate", "exchange_rate*.txt.gz")
    file = next(iter(sorted(folder.glob("exchange_rate*.txt.gz"))))
    with gzip.open(file, "rt") as text:
        values = np.loadtxt(text, delimiter=",", ndmin=2)
    times = _times(len(values), DAY_MS)
    return [SuiteCase(f"exchange {i + 1}", times, values[:, [i]], group="exchange") for i in range(values.shape[1])]


def _univariate(cases: Sequence[SuiteCase], group: str) -> list[SuiteCase]:
    """A case a feature; of what has a part that is fed first and labels after it, that part."""
    split = []
    for case in cases:
        end = case.warm if case.warm and case.windows else len(case)
        for i in range(case.value.shape[1]):
            name = f"{case.name} {i + 1}" if case.value.shape[1] > 1 else case.name
            split.append(SuiteCase(name, case.timestamp[:end], case.value[:end, [i]], group=group))
    return split


def _packed(folder: Path, pattern: str, interval: int, features: int | None = None) -> list[SuiteCase]:
    """Arrays `train`, `test` and `label`; the train part is fed first."""
    cases = []
    for file in sorted(folder.glob(pattern)):
        try:
            # Opened here: numpy leaves a file that is no archive open.
            with file.open("rb") as content, np.load(content, allow_pickle=False) as arrays:
                train, test, label = (arrays[name] for name in ("train", "test", "label"))
        except (KeyError, ValueError, OSError, zipfile.BadZipFile) as error:
            raise DataError(f"{file} must hold the arrays train, test and label: {error}") from None
        value = np.concatenate([train, test]).astype(np.float64)[:, :features]
        name = file.relative_to(folder).with_suffix("").as_posix()
        windows = runs(label.ravel() > 0, len(train))
        cases.append(SuiteCase(name, _times(len(value), interval), value, windows, len(train)))
    return cases


def _rows(file: Path) -> dict[str, Floats]:
    """M4's wide tables: a name, then values, then empty cells."""
    table = pl.read_csv(file, infer_schema_length=None)
    names, values = table[:, 0].to_list(), table[:, 1:].cast(pl.Float64).to_numpy()
    return {name: row[np.isfinite(row)] for name, row in zip(names, values, strict=True)}


def _times(n: int, interval: int) -> Ints:
    return _START_MS + np.arange(n, dtype=np.int64) * interval


def _row(file: Path, times: Ints, text: Any) -> int:
    at = round(datetime.fromisoformat(f"{text}+00:00").timestamp() * 1000)
    found = np.flatnonzero(times // 1000 == at // 1000)
    if not len(found):
        raise DataError(f"{file} has no row of {text}, where a labelled window begins or ends")
    return int(found[0])


def _folder(data: Path, name: str, *wanted: str) -> Path:
    """The folder of a data set, under `data` or `data` itself. Raises `DataError` with the layout that is expected."""
    for folder in (data / name, data):
        if all(any(folder.glob(pattern)) for pattern in wanted):
            return folder
    layout = " and ".join(f"{name}/{pattern}" for pattern in wanted)
    raise DataError(f"{data} does not hold {name}: {layout} must lie in it")
