"""One frozen, validated Settings tree: defaults, then a TOML file, then the environment, then flags.

Environment variables are named ``STREAM_GRU_<SECTION>__<NAME>``, for example ``STREAM_GRU_KAFKA__BOOTSTRAP_SERVERS``.
`fields` says what can be set, `sources` where it is read from and which source wins, `secrets` what is never shown.
"""

from stream_gru.settings.fields import (
    Alerts,
    Detector,
    Gaps,
    Input,
    Kafka,
    MetricsSettings,
    ModelSettings,
    Settings,
    SettingsSection,
    State,
    Topics,
    WorkerSettings,
    addresses,
)
from stream_gru.settings.secrets import mask_url
from stream_gru.settings.sources import (
    CONFIG_FILE_VARIABLE,
    DEFAULT_CONFIG_FILE,
    changed,
    dump,
    environment,
    explain,
    load,
)

__all__ = [
    "CONFIG_FILE_VARIABLE",
    "DEFAULT_CONFIG_FILE",
    "Alerts",
    "Detector",
    "Gaps",
    "Input",
    "Kafka",
    "MetricsSettings",
    "ModelSettings",
    "Settings",
    "SettingsSection",
    "State",
    "Topics",
    "WorkerSettings",
    "addresses",
    "changed",
    "dump",
    "environment",
    "explain",
    "load",
    "mask_url",
]
