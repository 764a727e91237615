"""The server of the page: one process on this machine, which asks no other host for anything, and lets no page ask."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import webbrowser
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import gradio as gr
from starlette.middleware import Middleware

from ..commands.errors import UsageError
from .model import DemoModel
from .page import STYLE, build_page

POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; font-src 'self' data:; style-src 'self' 'unsafe-inline'; "
    "script-src 'self' 'unsafe-inline' 'unsafe-eval'; worker-src 'self' blob:; frame-ancestors 'self'"
)
"""Content-Security-Policy: browsers load nothing from elsewhere, whatever a version of gradio asks for."""

LARGEST_UPLOAD = "20mb"
LONGEST_QUEUE = 20
FONT = ["system-ui", "sans-serif"]
FIXED_FONT = ["ui-monospace", "monospace"]

Message = MutableMapping[str, Any]


class OwnHostOnly:
    """An ASGI middleware that adds the `POLICY` to every answer."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Message, receive: Any, send: Callable[[Message], Awaitable[None]]) -> None:
        async def send_with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), (b"content-security-policy", POLICY.encode())]
            await send(message)

        await self.app(scope, receive, send_with_policy)


def serve(model: DemoModel, host: str, port: int, open_browser: bool) -> None:
    """Serve the page until Ctrl-C."""
    page = build_page(model).queue(default_concurrency_limit=1, max_size=LONGEST_QUEUE, api_open=False)
    theme = gr.themes.Default(font=FONT, font_mono=FIXED_FONT)
    try:
        page.launch(
            server_name=host,
            server_port=port,
            theme=theme,
            css_paths=STYLE,
            app_kwargs={"middleware": [Middleware(OwnHostOnly)]},
            max_file_size=LARGEST_UPLOAD,
            prevent_thread_lock=True,
            quiet=True,
            share=False,
            ssr_mode=False,
            mcp_server=False,
            enable_monitoring=False,
            run_history=False,
            footer_links=[],
        )
        address = f"http://{host}:{port}/"
        print(f"The page is at {address}, until Ctrl-C.", flush=True)  # noqa: T201
        if open_browser and _has_display():
            webbrowser.open(address)
        threading.Event().wait()
    except OSError as error:  # another program may have taken the port meanwhile
        raise UsageError(f"The page cannot be served at {host}, port {port}: {' '.join(str(error).split())}") from error
    except KeyboardInterrupt:
        print("\nThe page is closed.")  # noqa: T201
    finally:
        _close(page)


def _close(page: gr.Blocks) -> None:
    """End the server at once: it would wait for every open page to be left, and report that it was cut off."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C would leave a traceback, and the server half closed
    logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
    if getattr(page, "server", None) is not None:  # none where Ctrl-C came before it was started
        page.server.force_exit = True
    page.close(verbose=False)


def _has_display() -> bool:
    """Whether a browser would open in a window, and not in this terminal."""
    return sys.platform in ("darwin", "win32") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
