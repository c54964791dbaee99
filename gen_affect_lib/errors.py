"""One kind of error for everything that a user can mend."""


class UserError(ValueError):
    """What came, what was expected, what to try: in one line. The command line prints it and exits with 2."""
