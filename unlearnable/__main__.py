"""``python -m unlearnable`` is the command ``unlearnable``."""

from .cli.main import main

raise SystemExit(main())
