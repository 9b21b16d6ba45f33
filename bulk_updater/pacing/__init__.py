"""How fast requests start: a token bucket for each operation, and a controller that sets its rate.

    Pacer                 what the run talks to
    Tokens, TokenBucket   enforce a rate: the arithmetic, and the waiting in order of asking
    Regulator             joins a controller to a bucket
    Controller            decides the rate: a pure function of what was answered, and when
      YieldingController    holds a rate that is given, and gives way
      SeekingController     finds the quota, holds it, follows it
      ReservingController   does so beside a live contact centre

Why a bucket of our own. Connect counts requests in a token bucket per operation, account and region
(10 a second, 15 deep, unless raised), and the live contact centre drinks from the same one. The
SDK's retries do not pace: against such a bucket its standard mode lost 251 of 300 rows. Its
adaptive mode does pace, but with one bucket for all operations, and it waits after it has signed.
So here every attempt, first or repeated, pays one token before it is signed, and the SDK's retries
are off. A throttled request goes to the front of the queue and waits for nothing but its token.

Why a controller. What the account's quota is, nobody knows for certain, and others use it, too. A
429 is the only word that the service has for "less"; errors of the service and timeouts say
nothing about the quota and do not move the rate. How much is made of that word stands in `seeking`.

Time is the loop's, monotonic, and everything waits by timers, so that a run can be tested in
virtual time. Not for threads: all of this belongs to one event loop.
"""

from __future__ import annotations

from bulk_updater.pacing.bucket import TokenBucket
from bulk_updater.pacing.choosing import ceiling_per_s, choose_controller, initial_rate_per_s
from bulk_updater.pacing.controller import Controller, Regulator, Start
from bulk_updater.pacing.pacer import Pacer
from bulk_updater.pacing.reserving import ReservingController
from bulk_updater.pacing.seeking import SeekingController
from bulk_updater.pacing.tokens import Tokens
from bulk_updater.pacing.yielding import YieldingController

__all__ = [
    "Controller",
    "Pacer",
    "Regulator",
    "ReservingController",
    "SeekingController",
    "Start",
    "TokenBucket",
    "Tokens",
    "YieldingController",
    "ceiling_per_s",
    "choose_controller",
    "initial_rate_per_s",
]
