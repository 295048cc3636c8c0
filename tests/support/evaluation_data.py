"""Tiny data sets in the layout of the published ones."""

from __future__ import annotations

import gzip
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from stream_gru.columns import Floats

ROWS = 500
_SENSORS = "Accelerometer1RMS;Accelerometer2RMS;Current;Pressure;Temperature;Thermocouple;Voltage;Volume Flow RateRMS"
_START = datetime(2024, 1, 1, tzinfo=UTC)


def daily(seed: int, n: int = ROWS, at: tuple[int, int] | None = None) -> Floats:
    """A daily cycle by the hour, with noise, and five times its height within `at`."""
    rng = np.random.default_rng(seed)
    values = 10 + 3 * np.sin(np.arange(n) * 2 * np.pi / 24) + rng.normal(0, 0.3, n)
    if at:
        values[at[0] : at[1] + 1] += 15
    return values


def write(root: Path) -> Path:
    """Every suite; two series each, the second one normal."""
    _nab(root / "NAB")
    _skab(root / "SKAB")
    for name, features in (("SMD_ASD/SMD/machine-1-1", 3), ("SMD_ASD/ASD/omi-1", 2), ("SMAP_MSL/MSL/C-1", 4)):
        _packed(root / f"{name}.npz", features)
    _mscloud(root / "MSCloud")
    (root / "ETT").mkdir(parents=True)
    columns = [daily(i, 15_000) for i in range(7)]
    _table(root / "ETT" / "ETTh1.csv", "date,HUFL,HULL,MUFL,MULL,LUFL,LULL,OT", columns)
    for part, n in (("Train", 700), ("Test", 48)):
        folder = root / "M4" / "Dataset" / part
        folder.mkdir(parents=True)
        begin = 0 if part == "Train" else 700
        lines = ["V1," + ",".join(f"V{i + 2}" for i in range(n + 1))]
        lines += [f'"H{i}",' + ",".join(f"{v:.5f}" for v in daily(i, 748)[begin : begin + n]) + "," for i in (1, 2)]
        (folder / f"Hourly-{part.lower()}.csv").write_text("\n".join(lines) + "\n")
    (root / "exchange_rate").mkdir()
    rates = np.random.default_rng(0).normal(0, 0.01, (ROWS, 3)).cumsum(0) + 1
    rates[:, 2] = 1  # never changes
    with gzip.open(root / "exchange_rate" / "exchange_rate.txt.gz", "wt") as text:
        np.savetxt(text, rates, delimiter=",")
    return root


def _table(file: Path, header: str, columns: list[Floats], end: str = "") -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    times = (_START + timedelta(hours=i) for i in range(len(columns[0])))
    rows = zip(times, *columns, strict=True)
    text = (",".join([f"{t:%Y-%m-%d %H:%M:%S}", *("" if np.isnan(v) else f"{v:.6f}" for v in row)]) for t, *row in rows)
    file.write_text("\n".join([header, *(line + end for line in text)]) + "\n")


def _nab(folder: Path) -> None:
    _table(folder / "data" / "realOne" / "a.csv", "timestamp,value", [daily(1, at=(300, 304))])
    _table(folder / "data" / "realOne" / "b.csv", "timestamp,value", [daily(2)])
    windows = [[f"{_START + timedelta(hours=h):%Y-%m-%d %H:%M:%S}.000000" for h in (295, 319)]]
    found = {"realOne/a.csv": windows, "realOne/b.csv": [], "realOne/elsewhere.csv": windows}
    (folder / "labels").mkdir()
    (folder / "labels" / "combined_windows.json").write_text(json.dumps(found))


def _skab(folder: Path) -> None:
    for name, marked in (
        ("valve1/1.csv", (450, 459)),
        ("other/1.csv", (430, 435)),
        ("anomaly-free/anomaly-free.csv", None),
    ):
        label = np.zeros(ROWS)
        label[100] = 1  # among the rows that are only fed
        if marked:
            label[marked[0] : marked[1] + 1] = 1
        file = folder / "data" / name
        _table(file, "datetime," + _SENSORS.replace(";", ","), [daily(i, at=marked) for i in range(8)])
        lines = file.read_text().splitlines()
        body = [f"{line.replace(',', ';')};{mark:.1f};0.0" for line, mark in zip(lines[1:], label, strict=True)]
        file.write_text("\n".join([f"datetime;{_SENSORS};anomaly;changepoint", *body]) + "\n")


def _packed(file: Path, features: int) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    whole = np.stack([daily(i, 2 * ROWS, (800, 809)) for i in range(features)], axis=1).astype(np.float32)
    label = np.zeros(ROWS, np.uint8)
    label[300:310] = 1
    np.savez(file, train=whole[:ROWS], test=whole[ROWS:], label=label)


def _mscloud(folder: Path) -> None:
    for name, marked in (("a/a-1.csv", (300, 309)), ("b/b-1.csv", None)):
        values, label = daily(5, at=marked), np.zeros(ROWS)
        values[40] = np.nan
        if marked:
            label[marked[0] : marked[1] + 1] = 1
        _table(folder / "data" / name, "TimeStamp,Value,Label", [values, label])
