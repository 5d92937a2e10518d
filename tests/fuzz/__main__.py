"""``python -m fuzz``: see :mod:`fuzz.campaign`."""

from __future__ import annotations

import sys

import fuzz.kinds
import fuzz.loaded  # noqa: F401
from fuzz.campaign import main

sys.exit(main())
