"""How the ``watch`` recordings are cut and normalised, and what the constant predictors say, in numbers.

They stand apart from the code that works with arrays, so that a daemon can offer the workload without
loading numpy (12 MB of a board's memory).
"""

from __future__ import annotations

CLIENTS = tuple(str(person) for person in range(1, 11))

BEFORE, WINDOW, AFTER, STRIDE = 1, 128, 16, 64
SPAN = BEFORE + WINDOW + AFTER
BLOCK = 16
"""Samples over which an envelope is taken."""

RATE_HZ = 50.0
FLOOR = 0.01
"""Added to an envelope before its logarithm, in g/s and rad/s."""

# Fitted on people 1 to 8 by scripts/make_watch_data, and frozen: a change makes another workload.
MEAN = (-0.0063, 0.3775, -0.14, 0.0195, -0.0049, 0.0116)
STD = (0.9291, 0.4981, 0.5518, 1.0078, 2.5618, 1.088)
JERK = (1.7648, 0.6495)
ROTATION = (0.7352, 0.6597)
GRAVITY = (0.0042, 0.3773, -0.1848)
EXERCISE_LOG_PRIOR = (-2.238, -1.8181, -1.8007, -1.8631, -1.8585, -2.0691, -2.0523)
SIDE_LOG_PRIOR = (-0.6427, -0.7463)
