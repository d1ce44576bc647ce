#!/bin/sh
# compile.sh LOG COMMAND...: runs the compiler; what it says (ptxas: registers, spills) goes into LOG, and out if it fails.
log=$1
shift
"$@" >"$log" 2>&1 || {
    status=$?
    cat "$log" >&2
    rm -f "$log"
    exit $status
}
