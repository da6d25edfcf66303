"""What systemd hears, on a real socket."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from edge.device.service import ServiceManager


def test_a_service_manager_hears_that_the_device_serves_and_lives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(str(tmp_path / "notify"))
        heard.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "3600000000")
        manager = ServiceManager()
        manager.ready()
        manager.alive()
        manager.alive()  # not due again for half an hour
        manager.ready()
        assert [heard.recv(100) for _ in range(3)] == [b"READY=1", b"WATCHDOG=1", b"READY=1"]
    (tmp_path / "notify").unlink()
    manager.ready()  # nobody is there any more


def test_without_a_service_manager_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    monkeypatch.delenv("WATCHDOG_USEC", raising=False)
    opened: list[object] = []
    monkeypatch.setattr("edge.device.service.socket.socket", lambda *kind: opened.append(kind))
    manager = ServiceManager()
    manager.ready()
    manager.alive()
    assert opened == []
