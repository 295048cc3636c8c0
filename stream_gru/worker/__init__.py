"""The data plane. The way of a record is `source.ReadingSource._score`; its stations are the files that it calls.

In the order of the data: `intake` (flatten, admit, begin), with `guarding` before and `room` within it; the engine's
step; `encoder`; `outbox`; and by the clock `checkpoint`. Partitions come and go with `assignment`, `taking` and
`restoring`; `fences` carries word of those that another worker took, `control` is what operators ask for. `worker` is
the process' life, `clients` connects, and `session` puts all of it together.
"""
