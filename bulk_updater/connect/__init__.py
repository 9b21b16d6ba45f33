"""The only door to AWS: one client for a run, one receipt or one `SendError` for an attempt.

    open_connect   settings -> an open `Connect`; what cannot work is a `ConfigError` here,
                   before a row is read
    Connect.send   one request, one attempt, no retry of the SDK's
    Connect.read_attributes
                   what is stored for a contact; the same rules
    translate      any foreign exception -> exactly one `SendError`
    read_quotas    what Service Quotas says of the account -> `AppliedQuotas`; it never fails
    advise         why a run stopped, in one sentence
    CredentialsEnd when the credentials end for good, as far as anybody knows

An answer counts as success only if its status is 2xx, its body is blank or a JSON object, and it
carries a request id: a captive portal's page is a 200 too, and botocore parses it to `{}`.

Three things stand between botocore and us, and each closes a hole of its own:

`StraightSession`
    aiohttp follows redirects, which would send a contact's data to whoever asks for it. Ours does
    not.
`judge_answer`
    runs before botocore parses an answer. It refuses what is no answer of Connect's, and leaves
    nothing of an error's body but its code, so that odd bodies cannot trip the parser and so that
    the service's text, which may quote the request, goes no further.
`translate`
    turns what is left into `Throttled`, `TransientError`, `RequestRejected` or `AccessError`, by
    code and status, never by `client.exceptions.X`: Connect throttles with codes that its own
    model does not know. The message is always one of ours.
"""

from __future__ import annotations

from bulk_updater.connect.advice import Scene, advise
from bulk_updater.connect.client import Connect, Receipt, open_connect
from bulk_updater.connect.credentials import CredentialsEnd
from bulk_updater.connect.judging import translate
from bulk_updater.connect.meanings import CODES, EXCEPTIONS, FOREIGN, STATUSES, Meaning
from bulk_updater.connect.opening import check_endpoint_url
from bulk_updater.connect.quotas import AppliedQuotas, read_credentials_end, read_quotas
from bulk_updater.connect.reading import READ_ATTRIBUTES

__all__ = [
    "CODES",
    "EXCEPTIONS",
    "FOREIGN",
    "READ_ATTRIBUTES",
    "STATUSES",
    "AppliedQuotas",
    "Connect",
    "CredentialsEnd",
    "Meaning",
    "Receipt",
    "Scene",
    "advise",
    "check_endpoint_url",
    "open_connect",
    "read_credentials_end",
    "read_quotas",
    "translate",
]
