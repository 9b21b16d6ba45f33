"""What was last applied to each contact, kept from night to night in one SQLite file.

    file       opening it: ours or not, its tables, what its errors mean
    finding    many contacts at once, as numpy arrays
    known      what is known of contacts, and what it is kept apart by
    store      the state itself: mark, confirm, forget, list

A contact is *certain* when what Connect holds of it is known: the digest that was last confirmed.
Between `mark`, which comes before a request is sent, and `confirm`, which comes when its result is
durable and UPDATED, it is *in doubt*. Whatever ends a run in between leaves it so, and a contact in
doubt is sent again, whether or not its row has changed.
"""

from bulk_updater.state.finding import Found
from bulk_updater.state.known import Known, Scope, ScopeSummary
from bulk_updater.state.store import State

__all__ = ["Found", "Known", "Scope", "ScopeSummary", "State"]
