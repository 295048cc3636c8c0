"""What is secret, where it is kept, and how it is kept out of sight: the one place that knows.

Whatever of the settings is shown to anybody goes through `shown`, `mask_url` or pydantic's `SecretStr`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

from pydantic import SecretStr

from stream_gru.errors import CredentialsError

HIDDEN = "***"
LARGEST_FILE_BYTES = 65_536  # what is longer is no password
_SHOWN_CHARACTERS = 120  # of a wrong value: enough to find it again
_URL = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<authority>[^/?#]*)(?P<path>[^?#]*)(?:\?(?P<query>[^#]*))?(?P<fragment>#.*)?",
    re.DOTALL | re.IGNORECASE,
)
_HOST = re.compile(r"(?P<host>\[[0-9a-fA-F:.]+\]|[^\s:\[\]]+)?(?::(?P<port>\d{1,5}))?")
_ENCODE = (
    "in a user name or a password write @ as %40, / as %2F, ? as %3F, # as %23, or keep the password in a file of its "
    "own: state.password_file"
)


def read(setting: str, value: SecretStr | None, file: Path | None) -> str | None:
    """The secret of `setting` as it is now: its file is read anew at each call, so that it can be rotated.

    Line ends behind it do not belong to it. Raises `CredentialsError`, naming setting and file, when it can't be read.
    """
    if file is None:
        return None if value is None else value.get_secret_value()
    # What names no folder may be the secret itself, put into the wrong setting.
    where = f"{setting}_file: {file if file.exists() or len(file.parts) > 1 else 'the file that it names'}"
    try:
        with file.open("rb") as content:
            secret = content.read(LARGEST_FILE_BYTES + 1)
    except OSError as error:
        raise CredentialsError(f"{where} can't be read: {error.strerror}") from None
    if len(secret) > LARGEST_FILE_BYTES:
        raise CredentialsError(f"{where} is longer than {LARGEST_FILE_BYTES} bytes, so it holds no password")
    try:
        text = secret.decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError:
        raise CredentialsError(f"{where} is not UTF-8 text") from None
    if not text:
        raise CredentialsError(f"{where} is empty; it must hold the secret and nothing else")
    return text


class Address(NamedTuple):
    """A URL of a server in its parts, decoded."""

    scheme: str
    host: str
    port: int | None
    database: int
    username: str | None
    password: str | None


def split_url(url: str) -> Address:
    """The parts of ``scheme://user:password@host:port/database``; user and password may also be parameters of it.

    Raises `ValueError` that says what is wrong and shows no part that may be secret.
    """
    parts = _URL.fullmatch(url.strip("\r\n"))
    if parts is None:
        raise ValueError("is no URL such as redis://HOST:6379/0")
    if parts["fragment"] is not None or "@" in url.strip("\r\n")[parts.end("authority") :]:
        raise ValueError(f"{mask_url(url)} has an @ or a # behind its address: {_ENCODE}")
    credentials, at, server = parts["authority"].rpartition("@")
    place = _HOST.fullmatch(server)
    if place is None or int(place["port"] or 0) > 65_535:
        raise ValueError(f"{mask_url(url)} does not name a server as HOST:PORT")
    if not re.fullmatch(r"/?\d*", parts["path"]):
        raise ValueError(f"{mask_url(url)} ends in what is not the number of a database, as in redis://HOST:6379/0")
    username, colon, password = credentials.partition(":")
    given = {"username": unquote(username) or None, "password": unquote(password) if at and colon else None}
    for parameter in parts["query"].split("&") if parts["query"] else ():
        name, _, value = parameter.partition("=")
        if name not in given:
            raise ValueError(
                f"{mask_url(url)} has a parameter that is not known; there are username and password, and certificates "
                "are settings of their own: ssl_cafile, ssl_certfile, ssl_keyfile"
            )
        if given[name] is not None:
            raise ValueError(f"{mask_url(url)} gives the {name} twice")
        given[name] = unquote(value)
    host, port = (place["host"] or "").strip("[]"), place["port"]
    return Address(
        parts["scheme"].lower(), host, int(port) if port else None, int(parts["path"].strip("/") or 0), **given
    )


def mask_url(url: str) -> str:
    """`url` without its password, wherever it stands; wholly hidden where one can't tell what is secret in it."""
    parts = _URL.fullmatch(url.strip("\r\n"))
    if parts is None:
        return HIDDEN
    path, query = parts["path"], parts["query"]
    behind = url.strip("\r\n")[parts.end("authority") :]
    credentials, at, server = parts["authority"].rpartition("@")
    # An @ further on may end a password with a / in it, and host:word may be the start of one.
    if "@" in behind or (not at and not _HOST.fullmatch(server)):
        return f"{parts['scheme']}://{HIDDEN}"
    user, colon, _ = credentials.partition(":")
    if at:
        server = f"{user}:{HIDDEN}@{server}" if colon else f"{HIDDEN}@{server}"
    masked = "" if query is None else "?" + "&".join(map(_mask_parameter, query.split("&")))
    return f"{parts['scheme']}://{server}{path}{masked}" + ("" if parts["fragment"] is None else f"#{HIDDEN}")


def shown(value: Any) -> str | None:
    """A wrong value as an error message may show it; None: not at all."""
    if isinstance(value, list | tuple):
        texts = [shown(item) for item in value]
        return None if None in texts else f"[{', '.join(map(str, texts))}]"
    if isinstance(value, str):
        if "://" in value:
            value = mask_url(value)
        if "\n" in value or "-----" in value:  # a key or a whole file, where its path was meant
            return None
        value = re.sub(r"^.*@", f"{HIDDEN}@", value)
        return repr(value if len(value) <= _SHOWN_CHARACTERS else value[:_SHOWN_CHARACTERS] + "...")
    return repr(value) if isinstance(value, int | float) else None


def _mask_parameter(parameter: str) -> str:
    name, _, _ = parameter.partition("=")
    if name == "username":
        return parameter
    return f"password={HIDDEN}" if name == "password" else HIDDEN  # a password with an & in it looks like a name
