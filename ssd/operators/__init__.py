"""Linear operators on images, the degradations of the process: `from ssd.operators import resize_operator`."""

from .blur import Blur
from .linear import ComposedOperator, IdentityOperator, ImplicitOperator, LinearOperator, SeparableOperator
from .resize import resize_operator
from .sizes import Size

__all__ = [
    "Blur",
    "ComposedOperator",
    "IdentityOperator",
    "ImplicitOperator",
    "LinearOperator",
    "SeparableOperator",
    "Size",
    "resize_operator",
]
