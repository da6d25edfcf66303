import pytest

from firmware_bridge.wire.rate import SETTLE_SECONDS, SILENT_SECONDS, TRIAL_SECONDS, RateChange, offered


def turn(rate: RateChange, now: float, packets: int, *, is_open: bool = True, is_flushed: bool = True) -> int | None:
    return rate.turn(now, packets, is_open=is_open, is_flushed=is_flushed)


def switch(rate: RateChange, now: float, packets: int) -> int | None:
    """All is flushed since a while."""
    assert turn(rate, now - SETTLE_SECONDS, packets) is None
    assert rate.deadline() == now
    return turn(rate, now, packets)


def test_nothing_is_changed_that_nobody_wants() -> None:
    rate = RateChange(9600)
    assert turn(rate, 0.0, 5) is None
    assert turn(rate, 100.0, 5, is_open=False) is None
    assert rate.deadline() is None
    assert rate.is_settled


def test_a_rate_at_which_packets_arrive_stays() -> None:
    rate = RateChange(9600)
    rate.want(3_000_000)
    assert not rate.is_settled
    assert turn(rate, 1.0, 5, is_flushed=False) is None  # the agreement itself goes at the old rate
    assert switch(rate, 1.1, 5) == 3_000_000
    assert rate.deadline() == 1.1 + TRIAL_SECONDS
    assert turn(rate, 1.2, 5) is None
    assert turn(rate, 1.3, 6) is None
    assert rate.is_settled
    assert (rate.baud, rate.failed) == (3_000_000, 0)
    assert rate.deadline() == 1.3 + SILENT_SECONDS
    assert turn(rate, 1.3 + TRIAL_SECONDS, 6) is None


def test_a_rate_at_which_nothing_arrives_is_given_up() -> None:
    rate = RateChange(9600)
    rate.want(3_000_000)
    assert switch(rate, 1.0, 5) == 3_000_000
    assert turn(rate, 0.99 + TRIAL_SECONDS, 5) is None
    assert turn(rate, 1.0 + TRIAL_SECONDS, 5) == 9600
    assert (rate.baud, rate.failed, rate.is_settled) == (9600, 1, True)


@pytest.mark.parametrize(("at", "is_open"), [(2.5, False), (2.0 + SILENT_SECONDS, True)])
def test_silence_or_the_sessions_end_leads_back_to_where_the_port_was_opened(at: float, is_open: bool) -> None:
    rate = RateChange(9600)
    rate.want(115_200)
    assert switch(rate, 1.0, 5) == 115_200
    assert turn(rate, 2.0, 6) is None
    assert turn(rate, at, 6, is_open=is_open) == 9600
    assert rate.failed == 0


def test_a_port_that_does_not_take_the_rate_is_where_it_was() -> None:
    rate = RateChange(9600)
    rate.want(12_345_678)
    assert switch(rate, 1.0, 5) == 12_345_678
    rate.refused(9600)
    assert (rate.baud, rate.failed, rate.is_settled) == (9600, 1, True)
    assert turn(rate, 10.0, 5) is None


def test_what_a_device_offers() -> None:
    assert offered(("deflate", "baud:3000000")) == 3_000_000
    assert offered(("deflate", "baud:", "baud:-1", "baud")) == 0
