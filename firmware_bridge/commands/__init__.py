"""`python -m firmware_bridge`: one file a command."""
