#!/usr/bin/env bash
# The kernels' tests on builds with sanitizers: memory and undefined behaviour, then races. `make sanitize`.
# Usage: sanitize.sh PYTHON, one that has numpy, pytest, hypothesis, nanobind, cmake and ninja. Needs GCC.
set -euo pipefail
cd "$(dirname "$0")/.."
python=$(command -v "$1")
export PATH="$(cd "$(dirname "$python")" && pwd):$PATH" CXX="${CXX:-g++}" OPENBLAS_NUM_THREADS=1
tests=()
for name in kernels block connect survivors groups networks; do
  [ -e "tests/kernels/test_$name.py" ] && tests+=("tests/kernels/test_$name.py")
done

run() { # run NAME SANITIZERS COMMAND...: build the extension, put it into a copy of the package, test that
  local name=$1 sanitizers=$2
  shift 2
  local build=build/sanitize-$name package=build/sanitize-$name/package
  cmake -G Ninja -S . -B "$build" -DTHINNED_SANITIZE="$sanitizers" -DPython_EXECUTABLE="$python" \
    -DCMAKE_BUILD_TYPE=Debug -DCMAKE_CXX_FLAGS_DEBUG="-O1 -g" >"$build.log" 2>&1 &&
    cmake --build "$build" >>"$build.log" 2>&1 || { cat "$build.log"; return 1; }
  rm -rf "$package"
  mkdir -p "$package"
  cp -r src/thinned "$package/"
  rm -f "$package"/thinned/kernels/_cpu*.so
  cp "$build"/_cpu*.so "$package/thinned/kernels/"
  if [ "$name" = thread ]; then # torch's threads were not built for it: those tests are skipped
    echo 'raise ModuleNotFoundError("torch, under ThreadSanitizer")' >"$package/torch.py"
  fi
  echo "$sanitizers: ${tests[*]}"
  # A report goes past Python. What memory a call takes is not what it takes without them.
  env PYTHONPATH="$package" "$@" "$python" -m pytest --capture=sys -k "not memory_is_that" "${tests[@]}"
}

library() { # the run-time library must come first: Python was not linked with it
  "$CXX" -print-file-name="$1"
}

mkdir -p build
run address address,undefined env LD_PRELOAD="$(library libasan.so) $(library libubsan.so)" \
  ASAN_OPTIONS=detect_leaks=0:strict_string_checks=1 UBSAN_OPTIONS=print_stacktrace=1 # Python itself leaks
run thread thread setarch -R env LD_PRELOAD="$(library libtsan.so)" TSAN_OPTIONS=halt_on_error=1
