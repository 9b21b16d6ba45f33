#!/bin/sh
# A night on Fargate: bulk-updater with its state on the task's own disk, kept on a shared one.
#
#   NIGHTS=/nights STATE=/state ecs_night.sh run mapping.yaml export.csv ... --state /state/state.sqlite
#
# SQLite's write-ahead log needs memory that is shared, which a network file system such as EFS does
# not give. So the state file is brought from there at the beginning, and back at the end.
#
# While a task has it, there is none on the shared disk. A task that is killed never brings it back,
# and the next night sends everything: a state of the night before would take contacts for unchanged
# that the killed task wrote to.

set -eu
cd "$NIGHTS"

# One task at a time: a second one ends at once, with the exit code of a command that sent nothing.
exec 9>night.lock
if ! flock --nonblock 9; then
    echo "error: another task has $NIGHTS/night.lock. Nothing was sent." >&2
    exit 2
fi

if [ -e state.sqlite ]; then
    mv state.sqlite state.taken
    cp state.taken "$STATE/state.sqlite"
fi

# The signal that stops a task is for bulk-updater, which settles what is under way.
bulk-updater "$@" 9>&- &
pid=$!
trap 'kill -TERM "$pid" 2>/dev/null || true' TERM INT
while :; do
    code=0
    wait "$pid" || code=$?
    kill -0 "$pid" 2>/dev/null || break  # it has ended; a signal only ends the waiting
done

# A log that is left was never brought into the file: bulk-updater was killed.
if [ -e "$STATE/state.sqlite" ] && [ ! -e "$STATE/state.sqlite-wal" ]; then
    cp "$STATE/state.sqlite" state.new
    sync state.new
    mv state.new state.sqlite
fi
exit "$code"
