"""TLS to Kafka and to Redis: one context from the same five settings, and its errors in words."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Protocol

from stream_gru.errors import CredentialsError


class Certificates(Protocol):
    """The part of a section of the settings that is about TLS."""

    @property
    def ssl_cafile(self) -> Path | None: ...
    @property
    def ssl_certfile(self) -> Path | None: ...
    @property
    def ssl_keyfile(self) -> Path | None: ...

    def key_password(self) -> str | None:
        """The passphrase of the key as it is now."""
        ...


def context(section: str, files: Certificates) -> ssl.SSLContext:
    """A context that checks the server's name and certificate, with our own certificate if there is one.

    Files are read anew at each call. Raises `CredentialsError` that names the setting, as ``kafka.ssl_cafile``.
    """
    for name in ("ssl_cafile", "ssl_certfile", "ssl_keyfile"):
        _readable(f"{section}.{name}", getattr(files, name))
    if files.ssl_keyfile is not None and files.ssl_certfile is None:
        raise CredentialsError(f"{section}.ssl_keyfile is set but {section}.ssl_certfile is not; set both or neither")
    try:
        made = ssl.create_default_context(cafile=files.ssl_cafile)
    except ssl.SSLError as error:
        raise CredentialsError(
            f"{section}.ssl_cafile: {files.ssl_cafile} holds no PEM certificate ({error.reason or error})"
        ) from None
    if files.ssl_certfile is not None:
        _own(made, section, files, files.ssl_certfile)
    return made


def _own(made: ssl.SSLContext, section: str, files: Certificates, certificate: Path) -> None:
    key, passphrase = files.ssl_keyfile, files.key_password()
    try:
        # The password: without one given, OpenSSL would ask the terminal and a service would hang.
        made.load_cert_chain(certificate, key, password=lambda: passphrase or "")
    except (ssl.SSLError, ValueError) as error:
        pair = f"{certificate} and its key {key}" if key else f"{certificate} (certificate and key)"
        why = "both must be PEM and belong together"
        if b"ENCRYPTED" in (key or certificate).read_bytes():
            setting = f"{section}.ssl_key_password"
            why = f"{setting} does not open the key" if passphrase else f"the key has a passphrase: set {setting}_file"
        reason = getattr(error, "reason", None) or error
        raise CredentialsError(f"{section}.ssl_certfile: {pair} can't be used ({reason}); {why}") from None


def _readable(setting: str, file: Path | None) -> None:
    if file is None:
        return
    if not file.exists():
        raise CredentialsError(f"{setting}: there is no file {file}")
    try:
        file.open("rb").close()
    except OSError as error:
        raise CredentialsError(f"{setting}: {file} can't be read: {error.strerror}") from None


_VERIFY = {  # OpenSSL's codes
    7: "is signed with another key than the authority of that name in ssl_cafile has",
    9: "is not valid yet; is the clock right?",
    10: "has expired",
    18: "is signed by itself and not among those of ssl_cafile",
    19: "comes from an authority that is not among those of ssl_cafile",
    20: "comes from an authority that is not among those of ssl_cafile",
    21: "comes from an authority that is not among those of ssl_cafile",
    62: "is for another name than the one that we connect to",
    64: "is for another address than the one that we connect to",
}


def explain(error: BaseException) -> str | None:
    """What is wrong with TLS, if the chain of `error` says that anything is; it may follow the server's name."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ssl.SSLCertVerificationError):
            why = _VERIFY.get(seen.verify_code, f"can't be trusted ({seen.verify_message})")
            return f"its certificate {why}"
        if isinstance(seen, ssl.SSLError):
            reason = (seen.reason or "").upper()
            if "WRONG_VERSION" in reason or "RECORD_LAYER" in reason or "HTTP_REQUEST" in reason:
                return "it does not speak TLS at that port"
            if "ALERT" in reason or "CERTIFICATE" in reason:
                said = reason.replace("TLSV1_", "").replace("TLSV13_", "").replace("SSLV3_", "").replace("_", " ")
                return f"it refused our certificate, or wants one ({said.lower()})"
        seen = seen.__cause__ or seen.__context__
    return None
