"""Which model a group serves: the one that its settings name, or the one that a reload has put in its place (R18).

A reload writes the bundle and what it replaced into the store, under the group. Whoever starts with a model that was
replaced serves the group's, also on a machine that has never seen its folder; another model is refused.
"""

from __future__ import annotations

import logging

from stream_gru.errors import BundleError, IdentityError
from stream_gru.models import bundle as bundles
from stream_gru.models.bundle import Bundle
from stream_gru.stores import Chosen, Store

log = logging.getLogger(__name__)


async def chosen_bundle(store: Store, group: str, configured: Bundle) -> Bundle:
    """The model that `group` serves, for a worker that is set up with, or serves, `configured`.

    Raises `IdentityError` where the group has another one, and `BundleError` where the store's copy can't be used here.
    """
    chosen = await store.chosen(group, files=False)
    if chosen is None or chosen.digest == configured.digest:
        return configured
    if configured.digest not in chosen.replaced:
        before = ", ".join(sorted(chosen.replaced.values()))
        raise IdentityError(
            f"group {group} serves {chosen.name} since a `stream-gru command reload`, but model.bundle is "
            f"{configured.name}, which no reload replaced. Set model.bundle to {chosen.name} or to what it replaced "
            f"({before}), start, and give the group the other model with `stream-gru command reload FOLDER`; or forget "
            "the group's model with all of its state: `stream-gru state reset`"
        )
    whole = await store.chosen(group, files=True)
    if whole is None or whole.digest != chosen.digest:  # something changed just now
        return await chosen_bundle(store, group, configured)
    bundle = bundles.parse(whole.files, f"the state store's copy of {whole.name}")
    if bundle.digest != whole.digest:
        raise BundleError(
            f"the state store's copy of {whole.name} is damaged: its digest is {bundle.digest[:12]}. Set model.bundle "
            "to that model's own folder"
        )
    log.warning(
        "serving %s, which a reload put in the place of %s; set model.bundle to its folder when you can",
        bundle.name, configured.name,
    )  # fmt: skip
    return bundle


def as_chosen(bundle: Bundle, files: dict[str, bytes]) -> Chosen:
    """What `Store.choose` is told of a bundle."""
    return Chosen(bundle.digest, bundle.name, {}, files)
