"""The page of a training while it runs: served on 127.0.0.1, updated by server-sent events, safe to close at any time."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

from fastdl.errors import InputError
from fastdl.metrics import METRICS
from fastdl.report import charts, page
from fastdl.report.data import of_history
from fastdl.training.callbacks import Callback, EpochResult
from fastdl.wording import plural

SECONDS = 0.25
"""Between two events, so that short epochs are not held up by their picture."""
KEEP_ALIVE = 10.0
_SCRIPT = """
const source = new EventSource("events");
const subtitle = document.getElementById("subtitle");
source.onmessage = (event) => {
  const told = JSON.parse(event.data);
  Object.assign(page, told.charts);
  subtitle.textContent = told.status;
  drawAll();
  if (told.ended) source.close();
};
source.onerror = () => { source.close(); subtitle.textContent += " (the training is gone)"; };
"""


class LivePage(Callback):
    """A callback of the trainer, and a context manager around the training, that serves the curves as they grow.

    Parameters
    ----------
    name : of the data, for the title
    output : the model's output unit, which says what is measured
    port : 0 is any that is free; `url` has it

    Only this machine can ask, and only for this page. Nobody has to look; the training waits for nobody.
    """

    _only_watches = True

    def __init__(self, name: str, output: str, port: int = 0) -> None:
        self._changed = threading.Condition()
        self._version, self._told, self._ended = 0, "", False
        self._looking = 0
        self._last = 0.0
        empty = {"epoch": [], "curves": {key: [] for key in ("loss", *METRICS[output])}}
        self._page = page.render(
            {"title": name, "subtitle": "waiting for the first epoch"},
            charts.curves([("", empty)]),
            _SCRIPT,
            "; connect-src 'self'",
        ).encode()
        live = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                live._answer(self)

            def log_message(self, format: str, *args: Any) -> None:
                """Say nothing: the terminal belongs to the training."""

        try:
            self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        except OSError as error:
            raise InputError(f"--watch: cannot serve on 127.0.0.1 ({error.strerror}); leave it out") from error
        self._server.daemon_threads = True
        self._hosts = [f"{name}:{self._server.server_port}" for name in ("127.0.0.1", "localhost")]
        self.url = f"http://{self._hosts[0]}/"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> LivePage:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Tell those who look that it is over, and wait a second at most until they have heard it."""
        with self._changed:
            self._ended = True
            told = json.loads(self._told) if self._told else {"charts": {}, "status": "no epoch was finished"}
            status = f"{told['status']}: the training has ended, report.html in its folder says more"
            self._tell({**told, "status": status, "ended": True})
            self._changed.wait_for(lambda: self._looking == 0, timeout=1.0)
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def on_epoch_end(self, result: EpochResult) -> None:
        """Send the curves so far, unless that was done just now."""
        now = time.monotonic()
        if now - self._last < SECONDS and result.epoch < result.epochs:
            return
        self._last = now
        drawn = charts.curves([("", of_history(self.trainer.history))])
        status = f"epoch {result.epoch:,} of {plural(result.epochs, 'epoch')}"
        with self._changed:
            self._tell({"charts": drawn, "status": status, "ended": False})

    def _tell(self, values: dict[str, Any]) -> None:
        self._told = json.dumps(values, allow_nan=False)
        self._version += 1
        self._changed.notify_all()

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        """One request. Another host's name means that a page from elsewhere asks through this address."""
        if request.headers.get("Host") not in self._hosts or request.path not in ("/", "/events"):
            request.send_error(404)
            return
        events = request.path == "/events"
        try:
            request.send_response(200)
            request.send_header("Content-Type", "text/event-stream" if events else "text/html; charset=utf-8")
            request.send_header("Cache-Control", "no-store")
            if not events:
                request.send_header("Content-Length", str(len(self._page)))
            request.end_headers()
            if events:
                self._events(request)
            else:
                request.wfile.write(self._page)
        except OSError:  # who looked has gone
            return

    def _events(self, request: BaseHTTPRequestHandler) -> None:
        seen = 0
        with self._changed:
            self._looking += 1
        try:
            ended = False
            while not ended:
                with self._changed:
                    if self._version == seen and not self._ended:
                        self._changed.wait(KEEP_ALIVE)
                    news = self._told if self._version > seen else ""
                    seen, ended = self._version, self._ended
                request.wfile.write(f"data: {news}\n\n".encode() if news else b": still here\n\n")
                request.wfile.flush()
        finally:
            with self._changed:
                self._looking -= 1
                self._changed.notify_all()
