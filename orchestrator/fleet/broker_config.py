"""How a mosquitto serves one fleet, as text: mosquitto.conf and its access list.

The broker lets in who has a certificate of the fleet's authority that is not on the revocation list; the
name in it is user name and client id at once. The access list then fences each device into its own subtree,
in the direction in which it speaks, plus reading what is published to all; the orchestrator has the other
ends. Topics are those of ``wire.topics``, options those of mosquitto.conf(5) in 2.0.11 (Debian 12) and
later. No files in here.
"""

from __future__ import annotations

from mas_edge.wire.messages import (
    EVERYONE,
    LONGEST_BYTES,
    ORCHESTRATOR,
    alive_topic,
    blob_topic,
    down_topic,
    up_topic,
)

CONF, ACL, CA, CERTIFICATE, KEY, REVOKED = (
    "mosquitto.conf",
    "acl",
    "ca.pem",
    "broker.pem",
    "broker.key",
    "crl.pem",
)
"""Names of the files, which stand in one folder."""

_TOPIC_ROOM_BYTES = 1 << 20
_INFLIGHT_BYTES = 8 << 20
_QUEUED_BYTES = 256 << 20

_CONF = """\
# mosquitto for the fleet {fleet}, made by `mas broker-config`. What it names lies in {folder}
# and must be readable by the user mosquitto. It serves alone (mosquitto -c) or included (conf.d); as the
# access list and the limits hold for all listeners of a broker, give the fleet one of its own.

listener {port}
cafile {folder}/{ca}
certfile {folder}/{certificate}
keyfile {folder}/{key}
# Read when mosquitto starts and on SIGHUP; what was connected before stays connected until a restart.
crlfile {folder}/{revoked}
tls_version tlsv1.2

# Only who has a certificate of this fleet gets in, and is called what stands in it, whatever it says itself.
require_certificate true
use_identity_as_username true
allow_anonymous false
# Without this a device could throw another out by taking its client id.
use_username_as_clientid true
acl_file {folder}/{acl}

# No message of ours has more than {longest_mib} MiB: who sends more is disconnected.
max_packet_size {packet_bytes}
# On a slow link: what may be on the way to one device, and what may wait for it. More is dropped, and asked
# for again.
max_inflight_bytes {inflight_bytes}
max_queued_bytes {queued_bytes}
max_queued_messages 1000

# Small packets that belong together are not held back (40 ms each).
set_tcp_nodelay true
# Clients repeat what matters: nothing has to be kept over a restart, and an SD card is spared.
persistence false
# Nobody in this fleet may read statistics.
sys_interval 0
"""

_ACL_HEAD = """\
# Who may say what in the fleet {fleet}, made by `mas broker-config`. What is not allowed here is dropped.
# %u is the name in the client's certificate.
"""


def mosquitto_conf(fleet: str, port: int, folder: str) -> str:
    """The configuration of a mosquitto whose files lie in ``folder``."""
    return _CONF.format(
        fleet=fleet,
        port=port,
        folder=folder,
        ca=CA,
        certificate=CERTIFICATE,
        key=KEY,
        revoked=REVOKED,
        acl=ACL,
        longest_mib=LONGEST_BYTES >> 20,
        packet_bytes=LONGEST_BYTES + _TOPIC_ROOM_BYTES,
        inflight_bytes=_INFLIGHT_BYTES,
        queued_bytes=_QUEUED_BYTES,
    )


def access_list(fleet: str) -> str:
    """The access list of a fleet's broker."""
    device = [
        ("write", up_topic(fleet, "%u")),
        ("write", alive_topic(fleet, "%u")),
        ("write", blob_topic(fleet, "%u")),
        ("read", down_topic(fleet, "%u")),
        ("read", blob_topic(fleet, EVERYONE)),
    ]
    orchestrator = [
        ("read", up_topic(fleet)),
        ("read", alive_topic(fleet)),
        ("read", blob_topic(fleet, "+")),
        ("write", down_topic(fleet, "+")),
        ("write", blob_topic(fleet, EVERYONE)),
    ]
    lines = [_ACL_HEAD.format(fleet=fleet)]
    lines += [f"pattern {may} {topic}" for may, topic in device]
    lines += ["", f"user {ORCHESTRATOR}"]
    lines += [f"topic {may} {topic}" for may, topic in orchestrator]
    return "\n".join(lines) + "\n"
