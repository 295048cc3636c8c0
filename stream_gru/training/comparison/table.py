"""A comparison as tables for people: a column a model, then the claims."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from rich.table import Table

from stream_gru.training.comparison.claims import Claim, apart, told
from stream_gru.training.comparison.cost import median
from stream_gru.training.comparison.results import Results
from stream_gru.training.comparison.skill import POSITIONS

Row = tuple[str, list[str]]
_SCOPE = "by this data and plan"  # a longer fit may reach farther back, other data may ask for more memory


def rows(results: Results) -> list[Row]:
    """Name and one text a model."""
    names, models = list(results.models), list(results.models.values())
    sizes = [model.size for model in models]
    first = [
        ("parameters", [f"{size.parameters:,}" for size in sizes]),
        ("of them in the cells", [f"{size.cell_parameters:,}" for size in sizes]),
        ("weights, MB", [f"{size.megabytes:.3f}" for size in sizes]),
        ("state of a series, bytes", [f"{size.state:,}" for size in sizes]),
        ("row of a series, bytes", [f"{size.row:,}" for size in sizes]),
        ("memory of a training step, MB", [f"{size.training / 1e6:.1f}" for size in sizes]),
        ("training, steps", [told([trial.steps for trial in results.of(name)], math.inf) for name in names]),
        ("training, s", [_spread([trial.seconds for trial in results.of(name)], 1) for name in names]),
        ("training step, ms", [f"{1e3 * median(model.training_step):.1f}" for model in models]),
    ]
    step = [
        (f"network's step of {batch:,}, us a reading", [_micro(m.step[batch], batch) for m in models])
        for batch in models[0].step
    ]
    engine = [
        (f"engine's step of {batch:,}, us a reading", [_micro(m.engine[batch], batch) for m in models])
        for batch in models[0].engine
    ]
    return [*first, *step, *engine, *_errors(results), *_reaches(results)]


def markdown(results: Results, claims: Sequence[Claim]) -> str:
    """Both tables as Markdown."""
    numbers = ["---", *["---:"] * len(results.models)]
    parts = [_markdown([["", *results.models], numbers, *([name, *cells] for name, cells in rows(results))])]
    if claims:
        said = ([claim.claim, claim.verdict, claim.measured] for claim in claims)
        parts.append(_markdown([["claim", _SCOPE, "measured"], ["---"] * 3, *said]))
    return "\n\n".join(parts) + "\n"


def tables(results: Results, claims: Sequence[Claim]) -> list[Table]:
    """The same for a terminal."""
    learned = results.learned[results.shares[-1]]
    about = f"{results.series:,} series, {learned:,} readings to learn from, {results.tested:,} to test on"
    main = Table("", *results.models, title=f"{about}; errors in those of repeating the last value")
    for column in main.columns[1:]:
        column.justify = "right"
    for name, cells in rows(results):
        main.add_row(name, *cells)
    if not claims:
        return [main]
    colour = {"reproduced": "green", "refuted": "red", "undecided": "yellow"}
    said = Table("claim", _SCOPE, "measured", title="what is usually said")
    for claim in claims:
        said.add_row(claim.claim, f"[{colour[claim.verdict]}]{claim.verdict}[/]", claim.measured)
    return [main, said]


def _errors(results: Results) -> list[Row]:
    names = list(results.models)
    errors = [results.errors(name) for name in names]
    found = [("error", [_spread(each) for each in errors])]
    if len(names) > 1:
        found.append((f"error against {names[0]}", ["", *(apart(each, errors[0]) for each in errors[1:])]))
    for k, ahead in enumerate(results.ahead):
        found.append((f"error {ahead} ahead", [_spread([t.error[k] for t in results.of(name)]) for name in names]))
    for position in POSITIONS:
        by_seed = [results.at_positions(name, [position]) for name in names]
        if all(by_seed):
            found.append((f"error after {position:,} readings", [_spread(errors) for errors in by_seed]))
    for share in results.shares[:-1]:
        title = f"error, trained on {share:.0%} ({results.learned[share]:,})"
        found.append((title, [_spread(results.errors(name, share)) for name in names]))
    return found


def _reaches(results: Results) -> list[Row]:
    both = [results.reaches(name) for name in results.models]
    return [
        ("gradient reaches back, readings", [told(after, results.farthest) for after, _ in both]),
        ("before training", [told(before, results.farthest) for _, before in both]),
    ]


def _spread(values: Sequence[float], digits: int = 3) -> str:
    text = f"{np.mean(values):.{digits}f}"
    return f"{text} ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else text


def _micro(seconds: Sequence[float], batch: int) -> str:
    return f"{1e6 * median(seconds) / batch:.3g}"


def _markdown(lines: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
