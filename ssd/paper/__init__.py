"""The experiments of arXiv:2603.08709, each by a command: `python -m ssd.paper --help`."""
