"""The pages that a worker serves on the loopback: /metrics, /health and /ready."""

from __future__ import annotations

import json
import urllib.error
import urllib.request


def get(port: int, path: str, timeout_s: float = 5.0) -> tuple[int, str]:
    """Status and body, whatever the status is. Raises `OSError` where nobody answers."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=timeout_s) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def ready(port: int) -> tuple[bool, dict[str, str]]:
    """Whether /ready answers 200, and what it says of each part; of `process` where nobody answers."""
    try:
        status, body = get(port, "/ready")
    except OSError as error:
        return False, {"process": f"does not answer: {error}"}
    return status == 200, json.loads(body)["parts"]
