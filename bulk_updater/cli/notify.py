"""Telling a URL how a run ended."""

from __future__ import annotations

import base64
import http.client
import json
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, unquote, urlsplit

from bulk_updater._version import __version__
from bulk_updater.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["NOTIFY_S", "check_notify_url", "notify", "public_url"]

NOTIFY_S = 10.0
"""Seconds that a notification may take in all: long for an answer, short for a night's end."""


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A summary goes where it was told to go, and nowhere else."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def check_notify_url(url: str) -> None:
    """Refuse what nothing can be posted to.

    Raises:
        ConfigError: It is no http or https URL with a host. The message does not repeat it.
    """
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and url.isprintable()
        _ = parts.port  # out of range, or no number
    except ValueError:
        usable = False
    if not usable or " " in url:
        raise ConfigError(
            "--notify takes a URL that begins with https:// or http:// and names a host."
        )


def public_url(url: str) -> str:
    """A URL as a log may have it: scheme, host and port; the rest may be a secret."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{_host(parts)}"


def notify(url: str, told: Mapping[str, Any]) -> str | None:
    """POST something as JSON, once. Blocks, at the most `NOTIFY_S` between two bytes.

    Args:
        url: Where to, as `check_notify_url` takes it. A user name and a password in it go into the
            Authorization header.
        told: What to tell; anything that JSON has.

    Returns:
        Why it did not arrive, in a sentence without the URL's secrets; None where it did.
    """
    opener = urllib.request.build_opener(_NoRedirects)
    try:
        with opener.open(_request(url, told), timeout=NOTIFY_S) as answer:
            answer.read(1)
    except urllib.error.HTTPError as error:
        error.close()
        moved = " (redirects are not followed)" if error.code // 100 == 3 else ""  # noqa: PLR2004
        return _warning(url, f"it answered {error.code}{moved}")
    except urllib.error.URLError as error:
        return _warning(url, _why(error.reason))
    except (OSError, http.client.HTTPException, ValueError) as error:
        return _warning(url, _why(error))
    return None


def _request(url: str, told: Mapping[str, Any]) -> urllib.request.Request:
    parts = urlsplit(url)
    headers = {"Content-Type": "application/json", "User-Agent": f"bulk-updater/{__version__}"}
    if parts.username is not None or parts.password is not None:
        pair = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
        headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
    bare = parts._replace(netloc=_host(parts), fragment="").geturl()
    return urllib.request.Request(  # noqa: S310 - the scheme was checked
        bare, data=json.dumps(told).encode(), headers=headers, method="POST"
    )


def _host(parts: SplitResult) -> str:
    return parts.netloc.rpartition("@")[2]


def _why(error: object) -> str:
    """What went wrong, in words that cannot quote the URL."""
    if isinstance(error, TimeoutError):
        return f"no answer within {NOTIFY_S:g} s"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return type(error).__name__


def _warning(url: str, why: str) -> str:
    return f"The notification could not be posted to {public_url(url)}: {why}."
