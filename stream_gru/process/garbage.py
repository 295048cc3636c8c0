"""What a process gives back once a minute: objects that hold each other, and memory that nobody uses.

By itself Python looks for such objects whenever some hundred more were made than freed. A batch makes thousands that
are gone after it, and looking among them costs a tenth. What does pile up are the tracebacks of connections that were
lost, with all that their frames hold: too few to be counted soon, and large. What the batches after an outage took
stays with the C library, which keeps it for the process.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc

_EVERY_S = 60.0  # seldom: all else stands still meanwhile
_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's; others give back by themselves


def settle() -> None:
    """What is there now stays for good, and need not be looked at again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


async def collect() -> None:
    """Once a minute; never returns."""
    while True:
        await asyncio.sleep(_EVERY_S)
        gc.collect()
        if _trim is not None:
            _trim(0)
