"""Host <-> device serial bridge: wire, links, transfer, jobs.

Knows bytes and jobs, not what the tensors in them mean. Both ends of the line, the host's `client` and the device's
`device`, are built from the same sans-IO parts in `wire`. Imports neither torch nor numpy nor executorch: it runs on
the board as it stands.
"""
