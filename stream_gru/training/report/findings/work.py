"""How the work went on."""

from __future__ import annotations

import numpy as np

from stream_gru.training.report.findings.evidence import Finding, FitEvidence, Rule, slower

_SLOWED_RATIO = 0.6  # of the speed at first: a shared machine varies by less
_MANY_SKIPPED_SHARE = 0.01  # of the steps: about as rare as spikes in data; more means something systematic


def skipped(log: FitEvidence) -> Finding | None:
    """Batches that nothing was learned from."""
    if not log.checks or not log.checks[-1].skipped:
        return None
    count, steps = log.checks[-1].skipped, log.checks[-1].step
    share = count / max(steps + count, 1)
    return Finding(
        "skipped_batches",
        "serious" if share > _MANY_SKIPPED_SHARE else "warning",
        "Batches were skipped",
        f"{count} of {steps + count:,}: their loss or gradient was not finite.",
        "Look for values in the data that are no measurements (1e30, -999). "
        + ("With mixed precision some are usual at first. " if log.recipe.plan.precision != "32" else "")
        + (slower(log) if share > _MANY_SKIPPED_SHARE else ""),
    )


def slow(log: FitEvidence) -> Finding | None:
    """Less speed than at first."""
    if len(log.checks) < 4:
        return None
    some = max(2, len(log.speed) // 4)
    first, last = float(np.median(log.speed[:some])), float(np.median(log.speed[-some:]))
    if last >= _SLOWED_RATIO * first:
        return None
    return Finding(
        "slow",
        "warning",
        "Epochs became slow",
        f"From {first:,.0f} to {last:,.0f} readings a second, {last / first:.0%} of the speed at first.",
        "See what else runs on the machine, whether it is hot or short of memory (then a smaller data.batch); "
        "windows of very different lengths do it too: data.tokens evens out the work of a step.",
    )


RULES: tuple[Rule, ...] = (skipped, slow)
