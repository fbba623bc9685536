"""The page: drop photos, choose settings, see captions as they come."""

from __future__ import annotations

import asyncio
import html
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio

from effcap.images import UnreadablePhoto
from effcap.samplers.registry import to_config
from effcap.tools.serving.caption_service import CaptionService, Upload, refusal
from effcap.tools.serving.heatmaps import caption_words
from effcap.tools.serving.page_assets import CSS, HEAD
from effcap.tools.serving.page_files import PageFiles
from effcap.tools.serving.request_error import RequestError
from effcap.tools.serving.result_cards import Column, error_card, maps_html, photo_card
from effcap.tools.serving.serve_options import MEGABYTE, ServeOptions
from effcap.tools.serving.served_captioners import CaptionSettings
from effcap.tools.serving.setting_controls import SettingControls, add_controls
from effcap.tools.serving.upload_folder import MAX_AGE, upload_folder
from effcap.utils.paths import resource_folder
from effcap.utils.progress import print_line

if TYPE_CHECKING:
    from fastapi import FastAPI

    from effcap.caption import Caption

HEADER = """<div class="ec-head"><h1>EffCap</h1><p>Drop photos, read their captions, and hover over
a word to see where the captioner looked. For programs: <a href="docs">POST /caption</a></p></div>
"""
EMPTY = """<div class="ec-empty"><strong>No photos yet</strong><span>Drop some on the left, or try
the sample photos.</span></div>"""
CSV_BUTTON = '<button type="button" class="ec-csv">Download CSV</button>'
FONTS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]
MONO = ["ui-monospace", "Menlo", "Consolas", "monospace"]
MAX_RUNS = 32  # pages that caption at once
Outputs = tuple[str, str, str]  # status, results and maps as HTML


def mount_page(app: FastAPI, service: CaptionService) -> PageFiles:
    """Adds the page at / to an application.

    Args:
        app: application with the endpoints.
        service: captions the photos.
    """
    options, folder = service.options, upload_folder()
    blocks = create_blocks(service)
    # Gradio checks files of requests only if it believes that it started the server.
    blocks.has_launched = True
    mounted = gradio.mount_gradio_app(
        app,
        blocks,
        path="/",
        allowed_paths=[str(sample_folder())],
        max_file_size=options.photo_bytes,
        footer_links=[],
        ssr_mode=False,
        show_error=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        theme=theme(),
        css=CSS,
        head=HEAD,
    )
    return PageFiles(mounted, folder)


def create_blocks(service: CaptionService) -> gradio.Blocks:
    """Returns the page."""
    captioners = service.captioners
    with gradio.Blocks(
        title="EffCap", analytics_enabled=False, delete_cache=(60, int(MAX_AGE)), fill_width=True
    ) as blocks:
        gradio.HTML(HEADER)
        with gradio.Row():
            with gradio.Column(scale=2, min_width=320):
                photos = gradio.File(
                    file_count="multiple", label="Photos", height=190, elem_id="photos"
                )
                with gradio.Row():
                    samples = gradio.Button("Sample photos", variant="secondary", size="sm")
                    stop = gradio.Button("Stop", variant="secondary", size="sm")
                run = gradio.Button("Caption", variant="primary", elem_id="run")
                with gradio.Group():
                    first = add_controls(captioners)
                compare = gradio.Checkbox(
                    label="Compare with a second preset or sampler", elem_id="compare"
                )
                with gradio.Group(visible=False) as second_group:
                    second = add_controls(captioners, second=True)
            with gradio.Column(scale=5, min_width=320):
                status = gradio.HTML(status_html(""))
                results = gradio.HTML(EMPTY, elem_id="results")
                maps = gradio.HTML("", elem_id="maps")

        async def caption(paths: list[str] | None, both: bool, *values: Any) -> AsyncIterator:
            controls = [first, second] if both else [first]
            async for outputs in caption_page(service, paths or [], controls, values):
                yield outputs

        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        captioning: dict[str, Any] = {
            "fn": caption,
            "inputs": [photos, compare, *first.inputs, *second.inputs],
            "outputs": [status, results, maps],
            "concurrency_limit": MAX_RUNS,
            **quiet,
        }
        triggers = [run.click, photos.upload, first.prefix.submit, second.prefix.submit]
        running = gradio.on(triggers, trigger_mode="always_last", **captioning)
        sampled = samples.click(sample_photos, None, photos, **quiet).then(**captioning)
        runs = [running, sampled]
        compare.change(lambda both: gradio.update(visible=both), compare, second_group, **quiet)
        photos.clear(
            lambda: (status_html(""), EMPTY, ""),
            None,
            [status, results, maps],
            cancels=runs,
            **quiet,
        )
        stop.click(lambda: status_html("Stopped"), None, status, cancels=runs, **quiet)
    blocks.queue(max_size=2 * MAX_RUNS)
    return blocks


def theme() -> gradio.themes.Base:
    """Returns the theme, with fonts of the reader's system and text that is easy to read."""
    base = gradio.themes.Default(font=FONTS, font_mono=MONO, primary_hue="orange")
    gray = {"light": "*neutral_600", "dark": "*neutral_400"}
    return base.set(
        body_text_color_subdued=gray["light"],
        body_text_color_subdued_dark=gray["dark"],
        block_info_text_color=gray["light"],
        block_info_text_color_dark=gray["dark"],
    )


async def caption_page(
    service: CaptionService,
    paths: Sequence[str],
    controls: Sequence[SettingControls],
    values: Sequence[Any],
) -> AsyncIterator[Outputs]:
    """Captions photos and yields the state of the page after each.

    Args:
        service: captions the photos.
        paths: files of the photos, as Gradio has stored them; it refuses others.
        controls: controls of one or two columns.
        values: values of the controls, one column after the other.
    """
    if not paths:
        yield status_html("Drop photos first"), EMPTY, ""
        return
    try:
        uploads = await asyncio.to_thread(read_uploads, paths, service.options)
        settings = []
        for one in controls:
            count = len(one.inputs)
            settings.append(one.read(service.captioners, values[:count]))
            values = values[count:]
    except RequestError as error:
        yield status_html(error.reason, failed=True), "", ""
        return
    page = ResultPage(service, uploads, settings)
    try:
        async for outputs in page.run():
            yield outputs
    finally:
        page.cancel()


class ResultPage:
    """The cards of the photos of a page, which are added one by one.

    Args:
        service: captions the photos.
        uploads: the photos.
        settings: settings of each column.
    """

    def __init__(
        self,
        service: CaptionService,
        uploads: Sequence[Upload],
        settings: Sequence[CaptionSettings],
    ) -> None:
        self._service, self._uploads, self._settings = service, uploads, settings
        self._futures: list[list[asyncio.Future | UnreadablePhoto]] = []
        self._mapped: list[tuple[str, str, bytes, Caption]] = []  # captions with words to map

    async def run(self) -> AsyncIterator[Outputs]:
        """Yields the state of the page after each photo."""
        total, cards, started = len(self._uploads), "", time.monotonic()
        yield status_html(f"Captioning {photos_text(total)} …"), "", ""
        try:
            self._futures = [await self._submit(settings) for settings in self._settings]
        except Exception as error:
            reason = failure("Photos cannot be captioned", error)
            yield status_html(reason, failed=True), "", ""
            return
        for number, upload in enumerate(self._uploads):
            left = self._service.options.timeout - (time.monotonic() - started)
            cards += await self._card(number, upload, max(left, 0.0))
            message = f"{number + 1} of {photos_text(total)} …"
            if number + 1 == total:
                message = f"{photos_text(total)} in {time.monotonic() - started:.1f} seconds"
            yield status_html(message, download=True), results_html(cards), ""
        done, maps = status_html(message, download=True), ""
        for key, preset, data, caption in self._mapped:
            maps += await self._maps(key, preset, data, caption)
            yield done, results_html(cards), maps

    async def _maps(self, key: str, preset: str, data: bytes, caption: Caption) -> str:
        """Returns the pictures of a caption's words; "" where there are none."""
        try:
            future = self._service.submit_maps(preset, data, caption)
            self._futures.append([future])
            return maps_html(key, await asyncio.wait_for(future, self._service.options.timeout))
        except (RequestError, ValueError, TimeoutError, asyncio.TimeoutError):
            return ""  # busy, or a backbone without a grid: the captions stay
        except Exception as error:
            failure("The pictures of a caption are missing", error)
            return ""

    def cancel(self) -> None:
        """Drops the photos that wait."""
        for futures in self._futures:
            for future in futures:
                if isinstance(future, asyncio.Future):
                    future.cancel()

    async def _submit(self, settings: CaptionSettings) -> list[asyncio.Future | UnreadablePhoto]:
        decoded = await self._service.decode(self._uploads, settings.preset)
        readable = [pixels for pixels in decoded if not isinstance(pixels, UnreadablePhoto)]
        futures = iter(self._service.submit(settings, readable))
        return [one if isinstance(one, UnreadablePhoto) else next(futures) for one in decoded]

    async def _card(self, number: int, upload: Upload, timeout: float) -> str:
        """Returns the card of a photo, with what went wrong in place of its captions."""
        deadline = time.monotonic() + timeout
        try:
            columns = [
                await self._column(number, place, upload.data, deadline)
                for place in range(len(self._settings))
            ]
            return await asyncio.to_thread(photo_card, upload.name, upload.data, columns)
        except UnreadablePhoto as error:
            return error_card(upload.name, error.reason)
        except Exception as error:
            return error_card(upload.name, failure(f"{upload.name} has no card", error))

    async def _column(self, number: int, place: int, data: bytes, deadline: float) -> Column:
        """Waits for the captions of a photo with one of the settings.

        Raises:
            UnreadablePhoto: the photo cannot be decoded.
        """
        future, settings = self._futures[place][number], self._settings[place]
        if isinstance(future, UnreadablePhoto):
            raise future
        sampler = to_config(settings.sampler)["kind"]
        try:
            captions = await asyncio.wait_for(future, max(deadline - time.monotonic(), 0.001))
        except (TimeoutError, asyncio.TimeoutError):
            seconds = self._service.options.timeout
            reason = f"The captions took longer than {seconds:g} seconds"
            return Column(settings.preset, sampler, error=reason)
        except ValueError as error:
            return Column(settings.preset, sampler, error=refusal(error).reason)
        except Exception as error:
            reason = failure(f"{settings.preset} failed", error)
            return Column(settings.preset, sampler, error=reason)
        captioner, key = self._service.captioners.by_name[settings.preset], f"{number}-{place}"
        words = caption_words(captioner, captions[0])
        if words:
            self._mapped.append((key, settings.preset, data, captions[0]))
        return Column(settings.preset, sampler, captions, words, key)


def failure(what: str, error: Exception) -> str:
    """Returns the text that the page shows for an error, which is printed if it is not expected.

    Args:
        what: what failed, for the log.
        error: the error.
    """
    if isinstance(error, RequestError):
        return error.reason
    message = " ".join(str(error).split())
    print_line(f"{what}: {type(error).__name__}: {message}")
    return "The server failed; its log says why"


def read_uploads(paths: Sequence[str], options: ServeOptions) -> list[Upload]:
    """Reads photos, after checking their number and their total size.

    Args:
        paths: files of the photos.
        options: limits.

    Raises:
        RequestError: there are too many photos or bytes, or a file has been deleted.
    """
    if len(paths) > options.max_photos:
        raise RequestError(
            413, f"At most {options.max_photos} photos at once. Received: {len(paths)}"
        )
    files = [Path(path) for path in paths]
    try:
        num_bytes = sum(file.stat().st_size for file in files)
        if num_bytes > options.request_bytes:
            raise RequestError(
                413,
                f"Expected photos of at most {options.max_request:g} MB together. "
                f"Received: {num_bytes / MEGABYTE:.4g} MB",
            )
        return [Upload(file.name, file.read_bytes()) for file in files]
    except OSError:
        reason = "The photos were deleted, as those of more than an hour ago are. Drop them again"
        raise RequestError(422, reason) from None


def sample_folder() -> Path:
    """Returns the folder of the sample photos."""
    return resource_folder("res") / "photos"


def sample_photos() -> list[str]:
    """Returns the paths of some sample photos."""
    return [str(path) for path in sorted(sample_folder().glob("*.jpg"))[:6]]


def results_html(cards: str) -> str:
    """Returns the cards that there are; it only grows, so that Gradio sends what is new."""
    return f'<div class="ec-results">{cards}'


def photos_text(count: int) -> str:
    """Returns a number of photos in words."""
    return "1 photo" if count == 1 else f"{count} photos"


def status_html(message: str, *, failed: bool = False, download: bool = False) -> str:
    """Returns the line above the results."""
    kind = "ec-message ec-failed" if failed else "ec-message"
    role = "alert" if failed else "status"
    button = CSV_BUTTON if download else ""
    return (
        f'<div class="ec-bar-top"><span class="{kind}" role="{role}">{html.escape(message)}</span>'
        f"{button}</div>"
    )
