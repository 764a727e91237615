"""The page: watch a model draw, level by level, in a browser on this machine.

    ssd demo --model runs/digits
    python -m ssd.demo --model user/name --port 8000 --open_browser false

Needs gradio: pip install 'scale-space-diffusion[demo]'. The page is docs/demo.md's.
"""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass

from ..commands.errors import UsageError, exit_on_usage_error
from ..commands.parser import CommandParser
from .address import check_address
from .model import open_model


@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """Settings of the page.

    Parameters
    ----------
    model : str
        A folder that training wrote, or the name of a model on the Hub, user/name.
    host : str
        Where the page is served; 0.0.0.0 lets everybody in the network see and use it.
    port : int
    device : str, optional
        Default: the accelerator if there is one, else the CPU.
    open_browser : bool
        Open the page in a browser, where there is a display.
    """

    model: str
    host: str = "127.0.0.1"
    port: int = 7860
    device: str | None = None
    open_browser: bool = True


def main(arguments: list[str] | None = None) -> None:
    with exit_on_usage_error():
        parser = CommandParser(prog="python -m ssd.demo", description=__doc__)
        parser.add_class_arguments(DemoConfig)
        config = DemoConfig(**parser.parse_args(arguments).as_dict())
        if importlib.util.find_spec("gradio") is None:
            raise UsageError("The page needs gradio: pip install 'scale-space-diffusion[demo]'.")
        check_address(config.host, config.port)
        try:
            model = open_model(config.model, config.device)
            os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before the import, which reads it
            from .server import serve  # gradio is an extra

            serve(model, config.host, config.port, config.open_browser)
        except KeyboardInterrupt:
            raise SystemExit("interrupted before the page was there") from None


if __name__ == "__main__":
    main()
