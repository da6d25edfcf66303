"""The device end of the bridge: parses what the host sends, calls the handler, sends what the handler says.

Skeleton: `DeviceEndpoint(handler)`; run it with `serve(link, handler)` (serve.py).
"""
