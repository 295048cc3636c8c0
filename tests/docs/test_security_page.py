"""The rights on the security page are those that the code needs."""

from __future__ import annotations

import re
from pathlib import Path

from stream_gru import stores
from stream_gru.kafka import rights
from stream_gru.settings import Settings
from tests.support.secured import each, page

DIRECT = {"info", "script|load", "evalsha", "hget"}  # what redis.py calls itself


def test_the_redis_line_has_every_command_of_the_scripts_and_no_other() -> None:
    (line,) = page("redis-acl", "scorer")
    scripts = [file.read_text("utf-8") for file in Path(stores.__file__).parent.glob("*.lua")]
    called = {name.lower() for script in scripts for name in re.findall(r"redis\.p?call\('(\w+)'", script)}
    assert {word[1:] for word in line.split() if word.startswith("+")} == called | DIRECT


def test_the_kafka_lines_give_what_is_checked_and_no_more() -> None:
    settings = Settings()
    scorer = rights.scorer(settings) + rights.listener(settings)
    for user, needs in (("scorer", scorer), ("worker", scorer + rights.alerter(settings))):
        given = {tuple(right.split()[3:6]) for line in page("acl", user) for right in each(line)}
        wanted = {(op.capitalize(), f"--{need.resource}", need.name) for need in needs for op in need.operations}
        assert {right for right in given if "changelog" not in right[2]} == wanted
