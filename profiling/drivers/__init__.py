"""One file for each kind of sensor, each behind an entry point of the group ``mas_edge.meters``."""
