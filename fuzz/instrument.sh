#!/bin/sh
# Stands between cargo and rustc (RUSTC_WRAPPER): the crates whose ways a fuzzer should learn are compiled with
# LLVM's coverage counters and `--cfg fuzzing`, and all others as ever. So ciphers keep their speed, build scripts
# link, and a build takes half the time. Everything is known to a stable compiler.
name=
previous=
for word; do
  [ "$previous" = --crate-name ] && name=$word
  previous=$word
done
case $name in
  candor_* | minicbor | base64 | signed_note | tlog_tiles) ;;
  *) exec "$@" ;;
esac
exec "$@" --cfg fuzzing \
  -Cpasses=sancov-module \
  -Cllvm-args=-sanitizer-coverage-level=4 \
  -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
  -Cllvm-args=-sanitizer-coverage-pc-table \
  -Cllvm-args=-sanitizer-coverage-trace-compares
