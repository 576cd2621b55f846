# `make test`: the stages one after another, each with its wall time; ends at the first that fails and says which.

set -uo pipefail

bin=.venv/bin
times=()

finish() {
    printf '\nWall time of the stages:\n'
    printf '  %s\n' "${times[@]}"
}

stage() {
    local name=$1 began=$SECONDS
    shift
    printf '\n== %s\n' "$name"
    if "$@"; then
        times+=("$(printf '%5d s  %s' $((SECONDS - began)) "$name")")
        return
    fi
    times+=("$(printf '%5d s  %s  FAILED' $((SECONDS - began)) "$name")")
    finish
    printf '\nmake test: the stage "%s" failed.\n' "$name"
    exit 1
}

environment() {
    INSTALL=1 make .venv/.dev
}

tests() {
    # Strict: a test that a missing server skips is a failure here.
    # Three processes for two cores: much of a test's time is waiting.
    LOGWEIR_TEST_STRICT=1 "$bin/python" -m pytest tests \
        -n 3 --dist loadscope --no-loadscope-reorder -m "not proof"
}

stage "environment" environment
stage "servers" "$bin/python" -m tests.services fetch
# Beside the other stages, since one is built; the tests that need them wait for that, and say what went wrong with it.
nice -n 19 "$bin/python" -m tests.services senders > /dev/null 2>&1 &
stage "ruff check" "$bin/ruff" check .
stage "ruff format" "$bin/ruff" format --check .
stage "mypy" "$bin/mypy"
stage "lint-imports" "$bin/lint-imports"
stage "generated files" "$bin/python" deploy/generate.py --check
stage "pytest" tests
finish
