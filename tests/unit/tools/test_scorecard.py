from __future__ import annotations

from stream_gru.tools.scorecard import LONGEST_MS, Detection, Scorecard, detection
from stream_gru.training.fleet import Label
from tests.support.outputs import output


def test_answers_before_and_after_their_readings_count_once() -> None:
    card = Scorecard()
    card.output(output(0), 140)  # seen before its reading
    assert card.lag == 0
    for offset in range(3):
        card.reading("my-readings", 0, offset, 100)
    assert card.lag == 2
    card.output(output(1), 110)
    card.output(output(1), 115)
    card.output(output(0), 150)
    card.dead_letter("my-readings-0-2", 100)
    card.dead_letter("my-readings-0-2", 100)
    assert (card.readings, card.outputs, card.dead_letters, card.repeated) == (3, 2, 1, 3)
    assert card.lag == 0
    assert sorted(card.recent) == [0, 10, 40]


def test_an_early_answer_that_comes_twice_is_one() -> None:
    card = Scorecard()
    card.output(output(5), 10)
    card.output(output(5), 11)
    assert (card.outputs, card.repeated) == (1, 1)


def test_unanswered_readings_are_named() -> None:
    card = Scorecard()
    card.reading("my-readings", 3, 17, 0)
    assert card.missing() == ["my-readings-3-17"]


def test_percentiles_of_latency() -> None:
    card = Scorecard()
    assert card.percentile(0.5) is None
    for offset in range(1, 101):
        card.reading("my-readings", 0, offset, 0)
        card.output(output(offset), offset)
    assert (card.percentile(0.5), card.percentile(0.99), card.percentile(1.0)) == (50, 99, 100)
    for offset, taken, counts_as in ((101, -5, 0), (102, 10**9, LONGEST_MS)):
        card.reading("my-readings", 0, offset, 0)
        card.output(output(offset), taken)
        assert card.recent[-1] == counts_as


def test_runs_of_flags() -> None:
    card = Scorecard()
    levels = ["", "flag", "missing", "flag", "late", "", "flag", "flag"]
    for offset, level in enumerate(levels):
        card.output(output(offset, flag=level == "flag", level=level.replace("flag", "")), 0)
        card.output(output(offset + 100, series="b", at=offset), 0)
    assert card.runs == {"a": [(1, 3), (6, 7)]}
    assert [flagged.output.timestamp for flagged in card.latest] == [1, 6]


def test_found_and_false_alarms() -> None:
    labels = [
        Label("a", "spike", 100, 100),
        Label("a", "drift", 200, 300),
        Label("a", "spike", 400, 400),
        Label("b", "drift", 200, 300),
        Label("b", "drift", 500, 900),  # still going on
    ]
    runs = {
        "a": [
            (50, 99),  # over before the first begins: false
            (105, 105),  # shortly after its end
            (190, 200),  # began before, but goes on into it
            (250, 320),
            (411, 420),  # too late: false
        ],
        "b": [(600, 600)],
        "c": [(200, 300)],  # another series: false
    }
    found = detection(labels, runs, margin_ms=10, until_ms=800)
    assert found.injected == {"spike": 2, "drift": 2}
    assert found.found == {"spike": 1, "drift": 1}
    assert found.false_alarms == 3


def test_one_long_run_explains_two_anomalies_and_is_no_false_alarm() -> None:
    labels = [Label("a", "spike", 10, 10), Label("a", "spike", 50, 50)]
    assert detection(labels, {"a": [(5, 100)]}, 1, 1000) == Detection({"spike": 2}, {"spike": 2}, 0)  # type: ignore[arg-type]  # counters equal dicts


def test_the_anomaly_behind_a_flag() -> None:
    card = Scorecard()
    card.labels += [Label("a", "spike", 10, 10), Label("a", "drift", 20, 30)]
    kinds = {at: card.label_of(output(at, flag=True), 5) for at in (9, 10, 15, 16, 35, 36)}
    assert {at: label and label.kind for at, label in kinds.items()} == {
        9: None,
        10: "spike",
        15: "spike",
        16: None,
        35: "drift",
        36: None,
    }
