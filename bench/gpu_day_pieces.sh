#!/usr/bin/env bash
# What gpu_day.sh needs on a GPU machine that reaches no package index, in pieces to carry there:
#
#   bench/gpu_day_pieces.sh PIP GGUF DATA OUT
#
# OUT/piece-1-of-N is a tar of the small wheels and the open data of the studies; the others are one
# tar, cut up, of the weights (GGUF) and of polars. The wheels are for Python 3.12 on x86_64 and have
# the versions and hashes of requirements.lock.
set -euo pipefail
[[ $# -eq 4 ]] || { echo "usage: bench/gpu_day_pieces.sh PIP GGUF DATA OUT" >&2; exit 2; }
pip=$(realpath -s "$1") gguf=$(realpath "$2") data=$(realpath "$3") out=$(realpath -m "$4")
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# The checkout itself (6 MiB) travels along, in at most 64 MiB.
PIECE_MIB=${PIECE_MIB:-54}
WHEELS='pydantic|pydantic-core|annotated-types|typing-inspection|datasketch|gguf|polars|polars-runtime-32'
STUDIED=(mtsamples eicu_demo codiesp)

work=$out/work
rm -rf "$out" && mkdir -p "$work"/{all,first/wheels,first/data,rest/wheels}
awk -v names="^($WHEELS)==" '/^[^ ]/ {wanted = $0 ~ names} wanted' requirements.lock >"$work/lock"
"$pip" download -q --no-deps --only-binary :all: --require-hashes -r "$work/lock" -d "$work/all" \
    --python-version 3.12 --implementation cp --platform manylinux_2_28_x86_64 \
    --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64
mv "$work"/all/polars* "$work/rest/wheels/"
mv "$work"/all/*.whl "$work/first/wheels/"
cp "$gguf" "$work/rest/smollm2.gguf"
for folder in "${STUDIED[@]}"; do cp -rp "$data/$folder" "$work/first/data/"; done
tar -cf "$work/rest.tar" -C "$work/rest" .
split -d -a 1 -b "${PIECE_MIB}M" "$work/rest.tar" "$work/part-"
parts=("$work"/part-*)
count=$((${#parts[@]} + 1))
sha256sum <"$work/rest.tar" | cut -d' ' -f1 >"$work/first/rest.sha256"
tar -cf "$out/piece-1-of-$count" -C "$work/first" .
for number in "${!parts[@]}"; do mv "${parts[$number]}" "$out/piece-$((number + 2))-of-$count"; done
rm -rf "$work"
du -m "$out"/piece-*
