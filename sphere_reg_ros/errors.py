"""Root of every exception that this package raises on purpose.

Each folder defines its own kinds in its ``errors.py``; callers that only need to tell bad input from a
fault catch these two.
"""


class SphereRegError(Exception):
    """Anything this package raises on purpose. The message is one line."""


class InputError(SphereRegError):
    """Bad input: the message names the offending value, the limit and the way out.

    The command line exits with status 2, the registration node refuses the request and stays alive.
    """
