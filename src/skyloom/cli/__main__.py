"""``python -m skyloom.cli``: the console command where no script is installed."""

import sys

from skyloom.cli import main

sys.exit(main())
