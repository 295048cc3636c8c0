"""Which fields name the series, are values, or are covariates."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from stream_gru.errors import SettingsError
from stream_gru.records.dead_letters import Reason
from tests.support.payloads import NOW, codec, decode


@pytest.mark.parametrize(
    ("payload", "series"),
    [
        (b'{"s":"a"}', b"a"),
        (b'{"s":42}', b"42"),
        (b'{"s":-7}', b"-7"),
        (b'{"s":123456789012345678901234567890}', b"123456789012345678901234567890"),
        ('{"s":"Zürich \\"1\\""}'.encode(), 'Zürich "1"'.encode()),
        (b'{"s":"\\u00e9\\n"}', "é\n".encode()),
        (b'{"s":"a","s":"b"}', b"b"),
        (b'{"s":""}', Reason.KEY_MISSING),
        (b'{"s":"%s"}' % (b"k" * 257), Reason.KEY_TOO_LARGE),
        (b'{"s":%s}' % (b"9" * 257), Reason.KEY_TOO_LARGE),
        (b'{"s":%s}' % (b"9" * 5000), Reason.INVALID_SERIES),
        (b'{"s":null}', Reason.INVALID_SERIES),
        (b'{"s":true}', Reason.INVALID_SERIES),
        (b'{"s":1.0}', Reason.INVALID_SERIES),
        (b'{"s":["a"]}', Reason.INVALID_SERIES),
        (b'{"S":"a"}', Reason.MISSING_FIELD),
    ],
    ids=lambda x: str(x)[:40],
)
def test_a_field_names_the_series(payload: bytes, series: bytes | Reason) -> None:
    payload = payload[:-1] + b',"timestamp":1700000000000,"value":1}'
    other = b'{"s":"other","timestamp":1700000000000,"value":2}'
    for batch in ([payload], [other, payload]):
        decoded = decode([*batch], series=("s",))
        if isinstance(series, Reason):
            assert decoded.bad == {len(batch) - 1: series}
        else:
            assert decoded.bad == {}
            assert decoded.series[-1] == series
        assert decoded.series[:-1] == [b"other"] * (len(batch) - 1)


def test_several_fields_name_the_series_and_a_dot_leads_into_an_object() -> None:
    mapping: dict[str, Any] = {"series": ("site", "meta.id"), "timestamp": r"meta.ti\.me", "values": ("data.x", "y")}
    good = b'{"site":"north","meta":{"id":42,"ti.me":1700000000000},"data":{"x":1.5,"z":0},"y":null}'
    decoded = decode([good, good.replace(b"42", b'"a"')], **mapping)
    assert decoded.bad == {}
    assert decoded.series == [b"north/42", b"north/a"]
    np.testing.assert_array_equal(decoded.value, [[1.5, np.nan]] * 2)
    for wrong, said in {
        b'{"site":"north"}': "there is no field 'meta.id'",
        good.replace(b'{"id"', b'{"ID"'): "there is no field 'meta.id'",
        good.replace(b'{"x":1.5,"z":0}', b"7"): "there is no field 'data.x'",
        good.replace(b'{"x":1.5,"z":0}', b"null"): "there is no field 'data.x'",
    }.items():
        refused = decode([good, wrong], **mapping)
        assert (refused.bad, refused.detail) == ({1: Reason.MISSING_FIELD}, {1: said})


COVARIATES = {"covariates": ("load", "weather.wind")}


def with_covariates(text: bytes) -> bytes:
    return b'{"timestamp":1700000000000,"value":1,%s}' % text


@pytest.mark.parametrize(
    ("text", "load_", "wind"),
    [
        (b'"load":2.5,"weather":{"wind":-3}', 2.5, -3),
        (b'"load":null,"weather":{"wind":null}', None, None),
        (b'"weather":{"sun":1}', None, None),
        (b'"load":1,"weather":null', 1, None),
        (b'"other":"x"', None, None),
    ],
)
def test_covariates_are_further_columns_and_unknown_where_absent(
    text: bytes, load_: float | None, wind: float | None
) -> None:
    for payloads in ([with_covariates(text)], [with_covariates(text)] * 3):
        decoded = decode([*payloads], **COVARIATES)
        assert not decoded.bad
        expected = np.array([[1.0, load_, wind]] * len(payloads), float)
        np.testing.assert_array_equal(decoded.value, expected)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b'"load":"2.5"', Reason.INVALID_VALUE),
        (b'"load":true', Reason.INVALID_VALUE),
        (b'"weather":{"wind":[1]}', Reason.INVALID_VALUE),
        (b'"load":1e999', Reason.VALUE_OUT_OF_RANGE),
        (b'"load":2e30', Reason.VALUE_OUT_OF_RANGE),
        (b'"weather":5', Reason.MISSING_FIELD),
    ],
)
def test_a_covariate_that_is_no_number_is_a_dead_letter(text: bytes, reason: Reason) -> None:
    good = with_covariates(b'"load":1')
    decoded = decode([good, with_covariates(text), good], **COVARIATES)
    assert decoded.bad == {1: reason}
    np.testing.assert_array_equal(decoded.value[[0, 2]], [[1, 1, np.nan]] * 2)


def test_a_covariate_in_an_object_that_a_value_needs() -> None:
    fields = {"values": ("air.temperature",), "covariates": ("air.wind",)}
    decoded = decode([b'{"timestamp":1,"air":{"temperature":4}}', b'{"timestamp":1,"air":null}'], **fields)
    assert decoded.bad == {1: Reason.MISSING_FIELD}
    np.testing.assert_array_equal(decoded.value[0], [4, np.nan])


def test_a_field_is_a_value_or_a_covariate() -> None:
    with pytest.raises(SettingsError, match="'value' is named twice"):
        codec(covariates=("value",))


def test_readings_without_covariates_are_encoded_with_none() -> None:
    made = codec(**COVARIATES)
    for value in (np.array([[1.0]]), np.array([[1.0, np.nan, np.nan]])):
        payload = made.encode_readings([b"a"], np.array([NOW]), value)[0]
        assert payload == b'{"timestamp":1700000000000,"value":1.0,"load":null,"weather":{"wind":null}}'
