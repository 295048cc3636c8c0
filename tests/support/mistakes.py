"""Mistakes that people make, and what is said of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

SECRETS = ("hunter2", "zx9q", "pw0rd")  # planted; none of them may ever be seen

FILES = {
    "empty": b"",
    "password": b"hunter2\n",
    "binary": b"\xff\xfe\x00",
    "broken.toml": b'[kafka]\nsasl_password = "hunter2\n',
    "colon.toml": b"[kafka]\nsasl_password: hunter2\n",
    "twice.toml": b'[state]\npassword = "hunter2"\npassword = "zx9q"\n',
    "pem": b"-----BEGIN PRIVATE KEY-----\nzx9q\n-----END PRIVATE KEY-----\n",
    "empty.csv": b"",
    "history.csv": b"t,v\n2024-01-01T00:00:00,1\n2024-01-01T00:01:00,2\n",
    "text.csv": b"t,v\n2024-01-01T00:00:00,one\n",
    "ragged.csv": b't,v\n2024-01-01,1\n2024-01-02,"2\n',
    "no.parquet": b"t,v\n",
    "recipe.toml": b"network = [",
}

SASL = ["kafka.security_protocol=SASL_SSL", "kafka.sasl_mechanism=PLAIN", "kafka.sasl_username=me"]


@dataclass(frozen=True)
class Mistake:
    """One command with a mistake, and what must be said of it."""

    says: tuple[str, ...]  # each a part of the message: what, where, what to do
    command: str = "config check"
    sets: tuple[str, ...] = ()
    toml: str | bytes | None = None  # stream-gru.toml of the folder
    variables: Mapping[str, str] = field(default_factory=dict)
    code: int = 2


def sets(*assignments: str, says: tuple[str, ...]) -> Mistake:
    return Mistake(says, sets=assignments)


def command(line: str, *says: str) -> Mistake:
    return Mistake(says, line)


def in_file(toml: str | bytes, *says: str) -> Mistake:
    return Mistake(says, toml=toml)


def variable(name: str, value: str, *says: str, code: int = 2) -> Mistake:
    return Mistake(says, variables={f"STREAM_GRU_{name}": value}, code=code)


def url(text: str, *says: str) -> Mistake:
    return Mistake(("state.url: ", *says, "environment variable"), variables={"STREAM_GRU_STATE__URL": text})


MISTAKES = {
    # names
    "a section that there is not": sets("nosuch.x=1", says=("nosuch.x: there is no such setting", "flag nosuch.x")),
    "a value for a section": sets("kafka=1", says=("kafka: is a section", "name what to set in it, as kafka.")),
    "a misspelt secret, flag": sets(
        "kafka.sasl_pasword=hunter2", says=("kafka.sasl_pasword: there is no", "did you mean kafka.sasl_password?")
    ),
    "a misspelt secret, file": in_file(
        '[kafka]\nsasl_pasword = "hunter2"',
        "kafka.sasl_pasword",
        "did you mean kafka.sasl_password?",
        "stream-gru.toml",
    ),
    "a misspelt secret, section": in_file('[kafak]\nsasl_password = "hunter2"', "did you mean kafka.sasl_password?"),
    "a section in a section": in_file('[kafka.sasl]\npassword = "hunter2"', "kafka.sasl: there is no such setting"),
    "a secret for a section": in_file('kafka = "hunter2"', "kafka: is a section", "stream-gru.toml"),
    "a setting that is no section": in_file("[role]\nx = 1", "role.x: there is no such setting"),
    "a flag without =": sets("kafka.sasl_password:hunter2", says=("--set takes NAME=VALUE", "number 1")),
    "a flag without a name": sets("role=all", "=hunter2", says=("--set takes NAME=VALUE", "number 2")),
    # values
    "text for a number, flag": sets("state.capacity=lots", says=("state.capacity: ", "'lots'", "flag state.capacity")),
    "text for a number, variable": variable("STATE__CAPACITY", "lots", "'lots'", "variable STREAM_GRU_STATE__CAPACITY"),
    "text for a number, file": in_file('[state]\ncapacity = "lots"', "state.capacity", "'lots'", "stream-gru.toml"),
    "a number out of range": sets(
        "metrics.port=70000", says=("metrics.port: ", "less than or equal to 65535", "70000")
    ),
    "an address of another machine": sets(
        "metrics.host=192.0.2.1", says=("metrics.host, metrics.port: can't listen on 192.0.2.1:9108",)
    ),
    "no name of a host": sets("metrics.host=no..where", says=("metrics.port: can't listen on no..where",)),
    "a number for text": in_file("[kafka]\ngroup_id = 7", "kafka.group_id: ", "valid string", "7"),
    "a number for a secret": in_file("[kafka]\nsasl_password = 992", "kafka.sasl_password: ", "stream-gru.toml"),
    "a table for a secret": in_file('[state]\npassword = {x = "hunter2"}', "state.password: ", "stream-gru.toml"),
    "another word": sets("kafka.compression=best", says=("'gzip'", "'best'", "flag kafka.compression")),
    "empty text": variable("KAFKA__GROUP_ID", "", "kafka.group_id: ", "at least 1", "STREAM_GRU_KAFKA__GROUP_ID"),
    "an empty list": variable("INPUT__VALUES", "", "input.values: ", "at least 1"),
    "a list that is none": variable("TOPICS__READINGS", '["a", ', "topics.readings: ", "STREAM_GRU_TOPICS__READINGS"),
    "a name with a space": variable("TOPICS__READINGS", "a,b c", "topics.readings.1: ", "'b c'"),
    "a whole file for a path": variable(
        "KAFKA__SSL_KEYFILE", FILES["pem"].decode(), "kafka.ssl_keyfile: ", "give the path of the file"
    ),
    # the file
    "no such file": command("config check -c nowhere.toml", "configuration file nowhere.toml does not exist"),
    "no such file, variable": variable("CONFIG", "nowhere.toml", "nowhere.toml (STREAM_GRU_CONFIG) does not exist"),
    "a folder as the file": command("config show -c folder", "configuration file folder can't be read: Is a directory"),
    "a file that can't be read": command("config show -c /proc/self/mem", "/proc/self/mem can't be read: Input"),
    "a file that is not UTF-8": in_file(b'role = "\xff"', "stream-gru.toml is not valid TOML: byte 8 is not UTF-8"),
    "a quote left open": command("config check -c broken.toml", "broken.toml is not valid TOML", "line 2"),
    "a colon for =": command("config check -c colon.toml", "colon.toml is not valid TOML", "line 2"),
    "a name twice": command("config check -c twice.toml", "twice.toml is not valid TOML", "line 3"),
    # what goes together
    "a login that is not whole": sets(
        "kafka.security_protocol=SASL_SSL", says=("kafka: ", "also needs sasl_mechanism", "sasl_password_file", "flag")
    ),
    "a password twice": Mistake(
        ("kafka: sasl_password and sasl_password_file are both set", "stream-gru.toml", "STREAM_GRU_KAFKA__SASL"),
        toml='[kafka]\nsasl_password = "hunter2"',
        variables={"STREAM_GRU_KAFKA__SASL_PASSWORD_FILE": "password"},
    ),
    "a topic twice": sets("topics.alerts=readings", says=("topics: ", "used twice: readings")),
    "a field twice": sets("input.values=v,v", says=("input.values: a field is named twice", "flag input.values")),
    "a field inside another": sets("input.values=a,a.b", says=("input: the field", "'a'")),
    "timeouts in the wrong order": sets(
        "kafka.rebalance_timeout_s=40", says=("rebalance_timeout_s 40 must be less than request_timeout_s 30", "flag")
    ),
    "a memory for less than two batches": sets(
        "state.capacity=100", says=("state.capacity 100 must be at least twice worker.max_batch",)
    ),
    "a certificate without TLS": sets(
        "kafka.ssl_cafile=ca.pem", says=("kafka.ssl_cafile: not used with kafka.security_protocol PLAINTEXT",)
    ),
    "a password without SASL": sets(
        "kafka.sasl_password=hunter2", says=("kafka.sasl_password: not used with", "PLAINTEXT")
    ),
    # addresses
    "a user in a Kafka address": variable(
        "KAFKA__BOOTSTRAP_SERVERS",
        "me:zx9q,hunter2@kafka:9092",
        "kafka.bootstrap_servers: takes host:port alone",
        "kafka.sasl_password",
    ),
    "a port that is none": sets("kafka.bootstrap_servers=a:1,b:x", says=("'b:x' is not host:port", "flag kafka.boot")),
    "a port too high": sets("kafka.bootstrap_servers=a:99999", says=("'a:99999' is not host:port",)),
    "a URL for an address": sets("kafka.bootstrap_servers=http://a:1", says=("is not host:port",)),
    "a comma too many": sets("kafka.bootstrap_servers=a:1,", says=("'' is not host:port",)),
    "IPv6 without brackets": sets("kafka.bootstrap_servers=::1:9092", says=("stands in brackets, as [::1]:9092",)),
    # the URL of the store
    "a # in a password": url("redis://me:zx9q#hunter2@host/0", "redis://***", "# as %23", "state.password_file"),
    "a / in a password": url("redis://me:12/hunter2@host/0", "redis://***", "/ as %2F"),
    "a ? in a password": url("redis://me:zx9q?hunter2@host/0", "redis://***", "? as %3F"),
    "an @ in a parameter": url("redis://host/0?password=zx9q@hunter2", "redis://***", "@ as %40"),
    "a URL without a scheme": url("me:hunter2@host:6379", "is no URL such as redis://HOST:6379/0"),
    "a password without a host": url("redis://me:hunter2", "redis://***", "HOST:PORT"),
    "a port that is no number": url("redis://me:hunter2@host:port/0", "redis://me:***@host:port/0", "HOST:PORT"),
    "a database that is none": url("redis://:hunter2@host/main", "redis://:***@host/main", "number of a database"),
    "a parameter that there is not": url(
        "redis://host/0?pasword=hunter2", "redis://host/0?***", "username and password"
    ),
    "a password and a parameter": url("redis://:hunter2@host/0?password=zx9q", ":***@host/0?password=***", "twice"),
    "a user without a password": Mistake(
        ("state: there is a user but no password", "variable STREAM_GRU_STATE__URL"),
        variables={"STREAM_GRU_STATE__URL": "redis://hunter2@host/0"},
    ),
    "a password in the URL and beside it": Mistake(
        ("state: url holds a password, and so does password", "flag state.password"),
        sets=("state.password=zx9q",),
        variables={"STREAM_GRU_STATE__URL": "redis://:hunter2@host/0"},
    ),
    "certificates without TLS": sets(
        "state.ssl_cafile=ca.pem", says=("ssl_cafile is set, but url is redis://", "rediss")
    ),
    "a store that there is not": sets(
        "state.url=mongodb://me:hunter2@host", says=("no store for mongodb://; there are memory, redis",)
    ),
    # files of secrets and certificates
    "no file of a password": sets(
        *SASL,
        "kafka.sasl_password_file=folder/nowhere",
        says=("kafka.sasl_password_file: folder/nowhere can't be read: No such file",),
    ),
    "a password for its file": sets(
        "state.password_file=hunter2", says=("state.password_file: the file that it names can't be read: No such file",)
    ),
    "an empty file of a password": sets("state.password_file=empty", says=("state.password_file: empty is empty",)),
    "a folder for a password": sets("state.password_file=folder", says=("password_file: folder can't be read",)),
    "a password that is no text": sets("state.password_file=binary", says=("password_file: binary is not UTF-8",)),
    "no file of certificates": sets(
        "kafka.security_protocol=SSL", "kafka.ssl_cafile=nowhere", says=("kafka.ssl_cafile: there is no file",)
    ),
    "a file without certificates": sets(
        "state.url=rediss://host", "state.ssl_cafile=pem", says=("state.ssl_cafile: pem holds no PEM",)
    ),
    "a key without a certificate": sets(
        "kafka.security_protocol=SSL", "kafka.ssl_keyfile=pem", says=("kafka.ssl_keyfile", "set both or neither")
    ),
    "a key that is none": sets(
        "kafka.security_protocol=SSL", "kafka.ssl_certfile=pem", says=("kafka.ssl_certfile: pem", "must be PEM")
    ),
    # the model
    "no such bundle": sets("model.bundle=nowhere", says=("nowhere is not a model bundle", "stream-gru train")),
    "a folder that is no bundle": sets("model.bundle=folder", says=("folder is not a model bundle",)),
    "steps that it can't forecast": sets(
        "model.bundle=light", "model.horizons=5", says=("model.horizons: light", "leave the setting out")
    ),
    "covariates that it has not": sets(
        "input.covariates=load", says=("input.covariates: the model's are none", "load")
    ),
    "a codec that there is not": sets("input.codec=xml", says=("no codec 'xml'; there are", "json")),
    # other commands
    "no history": command("backtest nowhere.csv --time t --value v --out out", "there is no file nowhere.csv"),
    "an empty history": command("backtest empty.csv --time t --value v --out out", "empty.csv can't be read"),
    "no such column": command(
        "backtest history.csv --time x --value v --out out", "history.csv has no column x; it has t, v"
    ),
    "text in a history": command("backtest text.csv --time t --value v --out out", "text.csv: v is no number in row 1"),
    "a quote left open in a history": command(
        "backtest ragged.csv --time t --value v --out out", "ragged.csv can't be read"
    ),
    "a history of another kind": command(
        "backtest no.parquet --time t --value v --out out", "no.parquet can't be read"
    ),
    "an output inside a file": command(
        "backtest history.csv --time t --value v --out empty/x",
        "--out: empty/x can't be written to",
        "empty is no folder",
    ),
    "a fit into a file": command("train --out empty", "--out: empty can't be written to"),
    "a search into a file": command("tune --out empty history.csv --time t --value v", "--out: empty can't be"),
    "a report into a file": command("evaluate nab --data folder --out empty", "--out: empty can't be"),
    "a picture into a file": command(
        "gates --file history.csv --time t --value v --out empty", "--out: empty can't be written"
    ),
    "advice into a folder": command(
        "advise history.csv --time t --value v --out folder", "--out: folder is a folder; give the name of a file"
    ),
    "a comparison into nowhere": command(
        "compare history.csv --time t --value v --out empty/x", "--out: empty/x can't be"
    ),
    "labels into a folder": command("simulate --labels folder", "--labels: folder is a folder"),
    "thresholds into no bundle": command("calibrate empty", "BUNDLE: empty can't be written to"),
    "a recipe that is none": command("train --out out --recipe recipe.toml", "recipe.toml is no TOML"),
    "servers of a demo that are none": command(
        "demo --kafka a:b --redis redis://me:zx9q#hunter2@host",
        "kafka.bootstrap_servers: 'a:b' is not host:port",
        "state.url: redis://***",
    ),
}
