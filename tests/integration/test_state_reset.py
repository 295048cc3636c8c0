"""`stream-gru state reset`: whose state it forgets, and when it refuses to."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from stream_gru import stores
from stream_gru.cli import app
from stream_gru.errors import BrokerError
from stream_gru.settings import Settings, environment
from stream_gru.stores import Chosen
from tests.support.load import Load
from tests.support.progress import drained
from tests.support.workers import crew


def reset(settings: Settings, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Result:
    for name, value in environment(settings).items():
        monkeypatch.setenv(name, value)
    return CliRunner().invoke(app, ["state", "reset", "--yes", *arguments])


async def test_state_reset(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    topic, group = settings.topics.readings[0], settings.kafka.group_id
    store = stores.from_settings(settings.state)
    await store.open()

    async def run(*arguments: str) -> tuple[int, str]:
        result = await asyncio.to_thread(reset, settings, monkeypatch, *arguments)
        assert isinstance(result.exception, BrokerError | None)
        return result.exit_code, " ".join(f"{result.output} {result.exception}".split())

    with crew(settings, tmp_path, "a") as workers:
        await Load(settings, 50).send(2000)
        await drained(settings, workers.workers["a"])

        code, said = await run()
        assert code != 0
        assert f"a worker of group {group} has {topic}-0" in said
        assert "--force" in said
        code, said = await run("--partition", "1")
        assert (code != 0, f"{topic}-1" in said) == (True, True)

        code, said = await run("--topic", "nosuch")
        assert code != 0
        assert f"there is no topic nosuch; the settings' topics.readings are {topic}" in said
        code, said = await run("--partition", "1", "--partition", "7", "--partition", "-1")
        assert code != 0
        assert f"topic {topic} has no partition -1, 7; it has 0 to 3" in said
        assert "rows forgotten" not in said

        code, said = await run("--partition", "1", "--force")
        assert (code, said.count("rows forgotten")) == (0, 1)
        assert f"{group}:{topic}:1: 0 rows" not in said
        await drained(settings, workers.workers["a"])
        assert workers.stop() == {"a": 0}

    await store.choose(group, Chosen("d1", "one@d1", {}), {"d0": "zero@d0"})
    code, said = await run("--partition", "0")
    assert (code, said.count("rows forgotten")) == (0, 1)
    assert await store.chosen(group, files=False) is not None, "the rest still is of that model"
    code, said = await run()
    assert (code, said.count("rows forgotten")) == (0, 4)
    assert "serves what model.bundle names again, not one@d1" in said
    assert await store.chosen(group, files=False) is None
    await store.close()
