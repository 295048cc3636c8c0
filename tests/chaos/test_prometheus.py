"""An outage as the real Prometheus sees it, with the rules and the intervals of the deployment."""

from __future__ import annotations

import asyncio
import json
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from stream_gru.tools.embedded import HOST, free_port
from stream_gru.tools.processes import Child, wait_until
from tests.chaos.outages import How, Which, begin, end
from tests.chaos.servers import Broker, Site, Store
from tests.support import deploy_files
from tests.support.workers import Crew, crew

FIRES_S = 180.0
DOWN = {"kafka": ("StreamGruKafkaDown", "Kafka"), "redis": ("StreamGruStoreDown", "Redis")}


class Prometheus:
    """The HTTP API of one."""

    def __init__(self, url: str) -> None:
        self._url = url

    def alerts(self) -> dict[str, Any]:
        """What fires, by its name."""
        return {a["labels"]["alertname"]: a for a in self._get("alerts")["alerts"] if a["state"] == "firing"}

    def scraped(self) -> int:
        """How many targets answered at their last scrape."""
        return sum(target["health"] == "up" for target in self._get("targets")["activeTargets"])

    def _get(self, path: str) -> Any:
        with urllib.request.urlopen(f"{self._url}/api/v1/{path}", timeout=5) as answer:  # noqa: S310 - our own
            return json.load(answer)["data"]


@contextmanager
def prometheus(folder: Path, *targets: int) -> Iterator[Prometheus]:
    """The deployment's own, but for where the workers are and that nobody is notified."""
    binary = deploy_files.tool("prometheus")
    config = deploy_files.yaml_file("deploy/prometheus/prometheus.yml")
    config["rule_files"] = [str(file) for file in deploy_files.RULE_FILES]
    (job,) = [job for job in config["scrape_configs"] if job["job_name"] == "stream-gru"]
    del job["dns_sd_configs"], config["alerting"]
    job["static_configs"] = [{"targets": [f"{HOST}:{port}" for port in targets]}]
    config["scrape_configs"] = [job]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    at = f"{HOST}:{free_port()}"
    child = Child(
        [
            binary,
            f"--config.file={folder}/prometheus.yml",
            f"--storage.tsdb.path={folder}/data",
            f"--web.listen-address={at}",
        ],
        folder / "prometheus.log",
    )
    try:
        made = Prometheus(f"http://{at}")

        def answers() -> bool:
            try:
                return made.scraped() == len(targets)
            except OSError:
                return False

        wait_until(answers, "Prometheus with the workers", 60, child)
        yield made
    finally:
        child.kill()


async def until(happened: Callable[[], bool], deadline: float, workers: Crew) -> None:
    """Look now and then, as Prometheus does."""
    while not await asyncio.to_thread(happened):
        said = {name: workers.ready(name) for name in workers.workers}
        assert time.monotonic() < deadline, said
        await asyncio.sleep(1)


@pytest.mark.chaos
@pytest.mark.parametrize(
    ("which", "how"),
    [("kafka", "killed"), ("kafka", "frozen"), ("kafka", "black-hole"), ("redis", "killed"), ("redis", "black-hole")],
)
async def test_an_outage_fires_an_alert_that_names_the_server(site: Site, which: Which, how: How) -> None:
    server: Broker | Store = site.broker if which == "kafka" else site.store
    alertname, named = DOWN[which]
    with crew(site.settings, site.folder) as workers:
        workers.start("scorer", role="scorer")
        workers.start("alerter", role="alerter")
        await asyncio.to_thread(
            wait_until, lambda: all(workers.ready(name)[0] for name in workers.workers), "the workers", 60
        )
        with prometheus(site.folder, *workers.ports.values()) as asked:
            assert asked.alerts() == {}
            await asyncio.to_thread(begin, server, how)
            began = time.monotonic()
            await until(lambda: alertname in asked.alerts(), began + FIRES_S, workers)
            print(f"{alertname} after {time.monotonic() - began:.0f} s, beside {asked.alerts().keys()}")  # noqa: T201
            fired = asked.alerts()
            assert fired[alertname]["labels"]["severity"] == "critical"
            assert named in fired[alertname]["annotations"]["summary"]
            assert fired.keys() == {alertname}, "nothing that follows from it comes before it"
            await asyncio.to_thread(end, server, how)
            await until(lambda: not asked.alerts(), time.monotonic() + 120, workers)
        assert workers.stop() == {"scorer": 0, "alerter": 0}
