"""A simulator: the real engine against the fake's rules, in simulated time, from one seed."""
