"""The command: what it refuses in one line, and that it ends cleanly. Serving itself is in tests/browser."""

from __future__ import annotations

import ast
import importlib.util
import io
import socket
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from ssd.demo.__main__ import main

from ..conftest import Outcome
from .conftest import tiny_pipeline


def run(*arguments: str | Path) -> Outcome:
    """`python -m ssd.demo ARGUMENTS` in this process."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with redirect_stdout(out), redirect_stderr(err):
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as stop:
            code = int(stop.code or 0)
    return Outcome(code, out.getvalue(), err.getvalue())


@pytest.fixture
def gradio_is_there(monkeypatch) -> None:
    """None of these mistakes gets as far as to import it."""
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *_: name if name == "gradio" else found(name))


def test_a_missing_gradio_is_one_line_before_the_model_is_read(monkeypatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *_: None if name == "gradio" else found(name))
    run("--model", "nothing").assert_one_line_error("pip install 'scale-space-diffusion[demo]'")


def test_only_the_wiring_knows_gradio() -> None:
    folder = Path(importlib.util.find_spec("ssd.demo").origin).parent
    knowing = {path.name for path in folder.glob("*.py") if {"gradio", "starlette"} & roots_of_imports(path)}
    assert knowing == {"page.py", "server.py"}


def roots_of_imports(path: Path) -> set[str]:
    """The first part of every module that a file imports."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return {name.split(".")[0] for name in plain | {n.module or "" for n in nodes if isinstance(n, ast.ImportFrom)}}


@pytest.mark.usefixtures("gradio_is_there")
def test_mistakes_are_one_line(tmp_path) -> None:
    (tmp_path / "empty").mkdir()
    port = free_port()
    run("--model", tmp_path / "empty", "--port", port).assert_one_line_error("is not a pipeline")
    run("--model", tmp_path, "--port", "0").assert_one_line_error("--port must be in 1..65535, got 0")
    run("--model", tmp_path, "--host", "no.such.host.invalid").assert_one_line_error("--host no.such.host.invalid")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        run("--model", tmp_path, "--port", port).assert_one_line_error(f"--port {port} cannot be used", "give another")


@pytest.mark.usefixtures("gradio_is_there")
def test_a_model_that_gives_no_pictures_is_one_line(tmp_path) -> None:
    tiny_pipeline(4).save_pretrained(tmp_path / "m")
    arguments = ["--model", tmp_path / "m", "--device", "cpu", "--port", free_port()]
    run(*arguments).assert_one_line_error("images of 4 channels")


def free_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])
