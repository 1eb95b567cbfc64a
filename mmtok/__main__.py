"""`python -m mmtok`."""

import sys

from mmtok.cli import main

sys.exit(main())
