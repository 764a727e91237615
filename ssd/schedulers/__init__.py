"""What the schedulers of the project share; the schedulers themselves are the modules `ssd.scheduling_*`."""
