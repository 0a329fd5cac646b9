"""The job of bench/peers as a Flower app."""
