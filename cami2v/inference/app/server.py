"""The page behind an address."""

from __future__ import annotations

import importlib.util
import logging
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cami2v.inference.app.gate import Gate
from cami2v.inference.app.settings import LOOPBACK, ServerSettings
from cami2v.inference.app.studio import Studio

MISSING = "gradio is not installed, which cami2v app needs: pip install 'cami2v[app]'"
SHOWN_NAMES = {"127.0.0.1": "127.0.0.1", "localhost": "localhost", "::1": "[::1]"}
CLEAN_EVERY_SECONDS, KEEP_SECONDS = 600, 24 * 3600
"""Uploads and served copies."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A server that runs."""

    address: str
    shared_address: str | None
    blocks: Any

    def wait(self) -> None:
        """Serve until interrupted."""
        self.blocks.block_thread()

    def stop(self) -> None:
        """End it."""
        self.blocks.close(verbose=False)


def prepare(folder: Path) -> None:
    """Say to gradio, before it is imported, where files go, and that it tells nobody anything.

    Raises ValueError in one line where it is not installed.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    if importlib.util.find_spec("gradio") is None:
        raise ValueError(MISSING)
    # It asks itself whether it is up.
    logging.getLogger("httpx").setLevel(logging.WARNING)


def start(studio: Studio, settings: ServerSettings, folder: Path) -> Server:
    """Load the first model and serve the page, from the folder that gradio was told of.

    Raises ValueError for a model that does not load, or a port in use.
    """
    import gradio as gr
    from starlette.middleware import Middleware

    from cami2v.inference.app.events import Events
    from cami2v.inference.app.page import STYLE, TITLE, build

    passwords = settings.passwords()
    sheet = studio.sheet(studio.choices[0])
    with gr.Blocks(
        analytics_enabled=False, title=TITLE, fill_width=True, delete_cache=(CLEAN_EVERY_SECONDS, KEEP_SECONDS)
    ) as blocks:
        Events(build(studio, sheet), studio, folder).connect(blocks)
    blocks.queue(max_size=settings.waiting, default_concurrency_limit=2, api_open=False)
    hosts = None if settings.outside else frozenset(LOOPBACK)
    gate = Middleware(Gate, most_bytes=studio.limits.upload_bytes, hosts=hosts)
    try:
        _, address, shared = blocks.launch(
            server_name=settings.host, server_port=settings.port or _free_port(settings.host), share=settings.share,
            auth=passwords, prevent_thread_lock=True, quiet=True, inbrowser=settings.open_browser, show_error=True,
            max_file_size=studio.limits.upload_bytes, allowed_paths=[], footer_links=[], run_history=False,
            ssr_mode=False, pwa=False, mcp_server=False, enable_monitoring=False, theme=_theme(),
            css_paths=[STYLE], js=LIGHT,
            app_kwargs={"middleware": [gate], "docs_url": None, "redoc_url": None, "openapi_url": None},
        )  # fmt: skip
    except OSError as error:
        raise ValueError(
            f"server.port={settings.port}: cannot be opened on {settings.host}; choose another one, or 0 for any"
        ) from error
    return Server(address=address, shared_address=shared or None, blocks=blocks)


LIGHT = "() => document.body.classList.remove('dark')"
"""The page is drawn on paper; the scene in it as well."""


def _free_port(host: str) -> int:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def _theme() -> Any:
    import gradio as gr

    own_fonts = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]
    return gr.themes.Base(
        primary_hue=gr.themes.colors.blue, neutral_hue=gr.themes.colors.slate, radius_size=gr.themes.sizes.radius_sm,
        spacing_size=gr.themes.sizes.spacing_sm, text_size=gr.themes.sizes.text_sm, font=own_fonts,
        font_mono=["ui-monospace", "monospace"],
    ).set(
        button_primary_background_fill="#0b5cad", button_primary_background_fill_hover="#094a8b",
        button_primary_text_color="#ffffff", block_border_width="0px", block_shadow="none", block_padding="0px",
        form_gap_width="0px", layout_gap="0.7rem", block_background_fill="transparent", input_border_width="1px",
        input_border_color="#d8dee4", input_background_fill="#ffffff",
        slider_color="#0b5cad", checkbox_background_color_selected="#0b5cad",
    )  # fmt: skip
