"""Redis' errors as ours: what is wrong, where, what to do, and whether it passes by itself."""

from __future__ import annotations

import re

from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    ConnectionError,  # noqa: A004 - Redis' own, and told apart from Python's below
    NoPermissionError,
    TimeoutError,  # noqa: A004
)

from stream_gru import tls
from stream_gru.errors import CredentialsError, StoreError, StoreUnavailableError
from stream_gru.errors import chain as causes
from stream_gru.settings import State
from stream_gru.stores._redis_scripts import SCRIPTS

# What a server says while it can't take a call now, which was refused as a whole and may be repeated. From inside a
# script Redis 6 says it within another error.
PASSING = re.compile(
    r"(^|: -)(OOM|MISCONF|LOADING|BUSY|READONLY|MASTERDOWN|CLUSTERDOWN|TRYAGAIN|NOREPLICAS|NOSCRIPT)\b"
)

# Redis before 7.2 does not call it NOPERM when a command inside a script is refused.
_DENIED = re.compile(r"can't (run this command or subcommand|access at least one of the keys)")
_CLOSED = re.compile(r"reset by peer|closed by server")

# What Redis says, and hangs up, when a call of any size comes from one who has not logged in: it does not look inside.
_STRANGER = re.compile(r"unauthenticated (multibulk|bulk) length")


class Causes:
    """Explains the errors of the one server that the settings name."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._where = f"Redis at {state.shown_url}"
        self._login_from = _login_from(state)
        self._may_change = state.password_file is not None  # a refusal may pass: the password may be rotated
        self.answered = False  # it took our calls once, so a refusal may pass, too

    def explain(self, error: Exception) -> StoreError:
        """`error` of the client as one of ours: a `StoreUnavailableError` if the same call may do later."""
        for cause in causes(error):
            if isinstance(cause, CredentialsError):  # a file that is away or in the making
                return StoreUnavailableError(f"no connection to {self._where}: {cause}")
        if refusal := self._refusal(error):
            passing = self.answered or self._may_change
            return (StoreUnavailableError if passing else StoreError)(f"{self._where} {refusal}")
        said = f"{getattr(error, 'status_code', None) or ''} {error}".strip()
        if isinstance(error, NoPermissionError) or _DENIED.search(said):
            return StoreUnavailableError(
                f"{self._where}: its user lacks a right: {said}{_denied_command(said)}. Grant it with ACL SETUSER; "
                "docs/security.md has the line"
            )
        if isinstance(error, ConnectionError | TimeoutError | OSError):
            return StoreUnavailableError(f"{self._where} does not answer: {error}{self._other_scheme(error)}")
        if PASSING.search(said):
            return StoreUnavailableError(f"{self._where} can't take the call now: {said}")
        return StoreError(f"{self._where} refused the call: {said}")

    def _refusal(self, error: Exception) -> str | None:
        """Why it is not we that may call, or not it that we may trust; None: that is not the matter."""
        if isinstance(error, AuthenticationError | AuthorizationError) or _STRANGER.search(str(error)):
            if self._login_from is None:
                return "wants a password: set state.password_file, and state.username if there is one"
            return f"refused the user or the password of {self._login_from}: {error}"
        problem = tls.explain(error, "state", self._state)
        return problem and f"can't be reached over TLS: {problem}"

    def _other_scheme(self, error: Exception) -> str:
        """What may be behind it that a port never answered: it is spoken to in the other way, with or without TLS."""
        if self.answered:
            return ""
        broken = _CLOSED.search(str(error))
        if self._state.address.scheme == "rediss":
            if broken:  # TLS 1.3: the handshake ends before the server has looked
                return "; does it ask for a certificate (state.ssl_certfile), or not trust it?"
            if isinstance(error, TimeoutError):
                return "; if it is a port without TLS, write redis:// in state.url"
            return ""
        return "; if it is a port for TLS, write rediss:// in state.url" if broken else ""


def _login_from(state: State) -> str | None:
    """Where the password is kept, in words; None: there is none."""
    if state.password_file is not None:
        return f"state.password_file, {state.password_file}"
    if state.password is not None:
        return "state.password"
    return "state.url" if state.address.password is not None else None


def _denied_command(said: str) -> str:
    """Which command of our scripts it was: Redis before 7.2 tells only the line."""
    sha, line = re.search(r"\b[0-9a-f]{40}\b", said), re.search(r"@?user_script:(\d+)", said)
    if sha is None or line is None:
        return ""
    for script in SCRIPTS:
        if script.sha.decode() == sha[0]:
            lines = script.text.decode().splitlines()[: int(line[1])]
            called = re.findall(r"redis\.call\('(\w+)'", "\n".join(lines))
            return f" ({called[-1].lower()})" if called else ""
    return ""
