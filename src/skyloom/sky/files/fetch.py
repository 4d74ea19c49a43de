"""Fetches files over HTTP: a broken transfer goes on where it stopped, and a part is never taken for the whole."""

import threading
from collections.abc import Callable
from pathlib import Path

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError as TransferError

from skyloom.errors import InputError
from skyloom.sky.files.part_file import Part

BLOCK = 1 << 18  # bytes read at once, the most that a killed process loses
LONGEST_WAIT_S = 60.0
BUSY = (429, 500, 502, 503, 504)  # answers that may be different a little later
GONE = (404, 410)


class MissingError(InputError):
    """The server has no such file."""


class _MovedOnError(Exception):
    """The rest that the server offers does not belong to the part that we have."""


class Fetcher:
    """Fetches files; may be used from several threads, each of which keeps its own connections.

    Parameters
    ----------
    retries
        How often a request is tried again, and how often a transfer may break off in a row without one new byte.
    retry_wait_s
        Seconds before the first repetition; doubled at each further one, up to a minute. A server's Retry-After wins.
    timeout_s
        Seconds without an answer or a byte after which a connection counts as broken.
    """

    def __init__(self, *, retries: int, retry_wait_s: float, timeout_s: float) -> None:
        self.retries, self.retry_wait_s, self.timeout_s = retries, retry_wait_s, timeout_s
        self._stop = threading.Event()
        self._local = threading.local()

    def stop(self) -> None:
        """End the transfers that are under way in other threads; what they have fetched is kept."""
        self._stop.set()

    def size(self, url: str) -> int | None:
        """Size of a remote file in bytes; None when the server does not tell.

        Raises
        ------
        MissingError
            There is no such file.
        InputError
            The server cannot be reached or refuses.
        """
        with self._ask("HEAD", url, {}) as response:
            if response.status_code in (405, 501):
                return None  # a server that only knows GET
            _check_status(response, url)
            length = response.headers.get("Content-Length", "")
            return int(length) if length.isdigit() else None

    def fetch(self, url: str, target: Path, *, advance: Callable[[int], None]) -> None:
        """Fetch a file unless it is there.

        What has arrived lies in ``<target>.part``, also after an interruption of the program, and is continued with
        an HTTP range. ``<target>.part.json`` remembers the size and the version (ETag or Last-Modified) that
        the server told, so that two versions of a file are never joined. A server that ignores ranges makes the
        file start again.

        Parameters
        ----------
        url
            Where from.
        target
            Where to; exists only when the file is whole by the size that the server told.
        advance
            Called with the number of bytes that arrived, or negative when a part had to be thrown away.

        Raises
        ------
        MissingError
            There is no such file.
        InputError
            The server cannot be reached, refuses, or breaks off too often.
        """
        if target.exists():
            advance(target.stat().st_size)
            return
        part = Part(target)
        advance(part.size)
        furthest, failures = part.size, 0
        while True:
            try:
                self._transfer(url, part, advance)
                part.finish(target)
                return
            except (TransferError, _MovedOnError) as error:
                failures = 0 if part.size > furthest else failures + 1
                furthest = max(furthest, part.size)
                if failures > self.retries:
                    raise InputError(
                        f"{url} broke off {failures} times without progress, at byte {furthest} of "
                        f"{part.total or 'unknown'} ({_cause(error)}); give the same command again, it goes on there"
                    ) from error
            self._wait(min(self.retry_wait_s * 2 ** max(failures - 1, 0), LONGEST_WAIT_S))

    def _transfer(self, url: str, part: Part, advance: Callable[[int], None]) -> None:
        """Bring the part up to the whole file in one request, as far as the connection holds."""
        have = part.size
        if have and have == part.total:
            return
        with self._ask("GET", url, part.range_headers()) as response:
            if response.status_code == 416:  # longer than the remote file
                advance(-part.clear())
                raise _MovedOnError("the remote file is shorter than what had arrived")
            _check_status(response, url)
            if response.status_code == 206:
                start, total = _content_range(response)
                if start != have or part.total not in (None, total):
                    advance(-part.clear())
                    raise _MovedOnError("the remote file has changed")
            else:
                advance(-part.clear())
                length = response.headers.get("Content-Length", "")
                total = int(length) if length.isdigit() else None
            part.remember(total, response.headers)
            with part.path.open("ab") as file:
                for block in response.raw.stream(BLOCK, decode_content=False):
                    file.write(block)
                    advance(len(block))
                    self._check_stopped()
        if total is not None and part.size != total:
            raise TransferError(f"{part.size} of {total} bytes arrived")

    def _ask(self, method: str, url: str, headers: dict[str, str]) -> requests.Response:
        self._check_stopped()
        headers = {"Accept-Encoding": "identity", **headers}  # lengths and ranges count the bytes of the file itself
        try:
            return self._session().request(
                method, url, headers=headers, stream=True, timeout=self.timeout_s, allow_redirects=True
            )
        except requests.RequestException as error:
            raise InputError(
                f"{url} cannot be reached, tried {self.retries + 1} times ({_cause(error)}); check the network and "
                "base_url, and give the same command again, it goes on where it stopped"
            ) from error

    def _session(self) -> requests.Session:
        if not hasattr(self._local, "session"):
            session = requests.Session()
            retry = urllib3.Retry(
                total=self.retries,
                backoff_factor=self.retry_wait_s,
                backoff_max=LONGEST_WAIT_S,
                status_forcelist=BUSY,
                raise_on_status=False,
            )
            for scheme in ("http://", "https://"):
                session.mount(scheme, HTTPAdapter(max_retries=retry))
            self._local.session = session
        return self._local.session

    def _wait(self, seconds: float) -> None:
        self._stop.wait(seconds)
        self._check_stopped()

    def _check_stopped(self) -> None:
        if self._stop.is_set():
            raise InputError("the download was stopped; give the same command again, it goes on where it stopped")


def _check_status(response: requests.Response, url: str) -> None:
    if response.status_code in GONE:
        raise MissingError(f"{url} does not exist (HTTP {response.status_code})")
    if response.status_code >= 400:
        raise InputError(f"{url} cannot be fetched: the server answers {response.status_code} {response.reason}")


def _content_range(response: requests.Response) -> tuple[int, int | None]:
    """First byte and total size of ``bytes 100-199/200``; (-1, None) when it makes no sense."""
    text = response.headers.get("Content-Range", "")
    unit, _, rest = text.partition(" ")
    span, _, total = rest.partition("/")
    start = span.partition("-")[0]
    if unit != "bytes" or not start.isdigit():
        return -1, None
    return int(start), int(total) if total.isdigit() else None


def _cause(error: BaseException) -> str:
    """The innermost reason, without the object addresses that urllib3 prints."""
    reason = getattr(error.args[0], "reason", None) if error.args else None
    text = " ".join(str(reason or error).split())
    return text.rpartition("object at 0x")[2].partition(": ")[2] or text if "object at 0x" in text else text
