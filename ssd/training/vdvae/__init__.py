"""What training VDVAE and WS-VDVAE has of its own; the rest is shared with Scale Space Diffusion."""
