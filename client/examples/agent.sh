#!/bin/sh
# An agent in the shell: counts the words of the file that a task names.
#
#   agentcom-client run --capability count -- ./agent.sh
#   agentcom-client submit "Count the words" --capability count --metadata file=README.md --wait
#
# The task is in variables. What is printed is shown as progress; the last JSON object is the result.
set -eu
file=$AGENTCOM_TASK_METADATA_file
[ -r "$file" ] || { echo "$file cannot be read" >&2; exit 65; } # run … --fatal-code 65: no retry
echo "counting $file"
printf '{"words": %d}\n' "$(wc -w < "$file")"
