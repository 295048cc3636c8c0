"""TLS to Kafka and to Redis: one context from the same five settings, and its errors in words."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Protocol

from stream_gru.errors import CredentialsError, chain


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


# OpenSSL's numbers for what is wrong with the other side's certificate (X509_V_ERR_*).
_NOT_YET_VALID, _EXPIRED, _WRONG_NAME, _WRONG_ADDRESS = 9, 10, 62, 64
_UNKNOWN_CA = {2, 7, 18, 19, 20, 21, 27}  # 7: a CA of the same name with another key


def explain(error: BaseException, section: str, files: Certificates) -> str | None:
    """What is wrong with TLS, if the chain of `error` says that anything is; it may follow the server's name."""
    for seen in chain(error):
        if isinstance(seen, ssl.SSLCertVerificationError):
            return f"its certificate {_untrusted(seen, section, files)}"
        if isinstance(seen, ssl.SSLError):
            return _refused(seen, section, files)
    return None


def _untrusted(error: ssl.SSLCertVerificationError, section: str, files: Certificates) -> str:
    if error.verify_code == _EXPIRED:
        return "has expired; it needs a new one (or this machine's clock is wrong)"
    if error.verify_code == _NOT_YET_VALID:
        return "is not valid yet; is this machine's clock right?"
    if error.verify_code in (_WRONG_NAME, _WRONG_ADDRESS):
        return (
            f"is for another name ({error.verify_message.rstrip('.')}); connect by a name that stands in it, or give "
            "the server one for this name"
        )
    if error.verify_code in _UNKNOWN_CA:
        trusted = f"{section}.ssl_cafile {files.ssl_cafile}" if files.ssl_cafile else "this machine's list of CAs"
        return f"is signed by a CA that is not in {trusted}; set {section}.ssl_cafile to the CA of the server"
    return f"can't be trusted: {error.verify_message}"


def _refused(error: ssl.SSLError, section: str, files: Certificates) -> str | None:
    if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return None  # it ended the connection without a word
    reason = (error.reason or str(error)).upper()
    if "ALERT" not in reason:
        return f"it speaks no TLS at that port ({reason.lower().replace('_', ' ')})"
    said = reason.split("ALERT_")[-1].replace("_", " ").lower()
    if files.ssl_certfile is None:
        return (
            f"it refuses the TLS connection ({said}) and asks for a client certificate; set {section}.ssl_certfile and "
            f"{section}.ssl_keyfile, or give a port that asks for none"
        )
    return (
        f"it refuses our certificate ({said}); is {section}.ssl_certfile {files.ssl_certfile} signed by a CA that the "
        "server trusts, and is it valid today?"
    )
