"""The brokers that the contract of the bus is tested on."""

from __future__ import annotations

import pytest
from sites import SITES


@pytest.fixture(params=SITES)
def site(request):
    """Each broker in turn."""
    it = SITES[request.param]()
    yield it
    it.close()


@pytest.fixture(params=["amqtt", "mosquitto", "mosquitto over TLS"])
def far_site(request):
    """Each broker that is a process."""
    it = SITES[request.param]()
    yield it
    it.close()
