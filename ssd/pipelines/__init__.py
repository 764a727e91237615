"""What the pipelines share: the first state, the network call in groups, guidance."""
