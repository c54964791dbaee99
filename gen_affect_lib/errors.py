"""The error for everything that a user can correct."""


class UserError(ValueError):
    """One line: what came, what was expected, what to try. The command line prints it and exits with code 2."""
