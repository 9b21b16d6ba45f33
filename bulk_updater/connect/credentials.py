"""What requests are signed with: until when it lasts, and how it is renewed.

    CredentialsEnd   when the credentials end for good, as far as anybody can know
    find_end         says so, from what is known of them
    read_end         gathers what is known, without a question to anybody
    Signing          renews them once for all requests, also where only the service knows that
                     they have ended

Credentials that renew themselves have no end. Others end in the middle of a long run, and what is
known of it is scattered: environment variables, keys that tools write beside the credentials, the
cache of the single sign-on. All of it is read from files and from memory.
"""

from __future__ import annotations

import asyncio
import logging
import os
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from aiobotocore.credentials import AioRefreshableCredentials
from botocore import exceptions as boto
from botocore.utils import JSONFileCache, SSOTokenLoader

from bulk_updater.connect.judging import make_error
from bulk_updater.connect.meanings import FOREIGN
from bulk_updater.errors import SendError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import aioboto3

__all__ = ["NEVER", "CredentialsEnd", "Known", "Signing", "find_end", "read_end"]

# Where nobody listens, Python prints warnings itself, and aiobotocore warns with a traceback that a
# refresh failed: we say what there is to say.
logging.getLogger("aiobotocore").addHandler(logging.NullHandler())

_EXPIRY_KEYS: Final = (
    "aws_session_expiration",
    "aws_credential_expiration",
    "x_security_token_expires",  # saml2aws
    "aws_expiration",  # aws-azure-login
    "expiration",  # aws-mfa
)
"""What tools write into a profile beside the credentials, for themselves; botocore reads none."""

_ROLE_LASTS_S: Final = 3600.0
"""How long a role is lent where the profile says nothing (STS, AssumeRole)."""

_RENEWED_BEFORE_S: Final = 600.0
"""How long before their end botocore insists on new ones (`_DEFAULT_MANDATORY_REFRESH_TIMEOUT`).
Where they cannot be renewed, that is the end."""


_LOG_IN: Final = "log in again"


@dataclass(frozen=True, slots=True)
class CredentialsEnd:
    """When credentials end for good.

    Attributes:
        at: The moment, in UTC; None where it is not known, and where there is none.
        is_known: Whether that is known. Credentials that renew themselves, or that last until
            somebody takes them back, are known to have no end.
        renewal: What to do to have new ones, as a clause: `log in again (aws sso login)`.
    """

    at: datetime | None = None
    is_known: bool = True
    renewal: str = _LOG_IN


NEVER: Final = CredentialsEnd()


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of credentials.

    Attributes:
        method: botocore's name of where they come from, such as `env` or `assume-role`.
        has_token: Whether they are of a session, and so have an end.
        expires_at: Their own end, where botocore knows it, aware of its zone.
        profile: The name of the profile; one that does not exist is like an empty one.
        profiles: Every profile of the configuration and of the shared credentials file.
        environ: The environment.
        find_login: The cached log-in of a profile that uses single sign-on; None if there is none.
        now: The time, in UTC.
    """

    method: str
    has_token: bool
    expires_at: datetime | None
    profile: str
    profiles: Mapping[str, Mapping[str, Any]]
    environ: Mapping[str, str]
    find_login: Callable[[Mapping[str, Any]], Mapping[str, Any] | None]
    now: datetime


def find_end(known: Known) -> CredentialsEnd:
    """When the credentials of a session end for good.

    Args:
        known: What is known of them.
    """
    if known.method == "assume-role":
        return _end_of_role(known, known.profile, frozenset())
    if known.method == "env":
        return _end_in_environment(known)
    if known.method in {"sso", "shared-credentials-file", "config-file"}:
        return _end_of_profile(known, known.profile)
    if known.expires_at is None and known.has_token:
        # From a process that does not say for how long, or handed over by whoever opened us.
        return CredentialsEnd(is_known=False)
    return NEVER  # machines, containers, web identities and processes lend anew; long-term keys


def _end_in_environment(known: Known) -> CredentialsEnd:
    says = known.environ.get
    written = says("AWS_CREDENTIAL_EXPIRATION")
    if not (written or says("AWS_SESSION_TOKEN") or says("AWS_SECURITY_TOKEN")):
        return NEVER
    return _end_as_written(written)


def _end_of_profile(known: Known, name: str) -> CredentialsEnd:
    """The end of what a profile holds or is lent, but for roles."""
    profile = known.profiles.get(name, {})
    if "aws_access_key_id" in profile:
        if not (profile.get("aws_session_token") or profile.get("aws_security_token")):
            return NEVER
        return _end_as_written(*(profile.get(key) for key in _EXPIRY_KEYS))
    if "sso_session" in profile or "sso_start_url" in profile:
        return _end_of_login(known, name, profile)
    return NEVER


def _end_of_login(known: Known, name: str, profile: Mapping[str, Any]) -> CredentialsEnd:
    renewal = f"log in again (aws sso login --profile {name})"
    login = known.find_login(profile)
    if login is None:
        return CredentialsEnd(is_known=False, renewal=renewal)
    renewable = {"refreshToken", "clientId", "clientSecret", "registrationExpiresAt"}
    # Only a log-in to a `sso_session` is renewed; then until the registration ends, in weeks.
    if "sso_session" in profile and renewable <= login.keys():
        return _end_as_written(login["registrationExpiresAt"], renewal=renewal)
    return _end_as_written(login.get("expiresAt"), renewal=renewal)


def _end_of_role(known: Known, name: str, seen: frozenset[str]) -> CredentialsEnd:
    """The end of a role that a profile is lent: its own with MFA, or else its lender's."""
    profile = known.profiles.get(name, {})
    if profile.get("mfa_serial"):
        expires_at = known.expires_at if name == known.profile else None
        if expires_at is None:
            expires_at = known.now + timedelta(seconds=_lasts_s(profile))
        return CredentialsEnd(
            at=expires_at.astimezone(UTC) - timedelta(seconds=_RENEWED_BEFORE_S),
            renewal="give the code of the MFA device again",
        )
    lender = profile.get("source_profile")
    if lender is None:
        lends = profile.get("credential_source")
        return _end_in_environment(known) if lends == "Environment" else NEVER
    lent = known.profiles.get(lender, {})
    # A profile may lend to itself: then it has keys beside its role.
    if "role_arn" in lent and "aws_access_key_id" not in lent and lender not in seen | {name}:
        return _end_of_role(known, lender, seen | {name})
    return _end_of_profile(known, lender)


def _lasts_s(profile: Mapping[str, Any]) -> float:
    try:
        return float(profile.get("duration_seconds", _ROLE_LASTS_S))
    except ValueError:
        return _ROLE_LASTS_S


def _end_as_written(*said: object, renewal: str = _LOG_IN) -> CredentialsEnd:
    """The first of these that is a moment; not known where none is."""
    for each in said:
        moment = _parse_moment(each)
        if moment is not None:
            return CredentialsEnd(at=moment, renewal=renewal)
    return CredentialsEnd(is_known=False, renewal=renewal)


def _parse_moment(said: object) -> datetime | None:
    """A moment as tools write it: ISO 8601, in UTC where no zone is named; or seconds."""
    if isinstance(said, datetime):
        moment = said
    else:
        text = str(said).strip().replace(" UTC", "Z")
        try:
            moment = (
                datetime.fromtimestamp(int(text), UTC)
                if text.isdecimal() and len(text) == 10  # noqa: PLR2004 - seconds until 2286
                else datetime.fromisoformat(text)
            )
        except (ValueError, OverflowError, OSError):
            return None
    with suppress(OverflowError):
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    return None


def read_end(session: aioboto3.Session, credentials: Any) -> CredentialsEnd:
    """When a session's credentials end for good; reads files, so it runs in a thread.

    Args:
        session: The session.
        credentials: Its credentials, as botocore or `Signing` holds them.
    """
    core = session._session  # noqa: SLF001 - aioboto3 has no name for botocore's
    inner = credentials.inner if isinstance(credentials, Signing) else credentials
    return find_end(
        Known(
            method=str(inner.method),
            has_token=bool(getattr(inner, "_token", None) or inner.__dict__.get("token")),
            expires_at=getattr(inner, "_expiry_time", None),
            profile=session.profile_name or "default",
            profiles=core.full_config.get("profiles", {}),
            environ=os.environ,
            find_login=lambda profile: _read_login(core, profile),
            now=datetime.now(UTC),
        )
    )


def _read_login(core: Any, profile: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The log-in that `aws sso login` left in its cache."""
    name = profile.get("sso_session")
    sessions = core.full_config.get("sso_sessions", {})
    url = sessions.get(name, {}).get("sso_start_url") if name else profile.get("sso_start_url")
    cache = JSONFileCache(str(Path("~/.aws/sso/cache").expanduser()))
    try:
        found = SSOTokenLoader(cache=cache)(url or "", session_name=name)
    except (boto.BotoCoreError, KeyError, ValueError, OSError):
        return None
    return found if isinstance(found, dict) else None


class Signing:
    """A session's credentials, renewed once for everybody who needs it.

    Takes the place of botocore's own object. The service may know sooner than botocore that
    credentials have ended: they were taken back, or a clock is off. Then all requests in flight
    hear of it at once, and the first of them renews for all.

    Attributes:
        inner: botocore's own object.
    """

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self._loading: asyncio.Future[Any] | None = None
        self._renewing = asyncio.Lock()
        self._failure: tuple[object, Exception] | None = None
        self._unproven: object = None

    def __getattr__(self, name: str) -> Any:
        # Whatever else botocore asks of credentials, such as their account.
        if name == "inner":  # a copy that is not filled yet
            raise AttributeError(name)
        return getattr(self.inner, name)

    async def get_frozen_credentials(self) -> Any:
        """What to sign the next request with; renews it where it is time, once for all who ask.

        Raises:
            AccessError: If they have ended and nothing renews them.
            BotoCoreError, ClientError, OSError, ValueError: Whatever else the lender raises.
        """
        if not isinstance(self.inner, AioRefreshableCredentials) or not self.inner.refresh_needed(
            self.inner._mandatory_refresh_timeout  # noqa: SLF001
        ):
            return await self.inner.get_frozen_credentials()
        if self._loading is None:
            # By itself, botocore lets everybody who waits ask again where the first one failed.
            self._loading = asyncio.ensure_future(self._load())
            self._loading.add_done_callback(self._loaded)
        return await asyncio.shield(self._loading)

    async def _load(self) -> Any:
        try:
            return await self.inner.get_frozen_credentials()
        except RuntimeError:
            # "Credentials were refreshed, but the refreshed credentials are still expired."
            raise make_error("ExpiredToken", None) from None

    def _loaded(self, loading: asyncio.Future[Any]) -> None:
        self._loading = None
        if not loading.cancelled():
            loading.exception()  # seen, even where all who waited were cancelled

    async def renew(self, rejected: Any) -> None:
        """Have new ones after the service said that these have ended; does so once.

        Credentials that cannot be renewed stay as they are, and so do those that were renewed
        since the request was signed, and new ones that the service has never accepted: the next
        would be no better.

        Args:
            rejected: What the request was signed with.

        Raises:
            AccessError: If they have ended and nothing renews them.
            BotoCoreError, ClientError, OSError, ValueError: Whatever else the lender raises.
        """
        if not isinstance(self.inner, AioRefreshableCredentials):
            return
        async with self._renewing:
            if self._failure is not None and self._failure[0] == rejected:
                raise self._failure[1]  # the others need not ask again
            if rejected in (self._unproven, None) or rejected != self._current:
                return
            _forget(self.inner)
            try:
                await self.get_frozen_credentials()
            except (SendError, *FOREIGN) as error:
                self._failure = rejected, error
                raise
            self._unproven = self._current

    def accepted(self, signed_with: object) -> None:
        """The service took a request that was signed with these."""
        if signed_with == self._unproven:
            self._unproven = None

    @property
    def _current(self) -> object:
        return self.inner._frozen_credentials  # noqa: SLF001 - asking for them would renew them


def _forget(refreshable: Any) -> None:
    """Make botocore take refreshable credentials for expired, and forget lent ones."""
    refreshable._expiry_time = datetime.now(UTC) - timedelta(seconds=1)  # noqa: SLF001
    refresh = refreshable._refresh_using  # noqa: SLF001
    # A role with MFA hides the one that fetches behind one that refuses.
    for holder in (refresh, getattr(getattr(refresh, "__self__", None), "_refresh", None)):
        fetcher = getattr(holder, "__self__", None)
        cache, key = getattr(fetcher, "_cache", None), getattr(fetcher, "_cache_key", None)
        if cache is not None and key in cache:
            del cache[key]
