from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from stream_gru.errors import DataError
from stream_gru.history import files as history
from stream_gru.tools.replay import merge

MS = 1_400_000_000_123


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_a_file_without_a_key_is_one_series(tmp_path: Path) -> None:
    file = write(tmp_path / "cpu.csv", "timestamp,value\n2014-05-13 16:53:20,1\n2014-05-13 16:58:20,\n")
    read = history.read(file, "timestamp", ["value"])
    assert read.series == ["cpu", "cpu"]
    assert read.timestamp.tolist() == [1_400_000_000_000, 1_400_000_300_000]
    np.testing.assert_array_equal(read.value, [[1.0], [np.nan]])


def test_keys_several_values_and_other_separators(tmp_path: Path) -> None:
    file = write(tmp_path / "a.csv", "t;unit;x;y\n1400000000;7;1.5;-2\n1400000001;8;NaN;3e2\n")
    read = history.read(file, "t", ["y", "x"], key="unit")
    assert read.series == ["7", "8"]
    np.testing.assert_array_equal(read.value, [[-2.0, 1.5], [300.0, np.nan]])


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("1400000000", MS // 1000 * 1000),
        ("1400000000.123", MS),
        (str(MS), MS),
        (str(MS * 1000 + 999), MS),
        (str(MS * 1_000_000 + 999_999), MS),
        ("2014-05-13T16:53:20.123Z", MS),
        ("2014-05-13T18:53:20.123+02:00", MS),
        ("2014-05-13 16:53:20.123", MS),
        ("2014-05-13", 1_399_939_200_000),
        ("-3600", -3_600_000),
    ],
)
def test_times(tmp_path: Path, cell: str, expected: int) -> None:
    file = write(tmp_path / "a.csv", f"t,v\n{cell},1\n")
    assert history.read(file, "t", ["v"]).timestamp.tolist() == [expected]


def test_parquet_with_its_own_times(tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    local = pl.Series([datetime(2014, 5, 13, 16, 53, 20, tzinfo=UTC)]).dt.convert_time_zone("Europe/Berlin")
    pl.DataFrame({"t": local, "v": [None]}, schema_overrides={"v": pl.Int32}).write_parquet(file)
    read = history.read(file, "t", ["v"])
    assert read.timestamp.tolist() == [1_400_000_000_000]
    assert np.isnan(read.value).all()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("t,v\n1,2\n", "no column k; it has t, v"),
        ("t,v,k\n1,2,a\n1,two,b\n", r"v is no number in row 2 \('two'\)"),
        ("t,v,k\n1,inf,a\n", "v is no number in row 1"),
        ("t,v,k\n,2,a\n", "t is empty in row 1"),
        ("t,v,k\nnoon,2,a\nnoon,2,a\n", r"t is no ISO 8601 time in row 1 \('noon'\), and 1 more"),
        ("t,v,k\n1,2,\n", "k names no series in row 1"),
        ("", "can't be read"),
    ],
)
def test_what_is_wrong_is_said_with_its_row(tmp_path: Path, text: str, message: str) -> None:
    file = write(tmp_path / "a.csv", text)
    with pytest.raises(DataError, match=message) as caught:
        history.read(file, "t", ["v"], key="k")
    assert str(file) in str(caught.value)


def test_files_that_can_not_be_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no file"):
        history.read(tmp_path / "gone.csv", "t", ["v"])
    with pytest.raises(DataError, match=r"only \.csv and \.parquet"):
        history.read(write(tmp_path / "a.xlsx", "x"), "t", ["v"])
    with pytest.raises(DataError, match="can't be read"):
        history.read(write(tmp_path / "a.parquet", "no parquet"), "t", ["v"])


def test_histories_are_merged_by_time_and_keep_their_order_at_equal_times() -> None:
    def of(names: list[str], times: list[int], values: list[float]) -> history.History:
        return history.History(names, np.array(times, np.int64), np.array(values)[:, None])

    merged = merge([of(["a", "b", "a"], [30, 10, 10], [1, 2, 3]), of(["b", "c"], [10, 20], [4, 5])])
    assert [merged.names[s] for s in merged.series] == ["b", "a", "b", "c", "a"]
    assert merged.value[:, 0].tolist() == [2, 3, 4, 5, 1]
    assert merged.timestamp.tolist() == [10, 10, 10, 20, 30]
