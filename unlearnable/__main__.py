"""``python -m unlearnable`` is the command ``unlearnable``."""

from .cli import main

raise SystemExit(main())
