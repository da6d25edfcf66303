"""What a device says about itself in the hello, as both ends hold it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from firmware_bridge.wire import messages

AGENT: Final = "firmware_bridge/0.1.0"
"""What the host calls itself in its hello."""


PREVIEW: Final = "preview"
"""Capability of a device that sends previews of jobs."""


@dataclass(frozen=True)
class DeviceInfo:
    """A device's identity, versions and capacity.

    Args:
        agent: name and version of the supervisor, e.g. "edge.device/0.1.0".
        device_id: identity, stable across reboots.
        boot_id: random, new at each start of the supervisor.
        board: name of the board file (boards/*.toml).
        versions: e.g. {"executorch": "1.5.1", "operators": 1, "kit": "0.1.0"}.
        slots: jobs it runs interleaved.
        credits: jobs that it takes now before it says busy.
        memory_bytes: memory that a bundle may use.
        storage_free: bytes free for blobs now.
        active_bundle: id (SHA-256, hex) of the active bundle; None before the first activation.
        capabilities: optional parts of the protocol that the supervisor speaks.
        protocol: version of the protocol that it speaks.
    """

    agent: str
    device_id: str
    boot_id: str
    board: str
    versions: Mapping[str, object]
    slots: int
    credits: int
    memory_bytes: int
    storage_free: int
    active_bundle: str | None
    capabilities: tuple[str, ...] = field(default=())
    protocol: int = messages.PROTOCOL

    def reply(self, request: int) -> messages.HelloReply:
        """The hello's answer that says this."""
        return messages.HelloReply(
            request=request,
            protocol=self.protocol,
            agent=self.agent,
            capabilities=self.capabilities,
            device_id=self.device_id,
            boot_id=self.boot_id,
            board=self.board,
            versions=dict(self.versions),
            slots=self.slots,
            credits=self.credits,
            memory_bytes=self.memory_bytes,
            storage_free=self.storage_free,
            active_bundle=None if self.active_bundle is None else bytes.fromhex(self.active_bundle),
        )

    @classmethod
    def of(cls, reply: messages.HelloReply) -> DeviceInfo:
        """What the hello's answer says."""
        return cls(
            agent=reply.agent,
            device_id=reply.device_id,
            boot_id=reply.boot_id,
            board=reply.board,
            versions=reply.versions,
            slots=reply.slots,
            credits=reply.credits,
            memory_bytes=reply.memory_bytes,
            storage_free=reply.storage_free,
            active_bundle=None if reply.active_bundle is None else reply.active_bundle.hex(),
            capabilities=reply.capabilities,
            protocol=reply.protocol,
        )
