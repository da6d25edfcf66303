"""Many devices on one host: find them, tell them apart by what they say, and keep each of them busy."""
