"""The page's wiring with gradio: which field and button leads to which of the page's `events`.

Everything that runs the network shares one `concurrency_id`, of which one runs at a time; costs are asked for beside.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from ..data.sizes import size_text
from .actions import code_of
from .chains import step_limits
from .choice import MOST_GUIDANCE, MOST_SEED, from_query, usual_choice
from .events import Events, Update, fields_of, new_seed
from .frames import Frame, empty_frame
from .model import DemoModel
from .view import ruler_html, stage_html, status_html

STYLE = Path(__file__).parent / "style.css"
CLICK_JS = """
element.addEventListener('click', event => {
  const button = event.target.closest('[data-redraw]');
  if (button) trigger('click', {level: Number(button.dataset.redraw)});
});
"""
ADDRESS_JS = "query => { if (query) window.history.replaceState(null, '', query); }"

ABOUT = (
    "A picture is made from noise, coarse to fine. Where there is much noise a few pixels hold all that can be known, "
    "so the chain begins with few; the picture grows as the noise goes. All sizes are to the same scale."
)
CLICK = (
    "When it is done, **click a smaller clean picture**: what it shows is kept, and all finer details are drawn anew."
)
CACHE = (600, 3600)
"""Seconds: how often uploaded files are looked through, and how old those are that are deleted."""

NETWORK = {"concurrency_id": "network", "concurrency_limit": 1, "show_progress": "hidden", "api_visibility": "private"}
BESIDE = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}


@dataclass(frozen=True)
class Parts:
    """The page's components; `fields` in the order of `fields_of`, `shown` in that of `_outputs`."""

    draw: gr.Button
    another: gr.Button
    stop: gr.Button
    upload: gr.UploadButton
    ruler: gr.HTML
    fields: list[Any]
    shown: list[Any]


def build_page(model: DemoModel) -> gr.Blocks:
    """The page of a model, to be served by `ssd.demo.server`."""
    with gr.Blocks(title="Scale Space Diffusion", analytics_enabled=False, delete_cache=CACHE) as page:
        gr.Markdown(f"# Scale Space Diffusion\n{ABOUT}{' ' + CLICK if model.edits else ''}")
        with gr.Row():
            with gr.Column(scale=1, min_width=380):
                draw, another, stop = _buttons()
                fields = _fields(model)
                ruler = gr.HTML(ruler_html(usual_choice(model).costs(model)), elem_id="ruler", apply_default_css=False)
                label = "Upload a small picture, to let it grow"
                upload = gr.UploadButton(label, elem_id="upload", visible=model.edits)
            with gr.Column(scale=3, min_width=500):
                shown = _shown(model)
        _connect(page, Events(model), Parts(draw, another, stop, upload, ruler, fields, shown))
    return page


def _buttons() -> tuple[gr.Button, gr.Button, gr.Button]:
    with gr.Row():
        return (
            gr.Button("Draw", variant="primary", elem_id="draw", min_width=80),
            gr.Button("Draw another", elem_id="another", min_width=130),
            gr.Button("Stop", variant="stop", elem_id="stop", min_width=80),
        )


def _fields(model: DemoModel) -> list[Any]:
    """Seed, guidance, class, and the steps of every level, coarsest first."""
    start, limits, names = usual_choice(model), step_limits(model.process), model.class_names
    label = "Seed: the same seed gives the same picture"
    seed = gr.Number(start.seed, label=label, precision=0, minimum=0, maximum=MOST_SEED, elem_id="seed")
    class_ = gr.Dropdown(names, value=names[0] if names else None, label="Class", visible=bool(names), elem_id="class")
    label = "Guidance: 1 is off; with more, pictures are more typical of their class"
    guidance = gr.Slider(0, MOST_GUIDANCE, 1, step=0.1, label=label, visible=bool(names), elem_id="guidance")
    steps = []
    for level in reversed(range(len(limits))):
        label = f"Steps at {size_text(model.sizes[level])} pixels"
        slider = gr.Slider(*limits[level], value=start.steps[level], step=1, label=label, elem_id=f"steps-{level}")
        steps.append(slider)
    return [seed, guidance, class_, *steps]


def _shown(model: DemoModel) -> list[Any]:
    """Status, stage, the frame on it, the address, and the code."""
    status = gr.HTML(status_html("Click Draw."), elem_id="status", apply_default_css=False)
    stage = gr.HTML(
        stage_html(empty_frame(model), model.sizes), js_on_load=CLICK_JS, elem_id="stage", apply_default_css=False
    )
    with gr.Accordion("The same picture in Python", open=False):
        first = code_of(model, usual_choice(model))
        code = gr.Code(first, language="python", show_label=False, interactive=False, elem_id="code")
    return [status, stage, gr.State(), gr.Textbox(visible=False), code]


def _connect(page: gr.Blocks, events: Events, parts: Parts) -> None:
    model, fields, shown = events.model, parts.fields, parts.shown
    seed, (_, stage, frame, address, code) = fields[0], shown
    is_shared = gr.State(False)

    def drawn(request: gr.Request, *values: Any) -> Iterator[tuple]:
        yield from _outputs(events.draw(_session(request), fields_of(values)))

    def drawn_if(request: gr.Request, wanted: bool, *values: Any) -> Iterator[tuple]:
        yield from _outputs(events.draw(_session(request), fields_of(values)) if wanted else [])

    def redrawn(
        request: gr.Request, event: gr.EventData, now: Frame | None, before: str, *values: Any
    ) -> Iterator[tuple]:
        session, level = _session(request), int(event.level)
        yield from _outputs(events.redraw(session, fields_of(values), now, before, level, new_seed()))

    def grown(request: gr.Request, file: str | None, *values: Any) -> Iterator[tuple]:
        yield from _outputs(events.grow(_session(request), fields_of(values), file))

    def stopped(request: gr.Request) -> None:
        events.stop(_session(request))

    def priced(now: Frame | None, *values: Any) -> tuple:
        return tuple(_or_skip(part) for part in events.costs(fields_of(values), now))

    def opened(request: gr.Request) -> tuple:
        query = dict(request.query_params)
        choice, notes = from_query(query, model)
        status = status_html(" ".join(notes), "error") if notes else gr.skip()
        name = model.class_names[choice.class_] if choice.class_ is not None else None
        values = (choice.seed, choice.guidance, name, *reversed(choice.steps))
        named = [value if query else gr.skip() for value in values]  # what is typed meanwhile stays
        return (*named, status, "seed" in query and not notes)

    parts.draw.click(drawn, fields, shown, **NETWORK)
    parts.another.click(new_seed, None, seed, **BESIDE).then(drawn, fields, shown, **NETWORK)
    parts.upload.upload(grown, [parts.upload, *fields], shown, **NETWORK)
    stage.click(redrawn, [frame, code, *fields], shown, **NETWORK)
    parts.stop.click(stopped, **BESIDE)
    for field in fields[1:]:
        field.change(priced, [frame, *fields], [parts.ruler, stage], trigger_mode="always_last", **BESIDE)
    address.change(None, address, js=ADDRESS_JS)
    opening = page.load(opened, None, [*fields, shown[0], is_shared], **BESIDE)
    opening.then(drawn_if, [is_shared, *fields], shown, **NETWORK)
    page.unload(stopped)


def _outputs(updates: Iterable[Update]) -> Iterator[tuple]:
    """Updates as values of the components `shown`."""
    nothing = True
    for update in updates:
        nothing = False
        yield tuple(map(_or_skip, (update.status, update.stage, update.frame, update.address, update.code)))
    if nothing:
        yield (gr.skip(),) * 5


def _or_skip(value: Any) -> Any:
    return gr.skip() if value is None else value


def _session(request: gr.Request) -> str:
    return str(request.session_hash)
