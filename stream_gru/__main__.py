"""``python -m stream_gru`` is `stream-gru`."""

from stream_gru.cli import main

main()
