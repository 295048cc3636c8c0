"""One exception tree. The command line prints the message of a `StreamGruError` and nothing else."""

from __future__ import annotations

from collections.abc import Iterator


def chain(error: BaseException) -> Iterator[BaseException]:
    """`error` and what it followed from, each once: an error that a library keeps and raises again can follow from
    itself, and whoever walks along its causes would never arrive."""
    seen: set[int] = set()
    at: BaseException | None = error
    while at is not None and id(at) not in seen:
        seen.add(id(at))
        yield at
        at = at.__cause__ or at.__context__


class StreamGruError(Exception):
    """Something the user can act on: the message says what, where and what to do."""


class SettingsError(StreamGruError):
    """The configuration is wrong."""


class CredentialsError(SettingsError):
    """A file with a password, a key or a certificate can't be used now. Once it was, it may be about to be replaced."""


class BundleError(StreamGruError):
    """A model bundle is missing, damaged or made for another version."""


class DataError(StreamGruError):
    """A history file can't be read as asked."""


class OutputError(StreamGruError):
    """Results can't be written where they were asked for."""


class TrainingError(StreamGruError):
    """A fit can't be started as asked, can't go on, or lacks what the `training` extra installs."""


class StoreError(StreamGruError):
    """The state store refused a call or can't be used as it is set up."""


class StoreUnavailableError(StoreError):
    """The state store does not answer now; the same call may be repeated."""


class FencedError(StoreError):
    """Another worker owns the partition now (rule R2): everything held for it must be dropped."""


class IdentityError(StoreError):
    """Stored state belongs to another topic, model, bucket count or row version (rule R17)."""


class StateLostError(StoreError):
    """The group has a commit but the store has no state (rule R15), and the settings say to refuse."""


class GapError(StreamGruError):
    """Kafka no longer holds records that were not processed (rule R16), and the settings say to refuse."""


class BrokerError(StreamGruError):
    """Kafka can't be reached, or its topics are not as they must be."""


class BrokerRefusedError(BrokerError):
    """Kafka answers, and refuses who we are: a password, a certificate, a name. Waiting alone mends nothing."""
