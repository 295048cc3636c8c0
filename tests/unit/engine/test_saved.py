"""The file that the rows of an engine are saved in: whole, of this version, and with what there is and no more."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from safetensors import safe_open
from safetensors.torch import save_file

from stream_gru import DataError, Engine, OutputError
from stream_gru.engine import row

START = 1_763_800_000_000
NAMES = ["a", "b", "c"]


def engine() -> Engine:
    return Engine("light", capacity=3)


@pytest.mark.parametrize("value", [[1.0, None, 3.0], [None] * 3])
def test_series_without_a_value_yet_are_saved_as_such(value: list[float | None], tmp_path: Path) -> None:
    one, again = engine(), engine()
    one.score(NAMES, [START] * 3, value)
    one.save(tmp_path / "rows")
    again.load(tmp_path / "rows")
    ahead = again.forecast(NAMES, 12)
    assert ahead.equals(one.forecast(NAMES, 12))
    had = ahead.drop_nulls("yhat")["series"].unique(maintain_order=True).to_list()
    assert had == [name for name, known in zip(NAMES, value, strict=True) if known is not None]


def test_of_series_without_a_value_or_reset_nothing_is_kept(tmp_path: Path) -> None:
    one = engine()
    one.score(NAMES, [START] * 3, [1.0, None, 3.0])
    one.reset("c")
    one.score(["d"], [START], [None])  # in the place of the one that was reset
    one.save(tmp_path / "rows")
    with safe_open(tmp_path / "rows", "pt") as file:
        assert file.get_tensor("had").tolist() == [one.series.index("a")]
        assert len(file.get_tensor("before")) == 1


def test_rows_of_another_layout_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine().save(tmp_path / "rows")
    monkeypatch.setattr(row, "FORMAT", row.FORMAT + 1)
    with pytest.raises(DataError, match="belongs to the model"):
        engine().load(tmp_path / "rows")


def test_a_file_of_another_format_is_refused(tmp_path: Path) -> None:
    engine().save(file := tmp_path / "rows")
    with safe_open(file, "pt") as written:
        tensors = {name: written.get_tensor(name) for name in written.keys()}  # noqa: SIM118 - it is no mapping
        about = written.metadata()
    save_file(tensors, file, {**about, "format": "stream_gru rows 0"})
    with pytest.raises(DataError, match=r"holds no rows that Engine\.save wrote"):
        engine().load(file)


def test_a_file_that_can_not_be_written_leaves_the_one_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, again, file = engine(), engine(), tmp_path / "rows"
    one.score(["a"], [START], [1.0])
    one.save(file)

    def full(path: Path, content: bytes) -> None:
        with path.open("wb") as there:
            there.write(content[:20])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputError, match="No space left"):
        one.save(file)
    assert list(tmp_path.iterdir()) == [file]
    again.load(file)
    assert again.series == ["a"]
