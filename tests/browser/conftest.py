"""The real command on a free port, and a real browser: both end with the tests, also when these fail.

`make test-browser` installs what they need; without it every test here is skipped with one line.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlparse

import pytest

from ssd.demo.model import DemoModel

from ..conftest import ROOT
from ..demo.conftest import tiny_pipeline

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
LOCAL = ("127.0.0.1", "localhost", "::1")
WATCH = """
import os, sys

def watch(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo"):
        address = arguments[1] if event == "socket.connect" else arguments[0]
        host = address[0] if isinstance(address, tuple) else address
        with open(os.environ["HOSTS"], "a") as file:
            file.write(f"{host.decode() if isinstance(host, bytes) else host}\\n")

sys.addaudithook(watch)
"""
"""As sitecustomize.py: notes every host that the server's process asks for, whichever library asks."""


@dataclass(frozen=True)
class Server:
    """A running `ssd demo`.

    Attributes
    ----------
    model : DemoModel
        The same model, in this process.
    address : str
    process : subprocess.Popen
    hosts : pathlib.Path
        Lists the hosts that it asked for.
    """

    model: DemoModel
    address: str
    process: subprocess.Popen
    hosts: Path


@contextmanager
def served(folder: Path, **settings) -> Iterator[Server]:
    """`ssd demo` with a tiny model, until the end of the block."""
    pipe = tiny_pipeline(**settings)
    pipe.save_pretrained(folder / "model")
    (folder / "watch").mkdir()
    (folder / "watch" / "sitecustomize.py").write_text(WATCH)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    flags = ["--model", "model", "--port", str(port), "--device", "cpu", "--open_browser", "false"]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(folder / "watch"), str(ROOT)]),
        "HOSTS": str(folder / "hosts"),
        "OMP_NUM_THREADS": "1",
    }
    with (folder / "errors").open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "ssd", "demo", *flags],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    try:
        line = process.stdout.readline()
        address = f"http://127.0.0.1:{port}/"
        assert line == f"The page is at {address}, until Ctrl-C.\n", line + (folder / "errors").read_text()
        yield Server(DemoModel("model", pipe), address, process, folder / "hosts")
        assert "Traceback" not in (folder / "errors").read_text()
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def pytest_runtest_setup() -> None:
    """Skip the tests of this folder, all with the same line, where something is missing."""
    for package in ("gradio", "playwright"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed: run  make test-browser")
    if find_browser() is None:
        pytest.skip(f"there is no browser: install one of {', '.join(BROWSERS)}")


def find_browser() -> str | None:
    """Where the browser's program is."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


@pytest.fixture(scope="session")
def browser() -> Iterator:
    """Debian's Chromium or another one, by playwright."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=find_browser())
        try:
            yield running
        finally:
            running.close()


@pytest.fixture(scope="module")
def server(browser, tmp_path_factory) -> Iterator[Server]:
    """The page of a grey model."""
    with served(tmp_path_factory.mktemp("grey")) as running:
        yield running


@pytest.fixture(scope="module")
def server_with_classes(browser, tmp_path_factory) -> Iterator[Server]:
    """The page of a model in colour, with classes."""
    names = {0: "cat", 1: "dog", 2: "owl"}
    with served(tmp_path_factory.mktemp("classes"), channels=3, num_class_embeds=4, id2label=names) as running:
        yield running


@pytest.fixture
def opened(browser) -> Iterator[Callable]:
    """Opens an address in a window of its own; whatever the test does, no other host may be asked for anything."""
    context = browser.new_context(viewport={"width": 1400, "height": 860})
    requests: list[str] = []
    problems: list[str] = []

    def open_page(address: str):
        page = context.new_page()
        page.set_default_timeout(30_000)
        page.on("request", lambda request: requests.append(request.url))
        page.on("websocket", lambda socket: requests.append(socket.url))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        page.goto(address)
        page.wait_for_selector("#draw")
        return page

    try:
        yield open_page
        hosts = {urlparse(url).hostname for url in requests if urlparse(url).scheme not in ("data", "blob")}
        assert hosts == {"127.0.0.1"}
        assert problems == []  # such as what the page's policy had to block
    finally:
        context.close()
