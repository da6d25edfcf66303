import os
import resource
import time

import pytest

from firmware_bridge.link.wait import wait_for


def test_what_is_ready_is_told_apart() -> None:
    read, write = os.pipe()
    try:
        assert wait_for([read], [write], 0.0) == (set(), {write})
        os.write(write, b"x")
        assert wait_for([read], [write], None) == ({read}, {write})
        assert wait_for([read], [], 0.0) == ({read}, set())
        begun = time.monotonic()
        os.read(read, 1)
        assert wait_for([read], [], 0.05) == (set(), set())
        assert time.monotonic() - begun >= 0.05
    finally:
        os.close(read)
        os.close(write)


def test_a_hang_up_is_something_to_read() -> None:
    read, write = os.pipe()
    os.close(write)
    assert wait_for([read], [], 1.0) == ({read}, set())
    os.close(read)


def test_files_beyond_1024_can_be_waited_for() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 1100:
        pytest.skip("this machine allows no 1,024 files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 1100), hard))
    read, write = os.pipe()
    high = os.dup2(read, 1050)
    try:
        os.write(write, b"x")
        assert wait_for([high], [], 1.0) == ({high}, set())
    finally:
        for file in (read, write, high):
            os.close(file)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
