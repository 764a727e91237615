"""How much noisy states hold of their images, and where levels could change: `python -m ssd.analysis.information`.

- `state`: Info(t) of the paper's figure 2; `statistics`: what is measured of a data set.
- `gaussian`: bits, effective dimension, and what a level change loses; `network`: what a trained network adds.
- `rules`: where levels could change; `rule_table`: what each rule's schedule costs, and what samplers make of it.
- `curves`: numbers over the timesteps, and their picture.
"""
