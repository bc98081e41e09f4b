#!/usr/bin/env bash
# Every measurement that needs a GPU, as parts of at most PART_SECONDS, the most valuable first.
#
#   bench/gpu_day.sh OUT [PART...]              what is not done yet, until CALL_SECONDS have passed
#   bench/gpu_day.sh --rehearse OUT [PART...]   the same on a CPU, with toy shapes
#
# It ends with 0 where all is done, 75 where another call goes on, 1 where a part failed (the others
# are done first). OUT gets rows.csv, day.log, done.txt and the studies (a tar in parts); it may be
# emptied between calls. What must last stands in NOTETUNE_DAY (~/notetune-day). See bench/README.md.
set -uo pipefail

REHEARSES=
[[ ${1:-} == --rehearse ]] && REHEARSES=yes && shift
[[ $# -ge 1 ]] || { echo "usage: bench/gpu_day.sh [--rehearse] OUT [PART...]" >&2; exit 2; }
mkdir -p "$1" && OUT=$(realpath "$1") && shift || exit 2
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 2
DAY=${NOTETUNE_DAY:-$HOME/notetune-day}
PART_SECONDS=${PART_SECONDS:-480}
CALL_SECONDS=${CALL_SECONDS:-540}
PIECES=${PIECES:-build/gpu-day}
[[ -x .venv/bin/python ]] && PYTHON=${PYTHON:-.venv/bin/python}
PYTHON=${PYTHON:-python3}
DATA=${NOTETUNE_DATA:-../shared/data}
[[ -d $DATA ]] || DATA=$DAY/data
[[ -d backbones/smollm2-135m ]] && SMOLLM2=${SMOLLM2:-backbones/smollm2-135m}
SMOLLM2=${SMOLLM2:-$DAY/backbones/smollm2-135m}
export PYTHONPATH="$DAY/site:$PWD/src${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1 OUT

# What each part runs; `--output OUT/rows.csv` goes with the benchmarks.
SHAPE=(--device cuda --shape llama-7b --notes 320 --tokens-per-row 5120)
STEP2=(--device cuda --shape llama-7b --no-search)
CEILING=(--device cuda)
TESTS=(-m gpu -W ignore)
COMPILED=(--methods lora --compile)
OTHERS=(--methods prefix prompt p-tuning adaptation-prompt)
STUDIES=(mtsamples eicu codiesp)
# LoRA in all layers, at the rate that the recipes give SmolLM2.
STUDY=(--data "$DATA" device=cuda dtype=bfloat16 seeds=5 'encoders.models={}' evaluate.primary=null
    "backbones={smollm2: {backbone: '$SMOLLM2'}}"
    'backbones.smollm2.pretrain={epochs: 1, tokens_per_row: 2048, optim: {peak_lr: 1e-3, targets_per_step: 4096}}'
    'backbones.smollm2.downstream.features.layers=every 6'
    'backbones.smollm2.downstream.optim={peak_lr: 1e-3, targets_per_step: 16}'
    'backbones.smollm2.downstream.variants=[head-only,task-lora,domain-frozen,domain-frozen+task-lora,domain-trainable+task-lora]')
if [[ $REHEARSES ]]; then
    SHAPE=(--quick) STEP2=(--quick --no-search) CEILING=(--repeats 1) TESTS=(-m gpu --collect-only)
    COMPILED=(--methods lora --compile) OTHERS=(--methods prefix)
    STUDIES=(rehearsal) STUDY=("data=$DAY/data" device=cpu)
fi
RECIPES=recipes
[[ $REHEARSES ]] && RECIPES=bench
ALL=(tests ceiling step1 step2 "${STUDIES[@]/#/study-}" step1-compiled step1-others)

say() { printf '%s %s\n' "$(date +%T)" "$*" | tee -a "$OUT/day.log"; }

command_of() {  # sets COMMAND, what a part runs
    local rows=(--output "$OUT/rows.csv")
    case $1 in
        tests) COMMAND=(-m pytest -q -p no:cacheprovider "${TESTS[@]}"
            tests/model/test_contract_gpu.py tests/model/test_model_attention.py) ;;
        ceiling) COMMAND=(bench/ceiling.py "${CEILING[@]}" "${rows[@]}") ;;
        step1) COMMAND=(bench/step1.py "${SHAPE[@]}" --methods lora "${rows[@]}") ;;
        step1-compiled) COMMAND=(bench/step1.py "${SHAPE[@]}" "${COMPILED[@]}" "${rows[@]}") ;;
        step1-others) COMMAND=(bench/step1.py "${SHAPE[@]}" "${OTHERS[@]}" "${rows[@]}") ;;
        step2) COMMAND=(bench/step2.py "${STEP2[@]}" "${rows[@]}") ;;
        study-*) COMMAND=(-m notetune study run "$RECIPES/${1#study-}.yaml" "${STUDY[@]}"
            "runs=$DAY/runs") ;;
        *) echo "unknown part $1; there are: ${ALL[*]}" >&2; return 2 ;;
    esac
}

# The same command over the same files: a part is done once for each such stamp.
stamp() {
    local word
    { printf '%s\n' "${COMMAND[@]//$OUT/OUT}"
      for word in "${COMMAND[@]}"; do [[ -f $word && $word != *.csv ]] && cat "$word"; done
    } | sha256sum | cut -d' ' -f1
}

is_done() { [[ $(cat "$DAY/done/$1" 2>/dev/null) == "$(stamp)" ]]; }

# The pieces that travelled here: the first is a tar of its own, the others are one tar cut up.
unpack_pieces() {
    local first whole
    mkdir -p "$DAY"/{pieces,done,runs,wheels}
    if [[ -z $(ls "$DAY/runs") && -f $PIECES/studies.tar.00 ]]; then
        cat "$PIECES"/studies.tar.* | tar -xz -C "$DAY"
    fi
    cp -n "$PIECES"/piece-*-of-* "$DAY/pieces/" 2>/dev/null
    first=$(find "$DAY/pieces" -name 'piece-1-of-*' | head -1)
    if [[ $first && ! -e $DAY/first-unpacked ]]; then
        tar -xf "$first" -C "$DAY" && install_wheels && touch "$DAY/first-unpacked"
    fi
    [[ $first && ! -e $DAY/all-unpacked ]] || return 0
    whole=$(find "$DAY/pieces" -name 'piece-*' ! -name 'piece-1-*' | sort -V)
    if [[ $(wc -w <<<"$whole") -eq $((${first##*-of-} - 1)) ]]; then
        # shellcheck disable=SC2086
        if [[ $(cat $whole | sha256sum | cut -d' ' -f1) != $(cat "$DAY/rest.sha256") ]]; then
            say "the pieces do not join to what was cut; make and carry them again"
            rm -f "$DAY/pieces"/piece-* "$DAY/first-unpacked"
            return 1
        fi
        # shellcheck disable=SC2086
        cat $whole | tar -x -C "$DAY" && install_wheels && touch "$DAY/all-unpacked"
        rm -f $whole
    fi
}

install_wheels() {
    "$PYTHON" -m pip install -q --no-index --no-deps --no-compile --upgrade --target "$DAY/site" \
        "$DAY"/wheels/*.whl
}

# Exit 75 while the weights are not there.
needs_weights() {
    [[ $REHEARSES || -d $SMOLLM2 ]] && return 0
    if [[ -f $DAY/smollm2.gguf ]]; then
        mkdir -p "$(dirname "$SMOLLM2")"
        "$PYTHON" -m notetune convert "$DAY/smollm2.gguf" "$SMOLLM2" >>"$OUT/day.log" 2>&1
        return
    fi
    say "no weights yet: $(find "$DAY/pieces" -name 'piece-*' | wc -l) pieces are here"
    return 75
}

# Notes by chance, in which a word tells the outcome.
rehearsal_notes() {
    mkdir -p "$DAY/data" && [[ -e $DAY/data/notes.csv ]] || awk 'BEGIN {
        srand(1); print "note,patient,text,died"
        for (n = 0; n < 60; n++) { dies = rand() < .4
            printf "n%d,p%d,visit %d was %s,%d\n", n, n, n, dies ? "shock" : "well", dies } }' \
        >"$DAY/data/notes.csv"
}

# What OUT must hold at the end of a call, and DAY for the next. Of a study what is made again in
# seconds stays behind; on a new machine, the parts of the tar go with the pieces.
UNKEPT=(--exclude='prepared*' --exclude='features*' --exclude='checkpoint*')
keep() {
    for file in rows.csv day.log; do [[ -e $OUT/$file ]] && cp "$OUT/$file" "$DAY/$file"; done
    (cd "$DAY/done" && grep -H . -- * 2>/dev/null) >"$OUT/done.txt"
    rm -f "$OUT"/studies.tar.*
    [[ -z $(ls "$DAY/runs") ]] || tar -cz -C "$DAY" "${UNKEPT[@]}" runs |
        split -d -b 15M - "$OUT/studies.tar." || say "the studies could not be kept"
}

CHILD=
stop() {
    [[ $CHILD ]] && kill -TERM "$CHILD" 2>/dev/null && wait "$CHILD"
    keep
    say "stopped"
    exit 143
}

# Seconds below which a part would be begun in vain; only a study goes on from where it was.
least_of() {
    case $REHEARSES$1 in
        study-* | yes*) echo 20 ;;
        tests | ceiling) echo 90 ;;
        *) echo 240 ;;
    esac
}

# Returns 0 for done, 75 for stopped by its time, anything else for failed.
run_part() {
    local seconds=$2 status started=$SECONDS
    if [[ $1 == study-* ]]; then
        [[ $REHEARSES ]] && rehearsal_notes
        needs_weights || return
    fi
    say "$1: begins, at most $seconds s"
    timeout --signal=TERM --kill-after=30 "$seconds" "$PYTHON" "${COMMAND[@]}" \
        >>"$OUT/day.log" 2>&1 &
    CHILD=$!
    wait "$CHILD"
    status=$?
    CHILD=
    case $status in
        0) stamp >"$DAY/done/$1" ;;
        124 | 137) [[ $1 != study-* && $seconds -ge $PART_SECONDS ]] || status=75 ;;
    esac
    say "$1: $(case $status in 0) echo done ;; 75) echo "goes on at the next call" ;;
        *) echo "failed ($status)"; ;; esac) after $((SECONDS - started)) s"
    keep
    return $status
}

unpack_pieces || exit 1
for file in rows.csv day.log; do  # OUT may be new, DAY is not
    [[ -e $OUT/$file || ! -e $DAY/$file ]] || cp "$DAY/$file" "$OUT/$file"
done
trap stop TERM INT
[[ $# -gt 0 ]] && PARTS=("$@") || PARTS=("${ALL[@]}")
for part in "${PARTS[@]}"; do command_of "$part" || exit 2; done
RESULT=0
for part in "${PARTS[@]}"; do
    command_of "$part"
    if is_done "$part"; then say "$part: done before" && continue; fi
    left=$((CALL_SECONDS - SECONDS))
    if ((left < PART_SECONDS && left < $(least_of "$part"))); then
        RESULT=$((RESULT == 1 ? 1 : 75)) && continue
    fi
    run_part "$part" $((left < PART_SECONDS ? left : PART_SECONDS))
    case $? in
        0) ;;
        75) RESULT=$((RESULT == 1 ? 1 : 75)) ;;
        *) RESULT=1 && tail -n 15 "$OUT/day.log" >&2 ;;
    esac
done
keep
exit $RESULT
