"""The errors that the sandbox answers with: a code, its HTTP status, a message.

Statuses of Connect's own errors are those of its service model (API version 2017-08-08), those of
access errors are the "Common Errors" of the API reference, and those of Service Quotas are 400,
as of every service that speaks JSON 1.1.

No message repeats a value of the request: clients write messages into their logs.
"""

from __future__ import annotations

__all__ = [
    "HTTP_STATUS",
    "ServiceError",
    "invalid_parameter",
    "invalid_request",
    "not_found",
]

HTTP_STATUS = {
    "AccessDeniedException": 400,
    "ConflictException": 409,
    "IllegalArgumentException": 400,
    "IncompleteSignatureException": 403,
    "InternalServiceException": 500,
    "InvalidParameterException": 400,
    "InvalidRequestException": 400,
    "InvalidSignatureException": 403,
    "MissingAuthenticationTokenException": 403,
    "NoSuchResourceException": 400,
    "RequestEntityTooLarge": 413,
    "ResourceNotFoundException": 404,
    "ThrottlingException": 429,
    "TooManyRequestsException": 429,
    "UnknownOperationException": 404,
    "UnrecognizedClientException": 403,
}


class ServiceError(Exception):
    """The service says no.

    Attributes:
        code: The error code, one of `HTTP_STATUS`.
        message: What is wrong, for people.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message

    @property
    def http_status(self) -> int:
        """The HTTP status that belongs to the code."""
        return HTTP_STATUS[self.code]


def invalid_request(message: str) -> ServiceError:
    """The request as a whole is not valid."""
    return ServiceError("InvalidRequestException", message)


def invalid_parameter(message: str) -> ServiceError:
    """One member of the request is not valid."""
    return ServiceError("InvalidParameterException", message)


def not_found(message: str) -> ServiceError:
    """The contact does not exist."""
    return ServiceError("ResourceNotFoundException", message)
