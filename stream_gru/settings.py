"""One frozen, validated Settings tree: defaults, then a TOML file, then the environment, then flags.

Environment variables are named ``STREAM_GRU_<SECTION>__<NAME>``, for example ``STREAM_GRU_KAFKA__BOOTSTRAP_SERVERS``.
"""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from stream_gru.errors import SettingsError

CONFIG_FILE_VARIABLE = "STREAM_GRU_CONFIG"
DEFAULT_CONFIG_FILE = Path("stream-gru.toml")

Seconds = Annotated[float, Field(gt=0, le=7 * 86_400)]
Port = Annotated[int, Field(ge=0, le=65_535)]
TopicName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9._-]{1,249}$")]


class Section(BaseModel):
    """A frozen part of the tree; an unknown name is an error, not ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Kafka(Section):
    """How to reach Kafka. Names follow its own client settings."""

    bootstrap_servers: str = Field("127.0.0.1:9092", description="comma-separated host:port")
    group_id: str = Field("stream-gru", min_length=1, max_length=200, pattern=r"^[a-zA-Z0-9._-]+$")
    group_instance_id: str | None = Field(
        None,
        pattern=r"^[a-zA-Z0-9._-]{1,200}$",
        description="static membership: a restart within the session moves nothing",
    )
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = None
    sasl_username: str | None = None
    sasl_password: SecretStr | None = None
    ssl_cafile: Path | None = None
    ssl_certfile: Path | None = None
    ssl_keyfile: Path | None = None
    session_timeout_s: Seconds = 10.0
    rebalance_timeout_s: Seconds = Field(20.0, description="how long the group waits for a member to join again")
    request_timeout_s: Seconds = 30.0
    compression: Literal["none", "gzip", "lz4", "snappy", "zstd"] = "none"
    start: Literal["earliest", "latest"] = Field("earliest", description="where a group without any commit begins")

    @model_validator(mode="after")
    def _consistent(self) -> Kafka:
        if self.rebalance_timeout_s >= self.request_timeout_s:
            raise ValueError(
                f"rebalance_timeout_s {self.rebalance_timeout_s:g} must be less than request_timeout_s "
                f"{self.request_timeout_s:g}: joining the group is a request that may take that long"
            )
        if self.security_protocol.startswith("SASL"):
            missing = [n for n in ("sasl_mechanism", "sasl_username", "sasl_password") if getattr(self, n) is None]
            if missing:
                raise ValueError(f"security_protocol {self.security_protocol} also needs {', '.join(missing)}")
        return self


class Topics(Section):
    """Topic names. Forecasts and anomalies have as many partitions as the readings they answer."""

    readings: tuple[TopicName, ...] = Field(("readings",), min_length=1)
    forecasts: TopicName = "forecasts"
    anomalies: TopicName = "anomalies"
    alerts: TopicName = "alerts"
    dead_letters: TopicName = "dead-letters"
    commands: TopicName = "commands"
    command_replies: TopicName = "command-replies"

    @model_validator(mode="after")
    def _distinct(self) -> Topics:
        names = [*self.readings, self.forecasts, self.anomalies, self.alerts, self.dead_letters, self.commands]
        names.append(self.command_replies)
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"each topic needs a name of its own; used twice: {', '.join(twice)}")
        return self


class Input(Section):
    """Where in a record the series, the time and the values stand, and what is refused."""

    codec: str = Field("json", description="a module of stream_gru.codecs")
    series: tuple[str, ...] = Field(
        (),
        description="payload fields that, joined by '/', name the series; none: the record key. a.b is b in object a",
    )
    timestamp: str = "timestamp"
    timestamp_format: Literal["s", "ms", "us", "ns", "iso"] = Field(
        "ms", description="epoch seconds (a fraction is allowed), ms, us, ns, or ISO 8601 text"
    )
    values: tuple[str, ...] = Field(("value",), min_length=1, description="one field, or several = multivariate")
    covariates: tuple[str, ...] = Field(
        (), description="fields with the covariates of the model, in its order; one that is absent or null is unknown"
    )
    max_batch_bytes: int = Field(
        64 << 20,
        ge=1 << 20,
        le=1 << 30,
        description="how large a record batch may be, unpacked; a larger one is passed over",
    )
    max_payload_bytes: int = Field(65_536, ge=64, le=64 << 20)
    max_key_bytes: int = Field(256, ge=1, le=256)
    max_future_s: float = Field(86_400, ge=0, description="how far a timestamp may lie past the Kafka record's own")
    max_abs_value: float = Field(1e30, gt=0, le=1e30)
    dead_letter_bytes: int = Field(
        4096, ge=0, le=65_536, description="how much of a record's key, and of its payload, its dead letter keeps"
    )

    @field_validator("values", "covariates")
    @classmethod
    def _distinct(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(values)) < len(values):
            raise ValueError("a field is named twice")
        return values


class State(Section):
    """Where the rows are kept and how often they are written."""

    url: SecretStr = Field(
        SecretStr("redis://127.0.0.1:6379/0"), description="redis://, rediss:// (with user:password@) or memory://"
    )
    checkpoint_interval_s: Seconds = 1.0
    chunk_rows: int = Field(1000, ge=1, le=1900, description="rows in one call to Redis")
    buckets: int = Field(16, ge=1, le=4096, description="hashes a partition is split into, for ever")
    capacity: int = Field(
        1_000_000, ge=1, le=100_000_000, description="rows a worker holds in memory; more are evicted"
    )
    max_series: int = Field(1_000_000, ge=1, le=100_000_000, description="series one partition may have")
    on_state_lost: Literal["rebuild", "refuse"] = Field("rebuild", description="rule R15: no state but a commit")
    on_gap: Literal["continue", "refuse"] = Field("continue", description="rule R16: unread records are gone")
    request_timeout_s: Seconds = 10.0


class Model(Section):
    """Which weights, and where they run."""

    bundle: Path | None = Field(None, description="a bundle's folder; none: the one that ships in the package")
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    threads: int = Field(1, ge=1, le=256, description="CPU threads of one step")
    horizons: tuple[int, ...] = Field(
        (), description="farther steps to forecast, if the bundle can forecast any; none: its own"
    )


class Detector(Section):
    """When a reading counts as anomalous."""

    sensitivity: float = Field(
        0.1, gt=0, le=1000, description="alerts that a series may give a day while all is well; more = more is found"
    )
    direction: Literal["both", "above", "below"] = Field(
        "both", description="which values are anomalous; above and below leave out activity and stillness"
    )
    min_n_samples_seen: int = Field(150, ge=1, description="readings before a series is judged; until then `warmup`")


class Gaps(Section):
    """What becomes of a series when readings or values are missing."""

    policy: Literal["carry", "reset", "impute"] = Field(
        "carry",
        description="carry: go on where it stopped, knowing how long ago; reset: start anew after a gap; "
        "impute: fill missed readings and null values with the model's own forecasts",
    )
    after: float | None = Field(
        None, ge=1.5, description="usual intervals of the series that make a gap; none: 24 to reset, 1.5 to impute"
    )
    limit: int = Field(24, ge=1, le=1000, description="steps in a row that are filled in at most")


class Metrics(Section):
    """The HTTP server of /metrics, /health and /ready."""

    host: str = "127.0.0.1"
    port: Port = 9108
    gates: bool = Field(False, description="count the activations of the model's gates, as stream_gru_gate_activation")


class Worker(Section):
    """Batches, back-pressure and the watchdog."""

    max_batch: int = Field(8192, ge=1, le=1_000_000, description="readings scored at once")
    max_inflight: int = Field(4, ge=1, le=64, description="batches whose outputs are not yet acknowledged")
    linger_ms: float = Field(5.0, ge=0, le=10_000, description="how long to wait for a fuller batch of input")
    unready_after_s: Seconds = 10.0
    exit_after_s: Seconds = 30.0


class Alerts(Section):
    """The agent that turns anomalies into alerts."""

    silence_s: Seconds = Field(
        900.0,
        description="a firing series without readings for so long is resolved; exceed the slowest series' interval",
    )


class Settings(BaseSettings):
    """Everything that can be set, read once at the start and never changed."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_prefix="STREAM_GRU_", env_nested_delimiter="__", validate_default=True
    )

    role: Literal["all", "scorer", "alerter"] = "all"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    kafka: Kafka = Kafka()
    topics: Topics = Topics()
    input: Input = Input()
    state: State = State()
    model: Model = Model()
    detector: Detector = Detector()
    gaps: Gaps = Gaps()
    metrics: Metrics = Metrics()
    worker: Worker = Worker()
    alerts: Alerts = Alerts()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment wins over what `load` passes in from the file; flags are laid over it by `load`."""
        return (env_settings, init_settings)


def load(path: Path | None = None, flags: Mapping[str, Any] | None = None) -> Settings:
    """Read the settings.

    `path` is a TOML file; none means ``$STREAM_GRU_CONFIG``, else ``stream-gru.toml`` in this folder if there is one.
    `flags` maps dotted names (``kafka.group_id``) to values and wins over everything; None values are left out.

    Raises `SettingsError` with one line for each thing that is wrong, naming where it came from.
    """
    file = _find(path)
    tree = _read(file) if file else {}
    try:
        from_file_and_environment = Settings(**tree)
        raised = {name: value for name, value in (flags or {}).items() if value is not None}
        if not raised:
            return from_file_and_environment
        merged = from_file_and_environment.model_dump(mode="python")
        for name, value in raised.items():
            section = merged
            *parents, leaf = name.split(".")
            for parent in parents:
                section = section[parent]
            section[leaf] = value
        return Settings.model_validate(merged) if not _environment() else _without_environment(merged)
    except ValidationError as error:
        raise SettingsError(_explain(error, file)) from None


def dump(settings: Settings) -> dict[str, Any]:
    """The effective settings as plain values, secrets masked."""
    tree: dict[str, Any] = settings.model_dump(mode="json")
    tree["state"]["url"] = mask_url(settings.state.url.get_secret_value())
    return tree


def environment(settings: Settings) -> dict[str, str]:
    """The variables that give `settings`, secrets included, to another process."""
    variables = {}
    for section in type(settings).model_fields:
        value = getattr(settings, section)
        leaves = (
            {"": value}
            if not isinstance(value, Section)
            else {f"__{n}": getattr(value, n) for n in type(value).model_fields}
        )
        for name, leaf in leaves.items():
            plain = leaf.get_secret_value() if isinstance(leaf, SecretStr) else leaf
            if plain is not None:
                text = json.dumps(plain) if isinstance(plain, tuple) else str(plain)
                variables[f"STREAM_GRU_{section}{name}".upper()] = text
    return variables


def mask_url(url: str) -> str:
    """`url` with its password replaced by asterisks."""
    scheme, separator, rest = url.partition("://")
    credentials, at, host = rest.rpartition("@")
    user, _, _password = credentials.partition(":")
    return f"{scheme}{separator}{user}:***@{host}" if at else url


def _find(path: Path | None) -> Path | None:
    if path is None and os.environ.get(CONFIG_FILE_VARIABLE):
        path = Path(os.environ[CONFIG_FILE_VARIABLE])
    if path is None:
        return DEFAULT_CONFIG_FILE if DEFAULT_CONFIG_FILE.is_file() else None
    if not path.is_file():
        raise SettingsError(f"configuration file {path} does not exist")
    return path


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{file} is not valid TOML: {error}") from None


def _environment() -> list[str]:
    return [n for n in os.environ if n.upper().startswith("STREAM_GRU_") and n.upper() != CONFIG_FILE_VARIABLE]


def _without_environment(tree: dict[str, Any]) -> Settings:
    """Validate a complete tree without letting the environment win over the flags in it."""

    class Flagged(Settings):
        @classmethod
        def settings_customise_sources(cls, *args: Any, **sources: Any) -> tuple[PydanticBaseSettingsSource, ...]:
            return (sources["init_settings"] if "init_settings" in sources else args[1],)

    return Flagged(**tree)


def _explain(error: ValidationError, file: Path | None) -> str:
    lines = []
    for problem in error.errors():
        name = ".".join(str(part) for part in problem["loc"])
        variable = "STREAM_GRU_" + "__".join(str(part) for part in problem["loc"][:2]).upper()
        source = f"environment variable {variable}" if variable in map(str.upper, os.environ) else "flag or file"
        if file is not None and source != f"environment variable {variable}":
            source = f"{file} or flag"
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            message = "there is no such setting"
        given = problem.get("input")
        secret = "password" in name or "url" in name
        shown = "" if secret or isinstance(given, Mapping | SecretStr | None) else f", got {given!r}"
        lines.append(f"{name}: {message}{shown} ({source})")
    return "the configuration is wrong:\n  " + "\n  ".join(lines)
