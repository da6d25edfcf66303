"""What runs on the board: store, journal, engine process, scheduler and the supervisor that joins them.

Imports neither torch nor numpy nor executorch's Python; ``tests/device/test_imports.py`` holds that.
"""
