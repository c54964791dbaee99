"""`python -m gen_affect_lib COMMAND`."""

import sys

from gen_affect_lib.cli import main

if __name__ == "__main__":
    sys.exit(main())
