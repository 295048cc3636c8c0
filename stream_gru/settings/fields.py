"""Every setting there is: its name, what it may be, and what must fit together."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from stream_gru.errors import SettingsError
from stream_gru.settings import secrets

Seconds = Annotated[float, Field(gt=0, le=7 * 86_400)]
Port = Annotated[int, Field(ge=0, le=65_535)]
TopicName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9._-]{1,249}$")]
Text = Annotated[str, Field(min_length=1)]

DEFAULT_KAFKA_PORT = 9092
_TLS = ("ssl_cafile", "ssl_certfile", "ssl_keyfile", "ssl_key_password", "ssl_key_password_file")


def _path(path: Path) -> Path:
    if "\n" in str(path) or "-----BEGIN" in str(path):
        raise ValueError("is what a file holds; give the path of the file")
    return path


File = Annotated[Path, AfterValidator(_path)]


def addresses(servers: str) -> list[tuple[str, int]]:
    """Host and port of each server in ``host:port,host:port``. Raises `ValueError` naming the first that is none."""
    if "@" in servers:  # nothing of it is shown: it may hold a password
        raise ValueError("takes host:port alone; user and password are kafka.sasl_username and kafka.sasl_password")
    found = []
    for server in map(str.strip, servers.split(",")):
        match = re.fullmatch(r"(?P<host>\[[0-9a-fA-F:.]+\]|[^\s:/\[\]]+)(?::(?P<port>\d{1,5}))?", server)
        if match is None or int(match["port"] or 1) not in range(1, 65_536):
            hint = "; an IPv6 address stands in brackets, as [::1]:9092" if server.count(":") > 1 else ""
            raise ValueError(f"{secrets.shown(server)} is not host:port{hint}")
        found.append((match["host"].strip("[]"), int(match["port"] or DEFAULT_KAFKA_PORT)))
    return found


class SettingsSection(BaseModel):
    """A frozen part of the tree; an unknown name is an error, not ignored.

    Its class has `Settings` in its name where the bare name is that of what it sets up, as `Worker`.
    """

    # Hidden: what pydantic would show of a wrong input may be a password.
    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, hide_input_in_errors=True)


def _one_of(section: SettingsSection, *names: str) -> None:
    if all(getattr(section, name) is not None for name in names):
        raise ValueError(f"{' and '.join(names)} are both set; leave one of them out")


class Kafka(SettingsSection):
    """How to reach Kafka. Names follow its own client settings."""

    bootstrap_servers: str = Field(
        "127.0.0.1:9092", description="brokers to connect to first, host:port, separated by commas"
    )
    group_id: str = Field(
        "stream-gru",
        min_length=1,
        max_length=200,
        pattern=r"^[a-zA-Z0-9._-]+$",
        description="consumer group; workers with one group_id share the partitions, and their state is kept under it",
    )
    group_instance_id: str | None = Field(
        None,
        pattern=r"^[a-zA-Z0-9._-]{1,200}$",
        description="static membership: a worker that returns under its name within the session keeps its partitions",
    )
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="SSL encrypts; SASL asks for user and password"
    )
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = Field(
        None, description="how the password is proved; needed with SASL"
    )
    sasl_username: str | None = Field(None, description="user name; needed with SASL")
    sasl_password: SecretStr | None = Field(None, description="password; or give sasl_password_file")
    sasl_password_file: File | None = Field(None, description="file with the password; read again at each connection")
    ssl_cafile: File | None = Field(None, description="PEM file of the CAs to trust; unset: those of this machine")
    ssl_certfile: File | None = Field(None, description="PEM file of the client certificate, for mTLS")
    ssl_keyfile: File | None = Field(None, description="PEM file of its key; unset: the key is in ssl_certfile")
    ssl_key_password: SecretStr | None = Field(None, description="passphrase of ssl_keyfile")
    ssl_key_password_file: File | None = Field(
        None, description="file with that passphrase; read again at each connection"
    )
    session_timeout_s: Seconds = Field(
        10.0, description="the group takes a worker that is silent for so long for dead and moves its partitions"
    )
    rebalance_timeout_s: Seconds = Field(20.0, description="how long the group waits for a member to join again")
    request_timeout_s: Seconds = Field(30.0, description="how long one request to Kafka may take")
    compression: Literal["none", "gzip", "lz4", "snappy", "zstd"] = Field(
        "none", description="of the batches that are published"
    )
    start: Literal["earliest", "latest"] = Field(
        "earliest", description="where a group that has never committed begins to read"
    )

    @field_validator("bootstrap_servers")
    @classmethod
    def _addresses(cls, servers: str) -> str:
        addresses(servers)
        return servers

    @model_validator(mode="after")
    def _consistent(self) -> Kafka:
        _one_of(self, "sasl_password", "sasl_password_file")
        _one_of(self, "ssl_key_password", "ssl_key_password_file")
        if self.rebalance_timeout_s >= self.request_timeout_s:
            raise ValueError(
                f"rebalance_timeout_s {self.rebalance_timeout_s:g} must be less than request_timeout_s "
                f"{self.request_timeout_s:g}: joining the group is a request that may take that long"
            )
        if self.security_protocol.startswith("SASL"):
            missing = [name for name in ("sasl_mechanism", "sasl_username") if getattr(self, name) is None]
            if self.sasl_password is None and self.sasl_password_file is None:
                missing.append("sasl_password or sasl_password_file")
            if missing:
                raise ValueError(f"security_protocol {self.security_protocol} also needs {', '.join(missing)}")
        return self

    def password(self) -> str | None:
        """The password as it is now. Raises `CredentialsError` when its file can't be read."""
        return secrets.read("kafka.sasl_password", self.sasl_password, self.sasl_password_file)

    def key_password(self) -> str | None:
        """The passphrase of the key as it is now. Raises `CredentialsError` when its file can't be read."""
        return secrets.read("kafka.ssl_key_password", self.ssl_key_password, self.ssl_key_password_file)


class Topics(SettingsSection):
    """Topic names. Forecasts and anomalies have as many partitions as the readings they answer."""

    readings: tuple[TopicName, ...] = Field(("readings",), min_length=1, description="input; one topic, or several")
    forecasts: TopicName = Field("forecasts", description="one output record for each reading")
    anomalies: TopicName = Field("anomalies", description="anomalous output records, and the first normal one after")
    alerts: TopicName = Field("alerts", description="one record when an alert fires, and one when it is resolved")
    dead_letters: TopicName = Field("dead-letters", description="records that could not be read, with the reason")
    commands: TopicName = Field("commands", description="what `stream-gru command` asks of running workers")
    command_replies: TopicName = Field("command-replies", description="what the workers answer")

    @model_validator(mode="after")
    def _distinct(self) -> Topics:
        names = [*self.readings, self.forecasts, self.anomalies, self.alerts, self.dead_letters, self.commands]
        names.append(self.command_replies)
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"each topic needs a name of its own; used twice: {', '.join(twice)}")
        return self


class Input(SettingsSection):
    """Where in a record the series, the time and the values stand, and what is refused."""

    codec: str = Field("json", min_length=1, description="format of the records: a module of stream_gru.codecs")
    series: tuple[str, ...] = Field(
        (),
        description="payload fields that name the series, joined by '/'; none: the record key. a.b: b in object a",
    )
    timestamp: str = Field("timestamp", description="payload field with the time of the reading")
    timestamp_format: Literal["s", "ms", "us", "ns", "iso"] = Field(
        "ms", description="epoch seconds (fractions allowed), milli-, micro- or nanoseconds, or ISO 8601 text"
    )
    values: tuple[str, ...] = Field(
        ("value",),
        min_length=1,
        description="payload fields with the values; several: they are judged together (multivariate)",
    )
    covariates: tuple[str, ...] = Field(
        (), description="payload fields with the covariates of the model, in its order; absent or null means unknown"
    )
    max_batch_bytes: int = Field(
        64 << 20,
        ge=1 << 20,
        le=1 << 30,
        description="unpacked size of a record batch; a larger batch is one dead letter",
    )
    max_payload_bytes: int = Field(65_536, ge=64, le=64 << 20, description="a longer payload is a dead letter")
    max_key_bytes: int = Field(256, ge=1, le=256, description="a longer series name is a dead letter")
    max_future_s: float = Field(
        86_400, ge=0, description="a reading whose time is further ahead of its Kafka timestamp is a dead letter"
    )
    max_abs_value: float = Field(1e30, gt=0, le=1e30, description="a value of larger size is a dead letter")
    dead_letter_bytes: int = Field(
        4096, ge=0, le=65_536, description="how much of a record's key, and of its payload, a dead letter keeps"
    )

    @field_validator("values", "covariates")
    @classmethod
    def _distinct(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(values)) < len(values):
            raise ValueError("a field is named twice")
        return values


class State(SettingsSection):
    """Where the rows are kept and how often they are written."""

    url: SecretStr = Field(
        SecretStr("redis://127.0.0.1:6379/0"),
        description="where the store is: redis://, rediss:// (TLS; user:password@ may be in it) or memory://",
    )
    username: str | None = Field(None, description="user of Redis, where the URL names none")
    password: SecretStr | None = Field(None, description="password of Redis, where the URL holds none")
    password_file: File | None = Field(None, description="file with the password; read again at each connection")
    ssl_cafile: File | None = Field(
        None, description="PEM file of the CAs to trust with rediss://; unset: those of this machine"
    )
    ssl_certfile: File | None = Field(None, description="PEM file of the client certificate, if Redis asks for one")
    ssl_keyfile: File | None = Field(None, description="PEM file of its key; unset: the key is in ssl_certfile")
    ssl_key_password: SecretStr | None = Field(None, description="passphrase of ssl_keyfile")
    ssl_key_password_file: File | None = Field(
        None, description="file with that passphrase; read again at each connection"
    )
    checkpoint_interval_s: Seconds = Field(1.0, description="time between two checkpoints of a partition")
    chunk_rows: int = Field(1000, ge=1, le=1900, description="most rows that one call to Redis writes")
    buckets: int = Field(
        16,
        ge=1,
        le=4096,
        description="Redis hashes that the rows of a partition are split into; fixed at the first start",
    )
    capacity: int = Field(
        1_000_000,
        ge=1,
        le=100_000_000,
        description="most rows that a worker holds in memory; the others are loaded from the store when needed",
    )
    max_series: int = Field(
        1_000_000,
        ge=1,
        le=100_000_000,
        description="most series of one partition; readings of further series are dead letters",
    )
    on_state_lost: Literal["rebuild", "refuse"] = Field(
        "rebuild",
        description="when the group has a commit but the store has no state: rebuild makes it again from what Kafka "
        "retains, refuse ends the worker",
    )
    on_gap: Literal["continue", "refuse"] = Field(
        "continue",
        description="when Kafka has deleted records that were not read yet: continue goes on behind them, refuse ends "
        "the worker",
    )
    request_timeout_s: Seconds = Field(10.0, description="how long one call to the store may take")

    @field_validator("url")
    @classmethod
    def _is_url(cls, url: SecretStr) -> SecretStr:
        secrets.split_url(url.get_secret_value())
        return url

    @model_validator(mode="after")
    def _consistent(self) -> State:
        _one_of(self, "password", "password_file")
        _one_of(self, "ssl_key_password", "ssl_key_password_file")
        address = self.address
        if address.password is not None and (self.password or self.password_file):
            raise ValueError("url holds a password, and so does password or password_file; leave one of them out")
        if address.username is not None and self.username:
            raise ValueError("url names a user, and so does username; leave one of them out")
        if (address.username or self.username) and not (address.password or self.password or self.password_file):
            raise ValueError("there is a user but no password; url, password or password_file must give it")
        if address.scheme == "redis" and (tls := [name for name in _TLS if getattr(self, name) is not None]):
            raise ValueError(f"{', '.join(tls)} is set, but url is redis://, which has no TLS; write rediss://")
        return self

    @property
    def address(self) -> secrets.Address:
        """The parts of `url`."""
        return secrets.split_url(self.url.get_secret_value())

    @property
    def shown_url(self) -> str:
        """`url` as it may be shown."""
        return secrets.mask_url(self.url.get_secret_value())

    def login(self) -> tuple[str | None, str | None]:
        """User and password as they are now. Raises `CredentialsError` when the password's file can't be read."""
        address = self.address
        password = secrets.read("state.password", self.password, self.password_file)
        return self.username or address.username, address.password if password is None else password

    def key_password(self) -> str | None:
        """The passphrase of the key as it is now. Raises `CredentialsError` when its file can't be read."""
        return secrets.read("state.ssl_key_password", self.ssl_key_password, self.ssl_key_password_file)


class ModelSettings(SettingsSection):
    """Which weights, and where they run."""

    bundle: File | None = Field(None, description="folder of a bundle, or light, or zero-shot; unset: zero-shot")
    device: str = Field(
        "auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$", description="auto takes the GPU where there is one"
    )
    threads: int = Field(1, ge=1, le=256, description="CPU threads that torch uses in one step")
    horizons: tuple[int, ...] = Field(
        (), description="steps ahead to forecast beside the next one, if the bundle can forecast any; none: its own"
    )


class Detector(SettingsSection):
    """When a reading counts as anomalous."""

    sensitivity: float = Field(
        0.1, gt=0, le=1000, description="alerts that a series may give per day while all is well; larger finds more"
    )
    direction: Literal["both", "above", "below"] = Field(
        "both",
        description="which values are anomalous: high, low or both; only `both` looks at activity and stillness",
    )
    min_n_samples_seen: int = Field(
        150, ge=1, description="readings of a series before it is judged; until then its level is `warmup`"
    )


class Gaps(SettingsSection):
    """What becomes of a series when readings or values are missing."""

    policy: Literal["carry", "reset", "impute"] = Field(
        "carry",
        description="carry: go on where it stopped, knowing how long ago; reset: start anew after a gap; "
        "impute: fill missed readings and null values with the model's own forecasts",
    )
    after: float | None = Field(
        None,
        ge=1.5,
        description="how long a gap is, in usual intervals of the series; unset: 24 for reset, 1.5 for impute",
    )
    limit: int = Field(24, ge=1, le=1000, description="most steps in a row that are filled in")


class MetricsSettings(SettingsSection):
    """The HTTP server of /metrics, /health and /ready."""

    host: Text = Field("127.0.0.1", description="address to listen on; 0.0.0.0: all of them")
    port: Port = Field(9108, description="port to listen on; 0: a free one")
    gates: bool = Field(False, description="serve histograms of the model's gates as stream_gru_gate_activation")


class WorkerSettings(SettingsSection):
    """Batches, back-pressure and the watchdog."""

    max_batch: int = Field(8192, ge=1, le=1_000_000, description="most readings that are scored in one batch")
    max_inflight: int = Field(
        4, ge=1, le=64, description="most batches whose outputs Kafka has not acknowledged yet; then intake pauses"
    )
    linger_ms: float = Field(5.0, ge=0, le=10_000, description="how long to wait for a batch to fill")
    unready_after_s: Seconds = Field(10.0, description="a worker that makes no turn for so long is unready")
    exit_after_s: Seconds = Field(30.0, description="and after so long it ends itself")


class Alerts(SettingsSection):
    """The agent that turns anomalies into alerts."""

    silence_s: Seconds = Field(
        900.0,
        description="an alert is resolved when its series is silent for so long; exceed the slowest series' interval",
    )


class Settings(SettingsSection):
    """Everything that can be set, read once at the start and never changed."""

    role: Literal["all", "scorer", "alerter"] = Field(
        "all", description="scorer: readings to forecasts and anomalies; alerter: anomalies to alerts; all: both"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="the least that is logged")
    kafka: Kafka = Kafka()
    topics: Topics = Topics()
    input: Input = Input()
    state: State = State()
    model: ModelSettings = ModelSettings()
    detector: Detector = Detector()
    gaps: Gaps = Gaps()
    metrics: MetricsSettings = MetricsSettings()
    worker: WorkerSettings = WorkerSettings()
    alerts: Alerts = Alerts()

    def require_room(self) -> None:
        """Raise `SettingsError` unless a worker's memory takes two batches of different series."""
        if self.state.capacity < 2 * self.worker.max_batch:
            raise SettingsError(
                f"state.capacity {self.state.capacity} must be at least twice worker.max_batch "
                f"{self.worker.max_batch}: two batches of different series must fit"
            )
