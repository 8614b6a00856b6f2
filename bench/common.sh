# Sourced by the benchmarks. A benchmark that measured nothing fails with words: it prints no empty number and no 0.
shopt -s inherit_errexit  # what fails in $(…) fails

die() {
  echo "${0##*/}: $*" >&2
  exit 1
}

need() {  # what the benchmark calls
  local program
  for program in "$@"; do
    command -v "$program" >/dev/null && continue
    case $program in
      */bench/*) die "there is no $program: configure with -DREPLICA_BENCH=ON and build" ;;
      */*) die "there is no $program: build it" ;;
      *) die "$program is not installed: apt-get install $program" ;;
    esac
  done
}

is_number() {
  [[ "$1" =~ ^[0-9]+$ ]]
}

# What the writer printed. It fails by itself when it committed nothing, or when what it committed was not acknowledged.
write() {  # writer's arguments…
  local line
  line=$("$build/bench/writer" "$@") || die "the writer failed: $*"
  measured "$line"
}

measured() {
  [[ "$1" == *'"commits_per_second": '[1-9]* ]] || die "the writer measured nothing: $1"
  echo "$1"
}

resyncs() {  # of a database
  [ -s "$1-replica/events" ] || die "$1-replica/events is empty: nothing was replicated"
  grep -c '"resync"' "$1-replica/events" || [ $? = 1 ]  # 1: none
}
