"""What a simulation raises where something is not as it must be."""


class Broken(AssertionError):
    """An invariant does not hold."""
