"""What the training script is made of: configuration, routes and timesteps, checkpoints, logs."""
