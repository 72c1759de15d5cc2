"""Page of the demo: files are dropped, and each is answered by a card with probabilities and a Grad-CAM overlay."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from resnet_tf.core.errors import UserError
from resnet_tf.core.text import counted
from resnet_tf.report import elements
from resnet_tf.report.elements import escape

MAX_FILES = 100  # of one upload: the page holds all of their images
_MAX_FILE_SIZE = "100mb"
_SAFE_METHODS = ("GET", "HEAD", "OPTIONS")  # RFC 9110, section 9.2.1
_PORTS = {"http": 80, "https": 443}  # which browsers leave out of an origin

# Gradio's pages load fonts and scripts from the same server with the settings below. The policy makes a browser refuse
# any other origin, whatever a later release of Gradio asks for.
_POLICY = "; ".join(
    (
        "default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'",
        "object-src 'none'",
        "base-uri 'self'",
        "form-action 'self'",
    )
)

_CSS = """
.gradio-container { max-width: 72rem !important; margin: 0 auto !important; }
.gradio-container .html-container { padding: 0 !important; }
.answers { display: grid; gap: 1rem; align-items: start; }
.answers { grid-template-columns: repeat(auto-fill, minmax(min(19rem, 100%), 1fr)); }
.answer { border: 1px solid var(--border-color-primary); border-radius: 0.5rem; padding: 0.75rem; min-width: 0; }
.answer h3 { font-size: 0.9rem; margin: 0 0 0.5rem; overflow-wrap: anywhere; }
.answer .images { display: grid; grid-template-columns: 1fr 1fr; gap: 0.5rem; }
.answer figure { margin: 0; }
.answer img { display: block; width: 100%; border-radius: 0.25rem; }
.answer img.small { image-rendering: pixelated; }
.answer figcaption { font-size: 0.75rem; line-height: 1.3; margin-top: 0.25rem; color: inherit; opacity: 0.75; }
.answer ol { list-style: none; margin: 0.6rem 0 0; padding: 0; font-size: 0.85rem; }
.answer li { display: grid; grid-template-columns: 1fr auto; column-gap: 0.75rem; margin: 0.35rem 0; }
.answer li span { overflow-wrap: anywhere; }
.answer li span + span { font-variant-numeric: tabular-nums; }
.answer .bar { grid-column: 1 / -1; height: 0.4rem; border-radius: 0.2rem; background: var(--border-color-primary); }
.answer .bar i { display: block; height: 100%; border-radius: 0.2rem; background: var(--color-accent); }
.answer .selected { font-size: 0.85rem; margin: 0.6rem 0 0; overflow-wrap: anywhere; }
.answer .error { color: var(--error-text-color, #b00020); font-size: 0.85rem; margin: 0; overflow-wrap: anywhere; }
"""


@dataclass(frozen=True)
class Answer:
    """Result for one file.

    Attributes:
        file: name of the file.
        error: reason why it has no prediction; empty if it has one.
        scores: (class name, probability) of the best classes, in descending order.
        selected: names of the classes that reach their thresholds, for a multi-label model; None for a single-label
            one.
        unsure: True if the best score is below the threshold of the model.
        image: the cropped and resized input, float [H, W, 1 or 3] in [0, 1].
        overlay: the input blended with the Grad-CAM heatmap of the best class, float [H, W, 3]; None without one.
    """

    file: str
    error: str = ""
    scores: Sequence[tuple[str, float]] = ()
    selected: Sequence[str] | None = None
    unsure: bool = False
    image: np.ndarray | None = None
    overlay: np.ndarray | None = None


@dataclass(frozen=True)
class Content:
    """Properties of the model that the page shows.

    Attributes:
        title: name of the model.
        description: one line below the title.
        noun: name of an example, `image` or `signal`.
        plural: of the noun.
        suffixes: of the files that can be chosen.
        explains: True if the model has Grad-CAM heatmaps.
    """

    title: str
    description: str
    noun: str
    plural: str
    suffixes: Sequence[str]
    explains: bool


# Yields the answers for files; the second argument requests overlays.
Classify = Callable[[Sequence[str], bool], Iterable[Answer]]


def create_app(content: Content, classify: Classify, *, hosts: Sequence[str]) -> Any:
    """Return the page as an ASGI application.

    Args:
        content: see `Content`.
        classify: see `Classify`; called from several threads.
        hosts: host names by which a browser may address the server; `*` is any.

    Raises:
        UserError: if Gradio is not installed.
    """
    gradio = _import_gradio()
    from fastapi import FastAPI
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    app = FastAPI(openapi_url=None)
    gradio.mount_gradio_app(
        app,
        _create_page(gradio, content, classify),
        path="/",
        footer_links=[],
        run_history=False,
        max_file_size=_MAX_FILE_SIZE,
        ssr_mode=False,
        pwa=False,
        mcp_server=False,
        enable_monitoring=False,
        theme=gradio.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
        css=_CSS,
    )
    # Against other sites, whose name an attacker's DNS server answers with 127.0.0.1 (DNS rebinding).
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts))
    return _with_policy(_refuse_other_sites(app))


def answers_html(answers: Iterable[Answer]) -> str:
    """Return cards for answers; names and messages are escaped."""
    return f'<div class="answers">{"".join(map(_card, answers))}</div>'


def _import_gradio() -> Any:
    # Read at the import: no usage statistics, and no request for the newest version.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    try:
        import gradio
    except ImportError as error:
        raise UserError("the demo needs the package gradio: pip install 'resnet_tf[demo]'") from error
    return gradio


def _create_page(gradio: Any, content: Content, classify: Classify) -> Any:
    def answer(files: list[str] | None, explain: bool, progress: Any = gradio.Progress()) -> str:  # noqa: B008 (Gradio's)
        files, answers = files or [], []
        for each in classify(files[:MAX_FILES], explain):
            answers.append(each)
            progress((len(answers), len(files)), unit=content.plural)
        return _describe_limit(len(files), content) + answers_html(answers) if files else ""

    with gradio.Blocks(title=content.title, analytics_enabled=False, delete_cache=(600, 3600)) as page:
        gradio.HTML(f"<h1>{escape(content.title)}</h1><p>{escape(content.description)}</p>")
        files = gradio.File(
            label=content.plural, file_count="multiple", file_types=list(content.suffixes), height=180, type="filepath"
        )
        explain = gradio.Checkbox(
            content.explains, label="Grad-CAM: regions that determine the prediction", visible=content.explains
        )
        output = gradio.HTML(elem_id="answers")
        gradio.on(
            [files.change, explain.change],
            answer,
            [files, explain],
            output,
            trigger_mode="always_last",
            api_visibility="private",
        )
    return page


def _describe_limit(count: int, content: Content) -> str:
    if count <= MAX_FILES:
        return ""
    first = counted(MAX_FILES, content.noun)
    return f"<p>The first {first} of {count:,}; `resnet-tf predict` takes folders of any size.</p>"


def _card(answer: Answer) -> str:
    if answer.error:
        body = f'<p class="error">{escape(answer.error)}</p>'
    else:
        images = [(answer.image, "input of the network"), (answer.overlay, "Grad-CAM of the best class")]
        shown = (elements.figure(image, [text], alt=text) for image, text in images if image is not None)
        bars = "".join(_bar(*each) for each in answer.scores)
        unsure = '<p class="selected">Unsure: the best score is too low.</p>' if answer.unsure else ""
        body = f"{elements.gallery(shown)}<ol>{bars}</ol>{_selected(answer)}{unsure}"
    return f'<article class="answer"><h3>{escape(answer.file)}</h3>{body}</article>'


def _selected(answer: Answer) -> str:
    if answer.selected is None:
        return ""
    return f'<p class="selected">Above the thresholds: {escape(", ".join(answer.selected) or "no class")}</p>'


def _bar(label: str, score: float) -> str:
    width = f"{100 * min(max(score, 0.0), 1.0):.1f}"
    bar = f'<span class="bar"><i style="width: {width}%"></i></span>'
    return f"<li><span>{escape(label)}</span><span>{100 * score:.1f} %</span>{bar}</li>"


def _refuse_other_sites(app: Any) -> Any:
    """Return an ASGI application that answers 403 to a page of another origin that sends files (CSRF)."""
    from starlette.datastructures import Headers
    from starlette.responses import PlainTextResponse

    async def checked(scope: Any, receive: Any, send: Any) -> None:
        changes_nothing = scope["type"] != "http" or scope["method"] in _SAFE_METHODS
        if changes_nothing or _is_own_page(Headers(scope=scope)):
            await app(scope, receive, send)
        else:
            await PlainTextResponse("request of another site", status_code=403)(scope, receive, send)

    return checked


def _is_own_page(headers: Mapping[str, str]) -> bool:
    """Return True for a request by the page itself, and by a program that is no browser, which states no origin."""
    if headers.get("sec-fetch-site") == "cross-site":
        return False
    return "origin" not in headers or _is_same_address(headers["origin"], headers.get("host", ""))


def _is_same_address(origin: str, host: str) -> bool:
    """Return True if an origin, such as `https://name`, has the host and port of a `Host` header, as of a proxy.

    >>> _is_same_address("https://name", "name:443"), _is_same_address("null", "name")
    (True, False)
    """
    try:
        sender, own = urlsplit(origin), urlsplit(f"{urlsplit(origin).scheme}://{host}")
        default = _PORTS.get(sender.scheme)
        return bool(sender.hostname) and (
            (sender.hostname, sender.port or default) == (own.hostname, own.port or default)
        )
    except ValueError:  # not a URL
        return False


def _with_policy(app: Any) -> Any:
    """Return an ASGI application that adds the content security policy to every response."""

    async def with_policy(scope: Any, receive: Any, send: Any) -> None:
        async def send_with_policy(message: Any) -> None:
            if message["type"] == "http.response.start":
                added = (b"content-security-policy", _POLICY.encode()), (b"referrer-policy", b"no-referrer")
                message = {**message, "headers": [*message.get("headers", ()), *added]}
            await send(message)

        await app(scope, receive, send_with_policy)

    return with_policy
