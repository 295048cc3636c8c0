"""A reload gives a model to the group: it outlives workers, reaches all of them, and can be undone."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from stream_gru import stores
from stream_gru.models import bundle as bundles
from stream_gru.models.bundle import Bundle, Description
from stream_gru.settings import Settings
from stream_gru.tools.processes import wait_until
from stream_gru.worker import commands
from stream_gru.worker.commands import Command
from stream_gru.worker.model import as_chosen
from tests.support import impatient
from tests.support.check import states
from tests.support.load import Load
from tests.support.progress import drained
from tests.support.reading import read
from tests.support.workers import crew


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """For workers that die and come back without waiting until the group has buried them."""
    return settings.model_copy(update={"kafka": settings.kafka.model_copy(update={"group_instance_id": "test"})})


@pytest.fixture
def other(tmp_path: Path) -> Path:
    torch.manual_seed(4)
    folder = tmp_path / "other"
    bundles.save(folder, Description(name="other"), bundles.build(Description(name="other")))
    return folder


def serving(settings: Settings, folder: Path | str) -> Settings:
    model = settings.model.model_copy(update={"bundle": Path(folder)})
    return settings.model_copy(update={"model": model})


async def choose(settings: Settings, folder: Path, instead: Bundle) -> None:
    """What a worker writes that is told to reload, before it does anything else."""
    files = bundles.read(folder)
    chosen = as_chosen(bundles.parse(files, str(folder)), files)
    store = stores.from_settings(settings.state)
    await store.open()
    await store.choose(settings.kafka.group_id, chosen, {instead.digest: instead.name})
    await store.close()


async def models(settings: Settings, since: int) -> set[str]:
    """Which models made the outputs, but for so many first ones of each partition's."""
    records = await read(settings, settings.topics.forecasts)
    outputs: list[dict[str, Any]] = [json.loads(r.value) for r in sorted(records, key=lambda r: r.timestamp)]
    return {output["model"].split("@")[0] for output in outputs[since:]}


async def test_row_19_reload_kill_restart_scale_up(settings: Settings, other: Path, tmp_path: Path) -> None:
    load, kept, elsewhere = Load(settings, 40), tmp_path / "kept", tmp_path / "elsewhere"
    shutil.copytree(other, kept)
    shutil.copytree(bundles.DEFAULT, elsewhere)
    with crew(settings, tmp_path, "a") as workers:
        await load.send(1200)
        await drained(settings, workers.workers["a"])
        (told,) = await commands.send(settings, Command(command="reload", bundle=str(other)), expect=1)
        assert told.detail["model"].startswith("other@")
        (report,) = await commands.send(settings, Command(command="report"), expect=1)
        begins = {name: told["position"] for name, told in report.detail["partitions"].items()}
        outputs = len(await read(settings, settings.topics.forecasts))
        shutil.rmtree(other)
        workers.workers["a"].kill()
        workers.start("a")
        workers.settings = serving(settings, elsewhere)
        workers.start("b")
        await workers.share("a", "b", partitions=2)
        await load.send(1200)
        await drained(settings, workers.workers["a"])
        await load.send(1200)
        await drained(settings, workers.workers["b"])
        reports = await commands.send(settings, Command(command="report"), expect=2, timeout_s=20)
        assert [report.detail["model"].split("@")[0] for report in reports] == ["other", "other"]
        assert all(report.detail["partitions"] for report in reports), "both of them score"
        assert workers.stop() == {"a": 0, "b": 0}
        assert "which a reload put in the place of zero-shot@" in workers.log("b")
    assert await models(settings, outputs) == {"other"}
    inputs = await read(settings, *settings.topics.readings)
    since = [r for r in inputs if r.offset >= begins[f"{r.topic}-{r.partition}"]]
    await states(serving(settings, kept), since)


async def test_partitions_whose_owner_died_before_the_reload_reached_them(
    settings: Settings, other: Path, tmp_path: Path
) -> None:
    load = Load(settings, 40)
    with crew(settings, tmp_path, "a") as workers:
        await load.send(1200)
        await drained(settings, workers.workers["a"])
        workers.workers["a"].kill()
        await choose(settings, other, bundles.load())
        ends = {(r.topic, r.partition): 0 for r in await read(settings, *settings.topics.readings)}
        for record in await read(settings, *settings.topics.readings):
            ends[record.topic, record.partition] = record.offset + 1
        outputs = len(await read(settings, settings.topics.forecasts))
        workers.start("a")
        await load.send(1200)
        await drained(settings, workers.workers["a"])
        assert workers.stop() == {"a": 0}
        assert workers.log("a").count("its rows are of a model that a reload replaced") == 4
        assert await models(settings, outputs) == {"other"}
        since = [r for r in await read(settings, *settings.topics.readings) if r.offset >= ends[r.topic, r.partition]]
        await states(serving(settings, other), since)

        # And back again, with the folder that the settings name; then nothing is special any more.
        workers.start("a")
        default = str(bundles.DEFAULT)
        async with asyncio.timeout(60):
            while not (told := await commands.send(settings, Command(command="reload", bundle=default), 2, 1)):
                pass  # it does not listen yet
            while told[0].status != "ok":
                told = await commands.send(settings, Command(command="reload", bundle=default), 2, 1)
        assert told[0].detail["model"].startswith("zero-shot@")
        workers.workers["a"].kill()
        workers.start("a")
        outputs = len(await read(settings, settings.topics.forecasts))
        await load.send(1200)
        await drained(settings, workers.workers["a"])
        assert await models(settings, outputs) == {"zero-shot"}
        assert workers.stop() == {"a": 0}

        # A model that has no part in this is refused, and both are named.
        stranger = tmp_path / "stranger"
        bundles.save(stranger, Description(name="stranger"), bundles.build(Description(name="stranger")))
        workers.settings = serving(settings, stranger)
        assert workers.start("c").wait(60) == 2
        said = workers.log("c")
        assert f"serves {bundles.load().name} since" in said
        assert f"model.bundle is {bundles.load(stranger).name}" in said
        assert "stream-gru command reload FOLDER" in said
        assert "Traceback" not in said


async def test_a_worker_that_did_not_hear_of_a_reload_follows(settings: Settings, other: Path, tmp_path: Path) -> None:
    load = Load(settings, 40)
    with crew(settings, tmp_path) as workers:
        workers.start("a", main=impatient.main)
        await load.send(1200)
        await drained(settings, workers.workers["a"])
        await choose(settings, other, bundles.load())
        await asyncio.to_thread(
            wait_until,
            lambda: "from now on; every series starts afresh" in workers.log("a"),
            "following",
            40,
            workers.workers["a"],
        )
        (report,) = await commands.send(settings, Command(command="report"), expect=1)
        assert report.detail["model"].startswith("other@")
        outputs = len(await read(settings, settings.topics.forecasts))
        await load.send(1200)
        await drained(settings, workers.workers["a"])
        assert await models(settings, outputs) == {"other"}
        assert workers.stop() == {"a": 0}
