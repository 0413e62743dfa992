#!/usr/bin/env bash
# Proves the project: `make test` calls this, after it has installed what is needed. `tests/run.sh lint`: the quick part.
# Every step runs, also after one has failed; the exit status is 0 only if all have passed. No system tools are needed.
set -uo pipefail
part=${1:-}
case $part in "" | lint) ;; *) echo "usage: tests/run.sh [lint]" && exit 2 ;; esac
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
for folder in "$PWD/.venv/bin" "$PWD/.venv/Scripts"; do # without .venv: the environment that is active, conda's for instance
  if [ -d "$folder" ]; then PATH="$folder:$PATH"; fi
done
# A reader's own settings must not decide whether the tests pass. NSTLIB_CACHE may be set or not.
unset NST_PRESET NST_OUT NST_RUN MPLBACKEND
export GOMP_SPINCOUNT=10000 # as the command nst does: threads that wait long must not take other programs' cores
export PYDEVD_DISABLE_FILE_VALIDATION=1 # kernels warn about it on stderr otherwise

log=$(mktemp) || exit 1
trap 'rm -f "$log"' EXIT
trap 'echo "interrupted"; exit 130' INT TERM
began=$SECONDS failed="" summary="" closing=""

step() { # step NAME COMMAND...: run it, show what it says, remember how it ended and how long it took
  local name=$1 from=$SECONDS result=ok last
  shift
  printf '\n== %s\n' "$name"
  "$@" </dev/null 2>&1 | tee "$log" || { result=FAILED; failed="$failed, $name"; }
  last=$(sed -n 's/^==* \([0-9].* in [0-9.]*s[^=]*\)=*$/\1/p' "$log" | sed 's/ *$//' | tail -n 1) # how pytest closes
  if [ -n "$last" ]; then closing="$closing; $name: $last"; fi
  printf '== %s: %s, %d s\n' "$name" "$result" $((SECONDS - from))
  summary="$summary$(printf '%-7s %-14s %4d s  %s' "$result" "$name" $((SECONDS - from)) "$last")"$'\n'
}

step "ruff check" ruff check .
step "ruff format" ruff format --check .
step "mypy" mypy
step "import floors" lint-imports
step "prose" python tools/prose.py
if [ -z "$part" ]; then
  printf '\nThe tests need VGG-16, AlexNet (64 MB), VGG-19 (88 MB), the face parser (50 MB) and U²-Net (165 MB),\nthe AdaIN decoder, Inception (81 MB), ArcFace and a face detector (20 MB) and a face generator (40 MB): fetched once, then cached.\n'
  step "fetch networks" nst assets fetch vgg16 alexnet vgg19 bisenet_faceparse19 u2net \
    adain_decoder fid_inception arcface_mobilefacenet scrfd_500m \
    mobilestylegan_mapping mobilestylegan_synthesis
  step "unit tests" python -m pytest tests
  # Cells marked NBVAL_CHECK_OUTPUT must give what is stored; all cells must run.
  step "notebooks" env NST_PRESET=smoke python -m pytest --nbval-lax --nbval-current-env \
    --nbval-cell-timeout=180 notebooks/0*.ipynb
fi

printf '\n%s' "$summary"
python -c 'from nstlib.course.manifest import processor; print(f"on: {processor()}")' # what the times are worth
if [ -n "$failed" ]; then
  echo "FAILED after $((SECONDS - began)) s: ${failed#, }$closing"
  exit 1
fi
echo "all passed in $((SECONDS - began)) s$closing"
