import re
import uuid

from firmware_bridge.info import DeviceInfo
from firmware_bridge.jobs import new_job_id


def test_job_ids_are_uuids_of_version_7_that_sort_by_time() -> None:
    ids = [new_job_id() for _ in range(1000)]
    assert len(set(ids)) == 1000
    for job_id in ids:
        assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", job_id)
        assert uuid.UUID(job_id).variant == uuid.RFC_4122
    assert ids == sorted(ids)


def test_a_device_info_survives_the_wire() -> None:
    info = DeviceInfo("a/1", "id", "boot", "rpi5", {"kit": "0.1.0"}, 2, 64, 3, 4, "ab" * 32, ("resume",))
    assert DeviceInfo.of(info.reply(7)) == info
    assert info.reply(7).request == 7
