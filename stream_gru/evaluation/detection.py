"""The tables of the detection suites."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stream_gru.columns import Bools, Floats
from stream_gru.evaluation import nab, ranking, references, skab
from stream_gru.evaluation.cases import SuiteCase, halves
from stream_gru.evaluation.streaming import Judged
from stream_gru.evaluation.tables import Cell, FigureTable

OURS = "stream-gru"
SHARES = (0.001, 0.01)  # of the normal rows
PER_DAY = 1.0  # false alarms of a series
# Percent, of a second choice of the threshold for SKAB: the best F1 alone flags nearly each row.
_FALSE_RATE_MOST = 20.0
_OWN_THRESHOLD = 1.0  # the threshold of the product's own scores
# Of each series by itself.
_FIGURES = {"AUC-PR": ranking.average_precision, "VUS-PR": ranking.vus_pr, "best F1": ranking.best_f1}

Scores = Mapping[str, Sequence[Floats]]  # by detector, (T,) of each case


def nab_tables(
    cases: Sequence[SuiteCase], judged: Sequence[Judged], baselines: Scores, threshold: float | None, data: Path
) -> list[FigureTable]:
    """NAB by `alert_score` s, of which it is given s / (s + 1)."""
    ours = [one.alert_score / (one.alert_score + 1) for one in judged]
    scores = {OURS: ours, **{n: [s / (s + 1) for s in found] for n, found in baselines.items()}}
    profiles = nab.PROFILES.items()
    rows: list[list[Cell]] = []
    for name, found in scores.items():
        best = [nab.evaluate(cases, found, profile) for _, profile in profiles]
        standard = best[0]
        rows.append(
            [name, *(one.score for one in best), _alert(standard.threshold), f"{standard.found}/{standard.windows}"]
        )
        rows[-1].append(standard.false)
    published = _published(data, cases)
    for name, figures in references.NAB.items():
        rows.append([f"{name}, published, 58 files", *figures, None, None, None])
        if name in published:
            best = [nab.evaluate(cases, published[name], profile) for _, profile in profiles]
            rows.append([f"{name}, its scores, these files", *(one.score for one in best), None])
            rows[-1] += [f"{best[0].found}/{best[0].windows}", best[0].false]
    columns = ("detector", *nab.PROFILES, "threshold", "windows found", "false rows")
    tuned = FigureTable(
        f"NAB, {len(cases)} files, the threshold that is best over all of them",
        columns,
        rows,
        "threshold, windows and rows in the standard profile",
    )
    return [tuned, _nab_transfer(cases, scores, threshold), _nab_cases(cases, ours, threshold)]


def _nab_transfer(cases: Sequence[SuiteCase], scores: Scores, threshold: float | None) -> FigureTable:
    half = halves(cases)
    rows: list[list[Cell]] = []
    for name, found in scores.items():
        for a, b in ((0, 1), (1, 0)):
            row: list[Cell] = [f"{name}: tuned on half {'AB'[a]}, scored on half {'AB'[b]}"]
            for profile in nab.PROFILES.values():
                chosen, others = ([i for i, h in enumerate(half) if h == part] for part in (a, b))
                best = nab.evaluate([cases[i] for i in chosen], [found[i] for i in chosen], profile).threshold
                part = [found[i] for i in others]
                row.append(nab.evaluate([cases[i] for i in others], part, profile, best).score)
            rows.append(row)
    for fixed in dict.fromkeys((_OWN_THRESHOLD, threshold or _OWN_THRESHOLD)):
        scored = [nab.evaluate(cases, scores[OURS], p, fixed / (fixed + 1)) for p in nab.PROFILES.values()]
        rows.append([f"{OURS}: alert_score >= {fixed:g}, all files", *(one.score for one in scored)])
    note = "halves: every second file of the list by name"
    return FigureTable(
        "NAB, thresholds that were not chosen on the files scored", ("detector", *nab.PROFILES), rows, note
    )


def _nab_cases(cases: Sequence[SuiteCase], ours: Sequence[Floats], threshold: float | None) -> FigureTable:
    profile = nab.PROFILES["standard"]
    cut = nab.evaluate(cases, ours, profile).threshold if threshold is None else threshold / (threshold + 1)
    rows: list[list[Cell]] = []
    for case, score in zip(cases, ours, strict=True):
        one = nab.evaluate([case], [score], profile, cut)
        rows.append([case.name, one.score if one.windows else None, one.windows, one.found, one.false])
    return FigureTable("NAB by file, standard", ("file", "score", "windows", "found", "false rows"), rows, shown=False)


def _alert(threshold: float) -> float:
    """From the scale that NAB is given back to that of alert_score."""
    return threshold / (1 - threshold) if threshold < 1 else float("inf")


def _published(data: Path, cases: Sequence[SuiteCase]) -> dict[str, list[Floats]]:
    """The scores that published detectors gave each row, if they lie beside the data in published_scores.npz."""
    for folder in (data / "NAB", data):
        if (folder / "published_scores.npz").is_file():
            with np.load(folder / "published_scores.npz", allow_pickle=False) as arrays:
                keys = set(arrays.files)
                return {
                    name: [arrays[f"{key}/{case.name}"][: len(case)].astype(np.float64) for case in cases]
                    for name, key in references.NAB_FILES.items()
                    if all(f"{key}/{case.name}" in keys for case in cases)
                }
    return {}


def skab_tables(
    cases: Sequence[SuiteCase], judged: Sequence[Judged], baselines: Scores, threshold: float | None
) -> list[FigureTable]:
    """SKAB by `is_anomaly`, and by one threshold on `anomaly_score`."""
    truths = [case.labels for case in cases]
    truth = np.concatenate(truths)
    rows: list[list[Cell]] = [
        _rates(f"{OURS}: is_anomaly", np.concatenate(_scored(cases, [one.flag for one in judged])), truth, None)
    ]
    scores: dict[str, Sequence[Floats]] = {OURS: [one.score for one in judged], **baselines}
    if threshold is not None:
        pooled = np.concatenate(_scored(cases, scores[OURS]))
        rows.append(_rates(f"{OURS}: anomaly_score > {threshold:g}", pooled > threshold, truth, threshold))
    half = halves(cases)
    for name, found in scores.items():
        parts = _scored(cases, found)
        pooled = np.concatenate(parts)
        for most in (100.0, _FALSE_RATE_MOST):
            limited = f", FAR <= {most:g}%" if most < 100 else ""
            best = skab.best_threshold(pooled, truth, most)
            rows.append(_rates(f"{name}: best threshold for these files{limited}", pooled >= best, truth, best))
            flags: list[Bools] = list(parts)
            for a in (0, 1):
                chosen = [i for i, h in enumerate(half) if h == a]
                score, label = (np.concatenate([column[i] for i in chosen]) for column in (parts, truths))
                cut = skab.best_threshold(score, label, most)
                flags = [parts[i] >= cut if half[i] != a else flag for i, flag in enumerate(flags)]
            title = f"{name}: tuned on one half, scored on the other{limited}"
            rows.append(_rates(title, np.concatenate(flags), truth, None))
    rows.append(_rates("each row flagged", np.ones_like(truth), truth, None))
    rows += [[f"{name}, published, 34 files", *figures, None] for name, figures in references.SKAB.items()]
    columns = ("detector", "F1", "FAR %", "MAR %", "threshold")
    by_case = [
        [*_rates(case.name, flag, label, None)[:-1], int(label.sum())]
        for case, flag, label in zip(cases, _scored(cases, [one.flag for one in judged]), truths, strict=True)
    ]
    return [
        FigureTable(
            f"SKAB, {len(cases)} files, rows pooled", columns, rows, "the first 400 rows of a file are fed, not scored"
        ),
        FigureTable("SKAB by file, is_anomaly", ("file", "F1", "FAR %", "MAR %", "anomalous"), by_case, shown=False),
    ]


def _rates(name: str, flag: Bools, truth: Bools, threshold: float | None) -> list[Cell]:
    found = skab.rates(flag, truth)
    return [name, found.f1, found.far, found.mar, threshold]


def _scored(cases: Sequence[SuiteCase], columns: Sequence[Any]) -> list[Any]:
    """The rows that count."""
    return [column[case.warm :] for case, column in zip(cases, columns, strict=True)]


def ranking_tables(
    suite: str, cases: Sequence[SuiteCase], judged: Sequence[Judged], baselines: Scores, threshold: float | None
) -> list[FigureTable]:
    """Suites that label rows: how the score ranks them, and events at fixed false-alarm rates."""
    truths = [case.labels for case in cases]
    some = [i for i, truth in enumerate(truths) if truth.any()]
    days = sum(case.days for case in cases)
    rows: list[list[Cell]] = []
    by_case: list[list[Cell]] = []
    for name, found in {OURS: [one.score for one in judged], **baselines}.items():
        scores = _scored(cases, found)
        figures = [tuple(figure(scores[i], truths[i]) for figure in _FIGURES.values()) for i in some]
        means = np.mean(figures, axis=0).tolist() if figures else [None] * len(_FIGURES)
        pooled = ranking.average_precision(np.concatenate(scores), np.concatenate(truths)) if some else None
        cuts = [ranking.threshold_for_share(scores, truths, share) for share in SHARES]
        cuts.append(ranking.threshold_for_alarms(scores, truths, days, PER_DAY))
        recalls = [_recall([score > cut for score in scores], truths) for cut in cuts]
        rows.append([name, *means, pooled, *recalls])
        by_case += [[name, cases[i].name, *one] for i, one in zip(some, figures, strict=True)]
    kind = "univariate" if cases[0].value.shape[1] == 1 else "multivariate"
    for name, vus in references.TSB_AD[kind].items():
        rows.append([f"{name}, TSB-AD {kind}, other series", None, vus, None, None, None, None, None])
    columns = ("detector", *_FIGURES, "AUC-PR pooled")
    limits = [f"events at FAR {share:.1%}" for share in SHARES] + [f"events at {PER_DAY:g} alarm/day"]
    note = (
        f"means over {len(some)} series with anomalies; VUS-PR with buffers up to {ranking.BUFFER_ROWS} rows; best F1: "
        "the best threshold of each series; events: share found with one threshold, normal rows or false alarms a "
        "series and day limited"
    )
    return [
        FigureTable(f"{suite}, {len(cases)} series", (*columns, *limits), rows, note),
        _flags(cases, judged, truths, days, threshold),
        FigureTable(f"{suite} by series", ("detector", "series", *_FIGURES), by_case, shown=False),
    ]


def _flags(
    cases: Sequence[SuiteCase], judged: Sequence[Judged], truths: Sequence[Bools], days: float, threshold: float | None
) -> FigureTable:
    """What the flags say as they are."""
    kinds: dict[str, list[Bools]] = {
        "is_anomaly": _scored(cases, [one.flag for one in judged]),
        "alert": _scored(cases, [one.alert for one in judged]),
    }
    if threshold is not None:
        kinds[f"anomaly_score > {threshold:g}"] = _scored(cases, [one.score > threshold for one in judged])
    rows: list[list[Cell]] = []
    normal = sum(int(np.count_nonzero(~truth)) for truth in truths)
    for name, flags in kinds.items():
        found, events = ranking.events_found(flags, truths)
        false = sum(int(np.count_nonzero(flag & ~truth)) for flag, truth in zip(flags, truths, strict=True))
        alarms = sum(map(ranking.false_alarms, flags, truths))
        rows.append([name, f"{found}/{events}", 100 * false / max(normal, 1), alarms / days if days else None])
    columns = ("flag", "events found", "normal rows flagged %", "false alarms/series/day")
    return FigureTable("flags as they are", columns, rows)


def _recall(flags: Sequence[Bools], truths: Sequence[Bools]) -> float | None:
    found, events = ranking.events_found(flags, truths)
    return found / events if events else None
