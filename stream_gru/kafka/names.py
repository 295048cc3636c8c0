"""Names in Kafka that follow from the settings."""

from __future__ import annotations

from stream_gru.settings import Settings


def group_id(settings: Settings) -> str:
    """The consumer group of the alerter."""
    return f"{settings.kafka.group_id}-alerts"


def changelog_topic(settings: Settings) -> str:
    """Where the table `firing` is kept. Whoever forgets a group's state forgets this too."""
    return f"{group_id(settings)}-firing-changelog"
