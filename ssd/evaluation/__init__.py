"""Evaluation: images, features, their statistics, and distances between generated images and a data set.

Two sides are measured in the same way and compared:

- `generated` (a folder, or a model by `sampler` and `sample_folder`) and `reference` (a data set, or statistics) are
  the sides; `images` are the pictures of both, `levels` those of a model's coarser levels.
- `plan` says what is measured of a set of images, `measure` is one pass over them, `batches` what its workers do,
  `processes` how the work is shared, `statistics` what is kept of the features.
- `features` turns pictures into vectors, `distances` compares vectors, `metrics` names all distances of a report.
- `protocol` says how the numbers were made, `report` writes them down; `config` has the settings of the commands.
"""
