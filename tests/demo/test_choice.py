"""What a visitor chose, and the page's address."""

from __future__ import annotations

from dataclasses import replace
from urllib.parse import parse_qs

import pytest

from ssd.demo.choice import MOST_SEED, Choice, from_query, make_choice, to_query, usual_choice


def parsed(query: str) -> dict[str, str]:
    return {name: values[-1] for name, values in parse_qs(query.lstrip("?")).items()}


def test_the_address_holds_the_choice(model, classes) -> None:
    choice = Choice(7, (12, 5, 3))
    assert to_query(choice, model) == "?seed=7&steps=3,5,12"
    assert from_query(parsed(to_query(choice, model)), model) == (choice, [])
    choice = Choice(MOST_SEED, (1, 1, 2), 2, 2.5)
    assert from_query(parsed(to_query(choice, classes)), classes) == (choice, [])
    assert from_query({"class": "1"}, classes)[0].class_ == 1
    assert from_query({"steps": "4"}, model)[0].steps == (4, 4, 4)
    assert from_query({"other": "1", "class": "cat"}, model) == (usual_choice(model), [])  # it has no classes


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"seed": "-1"}, "seed='-1'. The seed must be a whole number in 0.."),
        ({"seed": "9" * 5000}, "The seed must be"),
        ({"seed": "\u0663"}, "The seed must be"),
        ({"steps": "1"}, "coarsest first, in 2..100,1..100,1..100"),
        ({"steps": "3,5"}, "The steps must be"),
        ({"steps": "3,5,101"}, "The steps must be"),
        ({"class": "<b>"}, "no such class: it has 3, such as 'cat'"),
        ({"class": "3"}, "no such class"),
        ({"guidance": "nan"}, "Guidance must be a number in 0..10"),
        ({"guidance": "1e9"}, "Guidance must be"),
    ],
)
def test_what_an_address_cannot_say_is_a_sentence(classes, query: dict, message: str) -> None:
    choice, [note] = from_query(query | {"other": "1"}, classes)
    assert message in note
    assert choice == usual_choice(classes)


def test_the_fields_are_checked(model, classes) -> None:
    assert make_choice(model, 3.0, [2, 2, 2], None, 1) == Choice(3, (2, 2, 2))
    assert make_choice(classes, 3, [2, 2, 2], "owl", 2) == Choice(3, (2, 2, 2), 2, 2.0)
    for seed, steps, class_, guidance, message in (
        (None, [2, 2, 2], "cat", 1, "The seed is empty"),
        (1.5, [2, 2, 2], "cat", 1, "The seed must be"),
        (-1, [2, 2, 2], "cat", 1, "The seed must be"),
        (1, [0, 2, 2], "cat", 1, "The steps of the levels"),
        (1, [2, 2, 2], "cow", 1, "no such class"),
        (1, [2, 2, 2], "cat", None, "Guidance must be"),
    ):
        with pytest.raises(ValueError, match=message):
            make_choice(classes, seed, steps, class_, guidance)


def test_guidance_of_one_costs_one_call(classes) -> None:
    choice = Choice(0, (2, 2, 2), 1, 1.0)
    assert sum(cost.calls for cost in choice.costs(classes)) == 6
    assert sum(cost.calls for cost in replace(choice, guidance=2.0).costs(classes)) == 12
    assert [cost.calls for cost in replace(choice, guidance=2.0).costs(classes, first=1)] == [4, 2, 0]
