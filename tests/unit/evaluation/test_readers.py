"""The readers of the benchmarks' data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from stream_gru.errors import DataError
from stream_gru.evaluation import readers
from stream_gru.evaluation.cases import SuiteCase
from stream_gru.evaluation.suite import Suite
from stream_gru.evaluation.suites import cases
from tests.support import evaluation_data
from tests.support.evaluation_data import ROWS, daily


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return evaluation_data.write(tmp_path_factory.mktemp("data"))


def test_nab(data: Path) -> None:
    a, b = readers.nab(data)  # the file that is labelled but not there is left out
    assert (a.name, a.windows, b.windows) == ("realOne/a.csv", ((295, 319),), ())
    np.testing.assert_allclose(a.value[:, 0], daily(1, at=(300, 304)), atol=1e-6)
    assert np.unique(np.diff(a.timestamp)).tolist() == [3_600_000]
    assert [case.name for case in readers.nab(data / "NAB")] == [a.name, b.name]  # the folder itself will do


def test_skab_without_the_normal_run_and_the_labels(data: Path) -> None:
    other, valve = readers.skab(data)
    assert (other.name, valve.name) == ("other/1.csv", "valve1/1.csv")
    assert other.value.shape == (ROWS, 8)
    assert (valve.warm, valve.windows) == (400, ((450, 459),))
    assert np.flatnonzero(valve.labels).tolist() == list(range(50, 60))


@pytest.mark.parametrize(
    ("suite", "features", "interval"), [("smd", 3, 60_000), ("asd", 2, 300_000), ("smap_msl", 1, 60_000)]
)
def test_train_and_test_in_sequence(data: Path, suite: str, features: int, interval: int) -> None:
    (case,) = readers.READERS[suite](data)
    assert case.value.shape == (2 * ROWS, features)
    assert (case.warm, case.windows) == (ROWS, ((800, 809),))
    np.testing.assert_allclose(case.value[:, 0], daily(0, 2 * ROWS, (800, 809)), rtol=1e-6)
    assert set(np.diff(case.timestamp).tolist()) == {interval}
    assert case.days == pytest.approx(ROWS * interval / 86_400_000)


def test_mscloud_with_a_missing_value(data: Path) -> None:
    a, b = readers.mscloud(data)
    assert (a.windows, b.windows) == (((300, 309),), ())
    assert np.flatnonzero(np.isnan(a.value[:, 0])).tolist() == [40]


def test_ett_and_m4(data: Path) -> None:
    assert [case.name for case in readers.ett(data)] == ["HUFL", "HULL", "MUFL", "MULL", "LUFL", "LULL", "OT"]
    one, two = readers.m4(data)
    assert (one.name, two.name, len(one), one.warm) == ("H1", "H2", 748, 700)
    np.testing.assert_allclose(two.value[:, 0], daily(2, 748), atol=1e-5)


def test_one_step_takes_each_column_and_no_labelled_part_of_what_has_a_train_part(data: Path) -> None:
    found = cases(Suite.one_step, data)
    count = {group: sum(case.group == group for case in found) for group in dict.fromkeys(c.group for c in found)}
    assert count == {"ETTh1": 7, "M4 hourly": 2, "NAB real": 2, "MSCloud": 2, "SMD": 3, "ASD": 2, "exchange": 3}
    lengths = {case.group: len(case) for case in found}
    assert lengths["SMD"] == lengths["ASD"] == lengths["NAB real"] == lengths["MSCloud"] == ROWS
    assert lengths["M4 hourly"] == 748
    assert all(case.value.shape[1] == 1 for case in found)


def test_a_quick_look_keeps_the_rows_around_the_first_scored_one() -> None:
    case = SuiteCase("x", np.arange(100), np.arange(100.0)[:, None], ((10, 12), (65, 75), (90, 95)), warm=60)
    short = case.head(10)
    assert short.value[:, 0].tolist() == list(range(50, 70))
    assert (short.warm, short.windows) == (10, ((15, 19),))
    assert case.head(None) is case
    assert np.array_equal(short.labels, case.labels[:10])


@pytest.mark.parametrize("suite", list(Suite))
def test_what_is_missing_is_named_with_the_layout(tmp_path: Path, suite: Suite) -> None:
    with pytest.raises(DataError, match=r"does not hold \w+: \w+/.* must lie in it"):
        cases(suite, tmp_path)
    with pytest.raises(DataError, match="there is no folder"):
        cases(suite, tmp_path / "nowhere")


def test_damaged_files_are_named(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "SMD_ASD" / "SMD"
    folder.mkdir(parents=True)
    np.savez(folder / "machine.npz", train=np.zeros((3, 2)))
    with pytest.raises(DataError, match=r"machine\.npz must hold the arrays train, test and label"):
        readers.smd(tmp_path)
    (folder / "machine.npz").write_bytes(b"PK\x03\x04 no archive")
    with pytest.raises(DataError, match=r"machine\.npz"):
        readers.smd(tmp_path)
    with pytest.raises(DataError, match="--limit"):
        cases(Suite.m4, data, limit=10)


def test_a_window_without_its_row_is_named(data: Path, tmp_path: Path) -> None:
    labels = tmp_path / "NAB" / "labels"
    labels.mkdir(parents=True)
    (labels / "combined_windows.json").write_text('{"r/a.csv": [["2031-01-01 00:00:00.0", "2031-01-02 00:00:00.0"]]}')
    file = tmp_path / "NAB" / "data" / "r" / "a.csv"
    file.parent.mkdir(parents=True)
    file.write_text("timestamp,value\n2024-01-01 00:00:00,1\n")
    with pytest.raises(DataError, match=r"a\.csv has no row of 2031-01-01"):
        readers.nab(tmp_path)
