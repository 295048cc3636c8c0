"""What a fit's log says, in plain words."""

from __future__ import annotations

import numpy as np

from stream_gru.training.report.findings import loss, quality, weights, work
from stream_gru.training.report.findings.evidence import Finding, FitEvidence, Rule, Severity

__all__ = ["RULES", "Finding", "FitEvidence", "diagnose"]

RULES: tuple[Rule, ...] = (*loss.RULES, *quality.RULES, *weights.RULES, *work.RULES)
_ORDER: tuple[Severity, ...] = ("serious", "warning", "hint", "good")


def diagnose(evidence: FitEvidence) -> list[Finding]:
    """What is wrong with a fit, the gravest first; if nothing is, the one finding says so."""
    with np.errstate(invalid="ignore"):
        found = [finding for rule in RULES if (finding := rule(evidence)) is not None]
    if not found:
        return [_healthy(evidence)]
    return sorted(found, key=lambda finding: _ORDER.index(finding.severity))


def _healthy(log: FitEvidence) -> Finding:
    return Finding(
        "nothing",
        "good",
        "Nothing found",
        f"Over {len(log.checks)} checks the held-back loss went from {log.held_back[0]:.4g} to a best of "
        f"{np.nanmin(log.held_back):.4g}; gradients, weights, speed and intervals are as they should be.",
        "Use it. A larger network, more data or another variant may still be better: `stream-gru tune`, "
        "`stream-gru compare`.",
    )
