"""For tests, ours and others: faulty lines, devices, disks and a virtual clock; README.md has examples.

Nothing here is used in operation, and nothing is imported here: the fuzzer must see the wire being imported.
"""
