"""What the pipelines share: the first state, the network's calls in groups, guidance."""
