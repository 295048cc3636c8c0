"""Studies of optuna: opened under a name, new or as they were left."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from stream_gru.errors import SettingsError, TrainingError
from stream_gru.training.tuning import space
from stream_gru.training.tuning.space import Space

if TYPE_CHECKING:
    from optuna import Study
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler

_STARTUP_TRIALS = 3  # finished trials before one is pruned against their median


@dataclass(frozen=True, slots=True)
class Search:
    """How to search, how long, and under which name it can go on later."""

    sampler: Literal["grid", "random", "tpe"] = "tpe"
    pruner: Literal["median", "asha", "none"] = "median"
    goal: Literal["loss", "error"] = "loss"  # held-back loss, or error relative to the last value's
    trials: int | None = None  # more of them; none: until `minutes`, the end of the grid, or 20
    minutes: float | None = None
    seed: int = 0
    name: str = "tune"
    storage: str | None = None  # a file for SQLite or a URL of optuna; none: nothing is kept


@contextmanager
def opened(search: Search, dimensions: Space, problem: dict[str, Any]) -> Iterator[Study]:
    """The study of that name, new or as it was left. Raises `SettingsError` when it was about something else."""
    try:
        import optuna
    except ImportError:
        raise TrainingError("tuning needs the `training` extra: pip install 'stream-gru[training]'") from None
    from sqlalchemy.exc import SQLAlchemyError

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = None
    if search.storage is not None:
        url = search.storage if "://" in search.storage else f"sqlite:///{search.storage}"
        try:
            storage = optuna.storages.RDBStorage(url)
        except (SQLAlchemyError, ImportError, optuna.exceptions.StorageInternalError) as error:
            reason = str(error.__cause__ or error).splitlines()[0]
            raise SettingsError(f"study {search.storage} can't be opened: {reason}") from None
    try:
        study = optuna.create_study(storage=storage, study_name=search.name, load_if_exists=True)
        for name, expected in problem.items():
            held = study.user_attrs.get(name, expected)
            if held != expected:
                raise SettingsError(
                    f"study {search.name} was begun with another {name}: {_difference(held, expected)}; give this one "
                    "another --name"
                )
            study.set_user_attr(name, expected)
        # Another seed each time: a sampler that began again would propose what was tried.
        study.sampler = _sampler(search, dimensions, search.seed + len(study.trials))
        study.pruner = _pruner(search)
        yield study
    finally:
        if storage is not None:
            storage.remove_session()
            storage.engine.dispose()


def _sampler(search: Search, dimensions: Space, seed: int) -> BaseSampler:
    from optuna.samplers import GridSampler, RandomSampler, TPESampler

    if search.sampler == "grid":
        # The seed shuffles the numbers by which a study knows which combinations it has made: always the same one.
        return GridSampler(space.grid(dimensions), seed=0)
    return RandomSampler(seed=seed) if search.sampler == "random" else TPESampler(seed=seed)


def _pruner(search: Search) -> BasePruner:
    from optuna.pruners import MedianPruner, NopPruner, SuccessiveHalvingPruner

    if search.pruner == "median":
        return MedianPruner(n_startup_trials=_STARTUP_TRIALS)
    return SuccessiveHalvingPruner() if search.pruner == "asha" else NopPruner()


def _difference(held: Any, now: Any) -> str:
    """The first thing that is not the same, in words."""
    if isinstance(held, dict) and isinstance(now, dict):
        for name in sorted(held.keys() | now.keys()):
            if held.get(name) != now.get(name):
                return f"{name} {_difference(held.get(name), now.get(name))}"
    return f"{held}, now {now}"
