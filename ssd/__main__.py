"""`python -m ssd`, and the command `ssd`: see `ssd.commands.console`."""

from __future__ import annotations

from .commands.console import main

if __name__ == "__main__":
    main()
