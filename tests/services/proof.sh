# `make proof`: what `make test` leaves out or does a little of, with another seed each time. Words are pytest's.

set -euo pipefail

seed=${LOGWEIR_TEST_SEED:-$RANDOM}
.venv/bin/python -m tests.services fetch
.venv/bin/python -m tests.services senders
# Two processes: some of it keeps both cores busy by itself. What does not say otherwise has ten minutes a test.
LOGWEIR_TEST_SEED=$seed LOGWEIR_TEST_PROOF=1 LOGWEIR_TEST_STRICT=1 exec .venv/bin/python -m pytest tests \
    --timeout 600 -n 2 --dist loadscope --no-loadscope-reorder -m "proof or sized" --hypothesis-seed="$seed" "$@"
