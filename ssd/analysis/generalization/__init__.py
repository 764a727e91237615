"""Do two denoisers that learned different images learn the same function? `python -m ssd.analysis.generalization`.

- `config`: the settings; `study`: all rows, kept on the disk; `row`: one N and one seed.
- `linear`, `networks`, `diffusion_models`: two denoisers of each kind, trained on disjoint images.
- `likeness`: cosines of samples and images; `plots`, `report`: what is shown.
"""
