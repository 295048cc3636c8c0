from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stream_gru.tools.scorecard import Scorecard
from tests.support.outputs import output


@given(st.data())
def test_it_does_not_matter_which_topic_is_read_first(data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 20))
    answers = [*range(n), *data.draw(st.lists(st.integers(0, n - 1), max_size=10))]  # some come twice
    order = data.draw(st.permutations(["reading"] * n + ["answer"] * len(answers)))
    card = Scorecard()
    readings, waiting, given_before = iter(range(n)), iter(answers), set[int]()
    for kind in order:
        if kind == "reading":
            card.reading("my-readings", 0, next(readings), 100)
        else:
            offset = next(waiting)
            card.output(output(offset), 100 + offset + (1000 if offset in given_before else 0))
            given_before.add(offset)
        assert card.lag <= n - card.outputs
    assert (card.outputs, card.repeated, card.lag) == (n, len(answers) - n, 0)
    assert sorted(card.recent) == list(range(n)), "the first answer is the one that counts"
