"""The flags that commands share, and the configuration that they make.

The connection's flags are the AWS CLI's own; what they leave open, the AWS environment variables
and the profile say, in the AWS CLI's order of precedence. Every flag can also be given by an
environment variable: BULK_UPDATER_<COMMAND>_<FLAG>.
"""

from bulk_updater.cli.options.configuring import make_run_config
from bulk_updater.cli.options.connecting import connection_options
from bulk_updater.cli.options.guarding import guard_options, sending_guard_options
from bulk_updater.cli.options.pace import pacing_options, schedule_options, sending_options
from bulk_updater.cli.options.rows import changes_options, job_arguments, succession_options
from bulk_updater.cli.options.telling import night_options, output_options

__all__ = [
    "changes_options",
    "connection_options",
    "guard_options",
    "job_arguments",
    "make_run_config",
    "night_options",
    "output_options",
    "pacing_options",
    "schedule_options",
    "sending_guard_options",
    "sending_options",
    "succession_options",
]
