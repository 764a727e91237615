"""The one list of operators: a new operator gets all tests by one line here."""

from __future__ import annotations

from ssd.operators import IdentityOperator, LinearOperator, resize_operator

OPERATORS: dict[str, LinearOperator] = {
    "identity": IdentityOperator((6, 5)),
    "bilinear": resize_operator((8, 8), (4, 4), "bilinear"),
    "bilinear, non-square": resize_operator((12, 8), (6, 4), "bilinear"),
    "bilinear, odd": resize_operator((9, 7), (5, 4), "bilinear"),
    "bilinear, two levels": resize_operator((6, 4), (3, 2), "bilinear").compose(
        resize_operator((12, 8), (6, 4), "bilinear")
    ),
    "area": resize_operator((8, 8), (4, 4), "area"),
    "area, non-square": resize_operator((6, 10), (3, 5), "area"),
}
