"""What pipelines share, from the first state to the loop, and the pipelines that begin with pictures."""
