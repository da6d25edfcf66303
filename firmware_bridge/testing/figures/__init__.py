"""The figures that the README and PROTOCOL.md cite, each measured by a function and printed by a command."""
