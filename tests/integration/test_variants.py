"""Networks with a wide state and with several members, through Kafka, a SIGKILL and a restart."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from stream_gru.models import bundle
from stream_gru.models.network import VARIANTS
from stream_gru.settings import Settings
from tests.support.check import check
from tests.support.load import Load
from tests.support.progress import begun, drained
from tests.support.reading import read
from tests.support.workers import crew


@pytest.mark.parametrize("variant", ["attention", "ensemble"])
async def test_a_variant_survives_a_kill(variant: str, settings: Settings, tmp_path: Path) -> None:
    torch.manual_seed(0)
    description = bundle.Description(name=variant, network=VARIANTS[variant])
    folder = tmp_path / variant
    bundle.save(folder, description, bundle.build(description))
    settings = settings.model_copy(update={"model": settings.model.model_copy(update={"bundle": folder})})
    load = Load(settings, 50)
    with crew(settings, tmp_path, "a") as workers:
        await load.send(2000)
        await begun(settings, workers.workers["a"])
        workers.workers["a"].kill()
        workers.start("a")
        await load.send(2000)
        await drained(settings, workers.workers["a"])
        assert workers.stop() == {"a": 0}
    await check(settings)
    last = json.loads((await read(settings, settings.topics.forecasts))[-1].value)
    assert last["model"].startswith(variant)
    assert ("yhat_spread" in last) == (variant == "ensemble")
