"""The protocol itself: bytes in, events out; no clock, no I/O, no threads."""
