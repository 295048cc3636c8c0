"""Which model a worker serves, from what it is set up with and what the store says of its group."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from stream_gru import stores
from stream_gru.errors import BundleError, IdentityError
from stream_gru.models import bundle as bundles
from stream_gru.protocol.opening import Start
from stream_gru.protocol.partition import Partition
from stream_gru.stores import Assigned, Identity, PartitionId
from stream_gru.worker.model import as_chosen, chosen_bundle

LIGHT = bundles.SHIPPED["light"]
ID = PartitionId("g", "t", 0)
OLD = Identity("T-1", 4, 16, "old", "1", "old@old")


async def test_a_group_without_a_choice_serves_what_is_configured() -> None:
    store, configured = stores.connect("memory://", buckets=1, timeout_s=1), bundles.load()
    assert await chosen_bundle(store, "g", configured) is configured


async def test_the_choice_takes_the_place_of_what_it_replaced_and_of_nothing_else() -> None:
    store, configured = stores.connect("memory://", buckets=1, timeout_s=1), bundles.load()
    files = bundles.read(LIGHT)
    light = bundles.parse(files, "light")
    await store.choose("g", as_chosen(light, files), {"d": "former@d"})
    with pytest.raises(IdentityError) as caught:
        await chosen_bundle(store, "g", configured)
    for part in (light.name, configured.name, "former@d", "stream-gru command reload", "state reset"):
        assert part in str(caught.value)
    await store.choose("g", as_chosen(light, files), {configured.digest: configured.name})
    served = await chosen_bundle(store, "g", configured)
    assert (served.name, served.digest) == (light.name, light.digest)
    assert await chosen_bundle(store, "g", light) is light
    back = bundles.read(bundles.DEFAULT)
    await store.choose("g", as_chosen(configured, back), {light.digest: light.name})
    assert await chosen_bundle(store, "g", configured) is configured
    assert (await chosen_bundle(store, "g", light)).digest == configured.digest


@pytest.mark.parametrize("lacking", [bundles.DESCRIPTION, bundles.WEIGHTS])
async def test_a_copy_that_can_not_be_used_says_where_it_is(lacking: str) -> None:
    store, configured = stores.connect("memory://", buckets=1, timeout_s=1), bundles.load()
    files = bundles.read(LIGHT)
    light = bundles.parse(files, "light")
    del files[lacking]
    await store.choose("g", as_chosen(light, files), {configured.digest: configured.name})
    with pytest.raises(BundleError, match=f"state store's copy of light@.* has no {lacking}"):
        await chosen_bundle(store, "g", configured)


def test_a_folder_is_read_and_found_by_name() -> None:
    assert bundles.find(Path("light")) == LIGHT
    assert bundles.parse(bundles.read(LIGHT), "x").digest == bundles.load(LIGHT).digest


def test_rows_of_a_replaced_model_are_dropped_before_anything_is_read() -> None:
    new = replace(OLD, model="new", row="2", name="new@new")
    partition = Partition(ID)
    owner = partition.claim(new)
    partition.replaced = {"old"}
    opening = partition.open(owner, Assigned(7, OLD, 3), None, 0, 10)
    assert (opening.start, opening.position, opening.adopts) == (Start.RESUMED, 7, True)
    assert not partition.settled
    assert partition.cut() is None, "nothing else may be written first"
    point = partition.pending
    assert point is not None
    [write] = partition.writes(point, (), (), 10, "T-1")
    assert (write.owner, write.n, write.offset, write.identity) == (owner, 1, 7, new)
    assert partition.confirmed(point)
    commit = partition.commit()
    assert commit is not None
    partition.committed(commit)
    assert partition.settled


@pytest.mark.parametrize("change", [{"topic_id": "T-2"}, {"partitions": 8}, {"buckets": 4}])
def test_but_nothing_else_may_differ(change: dict[str, object]) -> None:
    partition = Partition(ID)
    owner = partition.claim(replace(OLD, model="new", **change))  # type: ignore[arg-type]  # a field and its type
    partition.replaced = {"old"}
    with pytest.raises(IdentityError):
        partition.open(owner, Assigned(7, OLD), None, 0, 10)
    partition = Partition(ID)
    with pytest.raises(IdentityError, match=r"model 'old@old', but here it is model 'new'.*model\.bundle"):
        partition.open(partition.claim(replace(OLD, model="new", name="")), Assigned(7, OLD), None, 0, 10)
