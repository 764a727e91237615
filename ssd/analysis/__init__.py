"""Studies of the process itself: numbers that need no training."""
