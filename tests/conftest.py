"""How the whole suite runs, and what the machine that runs it must have.

``MAS_REQUIRE=mosquitto`` (several words are allowed) turns a skip whose reason names that word into a
failure, so that CI cannot pass by not having installed what the tests need.
"""

from __future__ import annotations

import os
import signal

import pytest
from hypothesis import settings

# A shared machine with two cores stalls now and then; speed is judged by bench/, not by a property.
settings.register_profile("house", settings(), deadline=None)
settings.load_profile("house")

# What runs in the background of a shell ignores interrupts, and so would all that the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_xdist_auto_num_workers(config):
    """As many processes as cores; the slow tests, which measure and boot boards, run one after the other."""
    return (os.cpu_count() or 1) if config.option.markexpr == "not slow" else 0


REQUIRED = tuple(os.environ.get("MAS_REQUIRE", "").lower().split())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    return refuse_skip((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report():
    return refuse_skip((yield))


def refuse_skip(report):
    """The report, failed if it was skipped for the want of something that is required here."""
    reason = str(report.longrepr).lower()
    wanted = [word for word in REQUIRED if word in reason]
    if report.skipped and not hasattr(report, "wasxfail") and wanted:
        report.outcome = "failed"
        report.longrepr = f"{report.nodeid}: skipped, but MAS_REQUIRE names {wanted[0]}: {report.longrepr}"
    return report
