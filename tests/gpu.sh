#!/usr/bin/env bash
# On a machine with a GPU and no network: the GPU's tests, the benchmarks, then paper rows. `make gpu`.
# Usage: gpu.sh FOLDER MINUTES. Needs a Python with torch, numpy, typer, rich and pytest: $PYTHON, .venv's, or python3.
# A wheel in dist/ that fits is used; else the kernels are built if nanobind and cmake are there, else NumPy works.
set -uo pipefail
cd "$(dirname "$0")/.."
out=$(mkdir -p "$1" && cd "$1" && pwd) minutes=$2 begin=$SECONDS
device=${THINNED_GPU_DEVICE:-cuda}
left() { echo $((minutes * 60 - (SECONDS - begin))); }
for python in "${PYTHON:-}" .venv/bin/python python3; do
  [ -n "$python" ] && "$python" -c "import torch; assert '$device' == 'cpu' or torch.cuda.is_available()" 2>/dev/null && break
  python=
done
[ -n "$python" ] || { echo "gpu: no Python here has a torch that finds a GPU" >&2; exit 1; }
python=$(command -v "$python")
echo "gpu: $("$python" -c "import torch; print(torch.__version__, torch.cuda.get_device_name() if torch.cuda.is_available() else 'no GPU')"), results in $out"

# A copy of its own, which a change of the checkout does not touch; the next call takes it if the source is the same.
package=$out/package
source=$(find src CMakeLists.txt pyproject.toml -type f ! -name '*.pyc' ! -name '*.so' -exec cksum {} + | sort | cksum)
if [ "$(cat "$package/source" 2>/dev/null)" != "$source" ]; then
  rm -rf "$package" && mkdir -p "$package"
  pip=("$python" -m pip --disable-pip-version-check install --quiet --no-index --no-deps --target "$package")
  if ! "${pip[@]}" dist/thinned-*.whl 2>/dev/null && ! "${pip[@]}" --no-build-isolation . 2>"$out/build.log"; then
    echo "gpu: no wheel fits and none can be built ($out/build.log): NumPy takes the place of the C++ kernels"
    cp -r src/thinned "$package/"
  fi
  echo "$source" >"$package/source"
fi
export PYTHONPATH=$package
[ -d "${THINNED_DATA:-}" ] || { [ -d ../shared/data ] && export THINNED_DATA="$PWD/../shared/data"; }

stage() { # stage NAME SECONDS COMMAND...: run it for at most so long, keep what it prints
  local name=$1 limit=$2
  shift 2
  [ "$limit" -gt 5 ] || { echo "gpu: $name left out, the time is over"; return; }
  echo "gpu: $name, at most $limit s"
  timeout -s INT -k 30 "$limit" "$@" >"$out/$name.log" 2>&1
  local code=$?
  tail -n 2 "$out/$name.log"
  [ $code -eq 0 ] || echo "gpu: $name ended with $code, see $out/$name.log"
}

stage tests $(($(left) / 3)) "$python" -m pytest -q -p no:cacheprovider --noconftest --rootdir tests -c /dev/null \
  tests/kernels/test_gpu.py tests/nn/test_on_device.py
stage bench $(($(left) / 3)) "$python" -m thinned bench gpu --markdown
stage rows $(($(left) - 15)) "$python" -m thinned reproduce --queue --order worth --engine torch --device "$device" \
  --budget "${THINNED_GPU_BUDGET:-paper}" --workers 1 --out "$out/runs" --publish "$out/docs/results"
echo "gpu: done after $((SECONDS - begin)) s; the same command goes on with the rows; to publish them:"
echo "     thinned reproduce --take $out/runs"
