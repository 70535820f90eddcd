"""`python -m animebg_core` is the `animebg` command."""

from .cli import main

raise SystemExit(main())
