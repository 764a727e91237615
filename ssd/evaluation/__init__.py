"""Evaluation: images, features, their statistics, and distances between generated images and a data set.

One idea per file: `images` (what is measured), `inception` and `features` (pixels -> vectors), `patches`
(pixels -> Laplacian bands), `measure` (one pass over images), `statistics` (sums, archives, provenance),
`frechet`, `kid`, `sliced_wasserstein`, `precision_recall` (the distances), `metrics` (all of them by name),
`sampling` and `levels` (images of a model), `protocol` and `report` (what is said about the numbers).
"""
