"""Joules: counted by meters, attributed to task groups, billed and reported."""
