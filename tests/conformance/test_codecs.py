"""What every codec keeps to. A new file in stream_gru/codecs is found by its name and tested with nothing added."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from stream_gru import codecs
from stream_gru.codecs import Codec, Decoded
from stream_gru.columns import Forecasts, Ints, Level
from stream_gru.errors import DataError, SettingsError
from stream_gru.records.dead_letters import Reason
from stream_gru.settings import Input

NOW = 1_700_000_000_000
MAPPINGS: dict[str, dict[str, Any]] = {
    "key": {},
    "field": {"series": ("sensor",), "timestamp": "time", "timestamp_format": "s"},
    "fields": {"series": ("site", "meta.sensor"), "timestamp": "meta.at", "timestamp_format": "us"},
    "features": {"values": ("temperature", "humidity", "air.pressure"), "timestamp_format": "iso"},
    "nanoseconds": {"timestamp_format": "ns"},
    "covariates": {"covariates": ("load", "weather.wind", "weather.sun")},
}
every_codec = pytest.mark.parametrize("name", codecs.names())
every_mapping = pytest.mark.parametrize("mapping", MAPPINGS)

names = st.text(st.characters(exclude_characters="/", exclude_categories=["Cs"]), min_size=1, max_size=20)
timestamps = st.integers(-(10**12), NOW)
values = st.none() | st.floats(-1e30, 1e30)


def load(name: str, mapping: str = "key", horizons: tuple[int, ...] = (), **limits: Any) -> tuple[Codec, Input]:
    settings = Input(codec=name, **MAPPINGS[mapping], **limits)
    return codecs.load(settings, horizons), settings


def decode(codec: Codec, keys: list[bytes | None], payloads: list[bytes | None], now: int = NOW) -> Decoded:
    return codec.decode(keys, payloads, np.full(len(payloads), now))


def readings(codec: Codec, settings: Input, n: int) -> tuple[list[bytes], Ints, list[bytes]]:
    """N good readings: series, timestamps and payloads."""
    parts = max(1, len(settings.series))
    series = ["/".join(f"s{i}" for _ in range(parts)).encode() for i in range(n)]
    timestamp = NOW - np.arange(n)
    value = np.arange(n)[:, None] + np.arange(len(settings.values)) / 4
    return series, timestamp, codec.encode_readings(series, timestamp, value)


def row(decoded: Decoded, i: int) -> tuple[object, ...]:
    """What is said of one record, comparable: a NaN equals a NaN."""
    if i in decoded.bad:
        return decoded.bad[i], decoded.detail[i]
    return decoded.series[i], int(decoded.timestamp[i]), decoded.value[i].tobytes()


@st.composite
def reading_columns(draw: st.DrawFn, settings: Input) -> tuple[list[bytes], Ints, list[list[float | None]]]:
    n = draw(st.integers(0, 6))
    parts = max(1, len(settings.series))
    series = draw(st.lists(st.lists(names, min_size=parts, max_size=parts).map("/".join), min_size=n, max_size=n))
    f = len(settings.values) + len(settings.covariates)
    table = draw(st.lists(st.lists(values, min_size=f, max_size=f), min_size=n, max_size=n))
    timestamp = draw(st.lists(timestamps, min_size=n, max_size=n))
    return [s.encode() for s in series], np.array(timestamp, np.int64), table


@every_codec
@every_mapping
@examples(deadline=None)
@given(data=st.data())
def test_readings_come_back_exactly(name: str, mapping: str, data: st.DataObject) -> None:
    codec, settings = load(name, mapping)
    series, timestamp, table = data.draw(reading_columns(settings))
    value = np.array(table, float).reshape(len(series), len(settings.values) + len(settings.covariates))
    decoded = decode(codec, list(series), list(codec.encode_readings(series, timestamp, value)))
    assert decoded.bad == {}
    assert decoded.series == series
    np.testing.assert_array_equal(decoded.timestamp, timestamp)
    np.testing.assert_array_equal(decoded.value, value)


@st.composite
def hostile(draw: st.DrawFn, good: list[bytes]) -> bytes | None:
    """Anything at all, and what is nearly right: pieces of good payloads, in any order, with bytes between."""
    piece = st.sampled_from(good).flatmap(
        lambda payload: st.tuples(st.integers(0, len(payload)), st.integers(0, len(payload))).map(
            lambda ends: payload[min(ends) : max(ends)]
        )
    )
    pieces = st.lists(piece | st.binary(max_size=4) | st.sampled_from(good), max_size=4).map(b"".join)
    return draw(st.none() | st.binary(max_size=40) | pieces)


@pytest.mark.slow
@every_codec
@every_mapping
@examples(deadline=None)
@given(data=st.data())
def test_no_record_changes_what_becomes_of_another(name: str, mapping: str, data: st.DataObject) -> None:
    codec, settings = load(name, mapping)
    series, timestamp, good = readings(codec, settings, 3)
    whole: st.SearchStrategy[bytes | None] = st.sampled_from(good)
    payloads = data.draw(st.lists(whole | hostile(good), max_size=8))
    keys: list[bytes | None] = data.draw(
        st.lists(
            st.sampled_from(series) | st.none() | st.binary(max_size=300), min_size=(n := len(payloads)), max_size=n
        )
    )
    together = decode(codec, keys, payloads)
    alone = [decode(codec, [key], [payload]) for key, payload in zip(keys, payloads, strict=True)]
    assert [row(together, i) for i in range(n)] == [row(one, 0) for one in alone]
    assert set(together.detail) == set(together.bad)
    assert all(together.series[i] == b"" for i in together.bad)
    columns = len(settings.values) + len(settings.covariates)
    assert [len(together.series), *together.timestamp.shape, *together.value.shape] == [n, n, n, columns]
    for i, payload in enumerate(payloads):
        if payload in good and keys[i] in series:
            assert together.timestamp[i] == timestamp[good.index(payload)]


@every_codec
@every_mapping
def test_a_payload_cut_in_two_is_two_dead_letters(name: str, mapping: str) -> None:
    codec, settings = load(name, mapping)
    series, timestamp, good = readings(codec, settings, 3)
    for cut in range(1, len(good[1])):
        payloads: list[bytes | None] = [good[0], good[1][:cut], good[1][cut:], good[2]]
        decoded = decode(codec, [series[0], series[1], series[1], series[2]], payloads)
        assert set(decoded.bad) == {1, 2}
        assert [decoded.series[0], decoded.series[3]] == [series[0], series[2]]
        assert decoded.timestamp[[0, 3]].tolist() == timestamp[[0, 2]].tolist()


@every_codec
@pytest.mark.parametrize("n", [1, 2, 3, 64])
def test_limits(name: str, n: int) -> None:
    """Each on its own in every place of a batch, its neighbours unharmed."""
    codec, settings = load(name, max_payload_bytes=4096, max_key_bytes=64, max_abs_value=1e6, max_future_s=60)
    series, timestamp, good = readings(codec, settings, n)

    def payload(time: int, value: float) -> bytes:
        return codec.encode_readings([b"x"], np.array([time]), np.array([[value]]))[0]

    fine = payload(NOW, 1)
    cases: list[tuple[bytes | None, bytes | None, Reason | None]] = [
        (b"x", None, Reason.TOMBSTONE),
        (b"x", b"\x00" * 4097, Reason.PAYLOAD_TOO_LARGE),
        (None, fine, Reason.KEY_MISSING),
        (b"", fine, Reason.KEY_MISSING),
        (b"k" * 64, fine, None),
        (b"k" * 65, fine, Reason.KEY_TOO_LARGE),
        (("é" * 32).encode(), fine, None),
        (b"\xff", fine, Reason.KEY_NOT_UTF8),
        (b"\xed\xa0\x80", fine, Reason.KEY_NOT_UTF8),
        (b"x", payload(NOW + 60_000, 1), None),
        (b"x", payload(NOW + 60_001, 1), Reason.FUTURE_TIMESTAMP),
        (b"x", payload(NOW, -1e6), None),
        (b"x", payload(NOW, -1.000001e6), Reason.VALUE_OUT_OF_RANGE),
        (b"x", payload(NOW, float("nan")), None),
    ]
    for key, body, reason in cases:
        for place in range(n):
            keys: list[bytes | None] = [*series]
            payloads: list[bytes | None] = [*good]
            keys[place], payloads[place] = key, body
            decoded = decode(codec, keys, payloads)
            assert decoded.bad == ({} if reason is None else {place: reason})
            others = [i for i in range(n) if i != place]
            assert [decoded.series[i] for i in others] == [series[i] for i in others]
            assert decoded.timestamp[others].tolist() == timestamp[others].tolist()
            assert decoded.value[others, 0].tolist() == others


@every_codec
def test_a_record_without_a_time_of_its_own_has_no_future(name: str) -> None:
    codec, settings = load(name)
    series, _, good = readings(codec, settings, 1)
    assert decode(codec, [series[0]], [good[0]], now=-1).bad == {}
    assert decode(codec, [series[0]], [good[0]], now=0).bad == {0: Reason.FUTURE_TIMESTAMP}
    assert decode(codec, [series[0]], [good[0]], now=2**63 - 1).bad == {}


@every_codec
def test_the_series_of_a_field_is_checked_like_a_key(name: str) -> None:
    codec, _ = load(name, "field", max_key_bytes=8)
    series = [b"12345678", b"123456789", b"", "éééé".encode()]
    decoded = decode(codec, [None] * 4, [*codec.encode_readings(series, np.full(4, NOW), np.ones((4, 1)))])
    assert decoded.bad == {1: Reason.KEY_TOO_LARGE, 2: Reason.KEY_MISSING}
    assert decoded.series == [b"12345678", b"", b"", "éééé".encode()]


@every_codec
def test_a_series_that_the_fields_cannot_spell(name: str) -> None:
    codec, _ = load(name, "fields")
    with pytest.raises(DataError, match="joins 2 fields"):
        codec.encode_readings([b"one"], np.array([NOW]), np.ones((1, 1)))


@every_codec
@pytest.mark.parametrize(
    "wrong",
    [
        {"values": ("a", "a.b")},
        {"values": ("a", "timestamp")},
        {"series": ("a", "a")},
        {"series": ("",)},
        {"timestamp": "a..b"},
        {"values": ("a.b", r"a\.b")},
    ],
)
def test_fields_that_cannot_be_read_beside_each_other(name: str, wrong: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match="input"):
        codecs.load(Input(codec=name, **wrong), ())


quantities = st.floats(width=32, allow_infinity=False) | st.just(float("nan"))


@st.composite
def forecast_columns(draw: st.DrawFn, n: int, k: int, f: int) -> Forecasts:
    def floats(*shape: int) -> Any:
        size = int(np.prod(shape))
        return np.array(draw(st.lists(quantities, min_size=size, max_size=size)), float).reshape(shape)

    def flags() -> Any:
        return np.array(draw(st.lists(st.booleans(), min_size=n, max_size=n)), bool)

    levels = st.sampled_from([level for level in Level if level is not Level.COVERED])
    return Forecasts(
        y=floats(n, f),
        yhat=floats(n, f),
        lower=floats(n, f),
        upper=floats(n, f),
        spread=floats(n, f),
        ahead=floats(n, k, 3, f),
        anomaly_score=floats(n),
        anomaly_grade=floats(n),
        is_anomaly=flags(),
        alert_score=floats(n),
        alert=flags(),
        closes=flags(),
        relevant_attribution=floats(n, f),
        expected_values=floats(n, f),
        level=np.array(draw(st.lists(levels, min_size=n, max_size=n)), np.int8),
        quantiles=np.zeros((n, 3, f)),
        imputed=np.array(draw(st.lists(st.integers(0, 1000), min_size=n, max_size=n)), np.int64),
    )


@every_codec
@pytest.mark.parametrize("mapping", ["key", "features"])
@pytest.mark.parametrize("horizons", [(), (8,), (6, 24)])
@examples(deadline=None, max_examples=30)
@given(data=st.data())
def test_outputs_come_back(name: str, mapping: str, horizons: tuple[int, ...], data: st.DataObject) -> None:
    codec, settings = load(name, mapping, horizons)
    n = data.draw(st.integers(0, 3))
    forecasts = data.draw(forecast_columns(n, len(horizons), len(settings.values)))
    keys = data.draw(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), min_size=n, max_size=n))
    ids = [f"readings-3-{i}" for i in range(n)]
    timestamp = NOW + np.arange(n)
    payloads = codec.encode([key.encode() for key in keys], timestamp, ids, "default", forecasts)
    assert len(payloads) == n

    def same(stored: Any, row: Any, rel: float = 1e-8) -> None:
        """One number, or an object of numbers by feature."""
        assert stored.keys() == set(settings.values) if len(settings.values) > 1 else not isinstance(stored, dict)
        found = list(stored.values()) if isinstance(stored, dict) else [stored]
        assert found == [None if np.isnan(x) else pytest.approx(x, rel=rel, abs=1e-290) for x in row]

    for i, record in enumerate(map(codec.decode_output, payloads)):
        assert (record.series, record.timestamp, record.id, record.model) == (keys[i], timestamp[i], ids[i], "default")
        same(record.y, forecasts.y[i], rel=0)
        same(record.yhat, forecasts.yhat[i])
        same(record.yhat_lower, forecasts.lower[i])
        same(record.yhat_upper, forecasts.upper[i])
        if np.isnan(forecasts.spread[i]).all():
            assert record.yhat_spread is msgspec.UNSET
        else:
            same(record.yhat_spread, forecasts.spread[i])
        explained = (record.relevant_attribution, forecasts.relevant_attribution[i])
        for stored, row in (explained, (record.expected_values, forecasts.expected_values[i])):
            if len(row) == 1 or np.isnan(row).all():
                assert stored is msgspec.UNSET
            else:
                same(stored, row)
        assert [step.step for step in record.forecast] == list(horizons)
        assert record.imputed == (forecasts.imputed[i] or msgspec.UNSET)
        for k, step in enumerate(record.forecast):
            for part, quantity in enumerate((step.yhat, step.yhat_lower, step.yhat_upper)):
                same(quantity, forecasts.ahead[i, k, part])
        for score, x in (
            (record.anomaly_score, forecasts.anomaly_score[i]),
            (record.alert_score, forecasts.alert_score[i]),
        ):
            assert score is None if np.isnan(x) else score == pytest.approx(x, rel=1e-8, abs=1e-290)
            assert (score is not None and score > 1) == (x > 1)
        assert (record.is_anomaly, record.alert) == (forecasts.is_anomaly[i], forecasts.alert[i])
        assert record.level == Level(forecasts.level[i]).name.lower()


@every_codec
@examples(deadline=None)
@given(payload=st.binary(max_size=60))
def test_what_is_no_output_is_said_to_be_none(name: str, payload: bytes) -> None:
    codec, _ = load(name)
    with pytest.raises(DataError):
        codec.decode_output(payload)


def test_an_unknown_codec_is_named_beside_those_there_are() -> None:
    with pytest.raises(SettingsError, match=r"no codec 'morse'.*json"):
        codecs.load(Input(codec="morse"), ())
