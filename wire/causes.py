"""Why there is no connection to a broker: two errors, and the line that each cause is told in.

``BrokerRefused`` means that somebody has to change something, ``BrokerUnreachable`` that another attempt may
succeed. Each line names the address, the cause and what to look at. Nothing is sent or decided here.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from mas_edge.wire.address import TlsConnection
from mas_edge.wire.messages import WireError

if TYPE_CHECKING:
    from paho.mqtt.reasoncodes import ReasonCode

    from mas_edge.wire.address import Address

_REFUSALS = {133, 134, 135}  # paho: client identifier, user name or password, not authorised


class BrokerUnreachable(WireError, ConnectionError):
    """No broker answered at this address."""


class BrokerRefused(WireError, PermissionError):
    """The broker answered, and did not let us in."""


def failed(address: Address, error: OSError) -> BrokerUnreachable:
    """The connection could not be made, or the broker's certificate not be believed."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return BrokerUnreachable(
            f"{address} is not the broker that we trust: certificate verify failed: {error.verify_message}; "
            "check [broker] ca, the host in its url, and the clock of this machine"
        )
    reason = error.strerror or error
    return BrokerUnreachable(
        f"no MQTT broker at {address}: {reason}; check the address, and that the broker runs"
    )


def hung_up(address: Address, connection: object) -> BrokerRefused | BrokerUnreachable:
    """The connection ended before the broker had answered; TLS may have said why."""
    if isinstance(connection, TlsConnection) and connection.verdict:
        return BrokerRefused(
            f"the broker at {address} refused our certificate: {connection.verdict}; "
            "check [broker] cert and key: of this fleet, neither expired nor revoked"
        )
    return BrokerUnreachable(f"{address} hung up before it answered as an MQTT broker would")


def refused(address: Address, reason: ReasonCode) -> BrokerRefused | BrokerUnreachable:
    """The broker answered no."""
    kind = BrokerRefused if reason.value in _REFUSALS else BrokerUnreachable
    return kind(
        f"the broker at {address} refused this client: {str(reason).lower()}; "
        "check its user name and password, and the broker's access list"
    )
