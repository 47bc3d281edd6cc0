"""`python -m richter`."""

import sys

from richter.cli.main import main

sys.exit(main())
