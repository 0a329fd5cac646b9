#!/usr/bin/env bash
# install.sh: puts mas-edge onto this machine as a systemd service. A second run changes nothing.
#
#   install.sh [--agent] [--orchestrator] [--wheels DIR] [--identity DIR] [--python PROGRAM] [--dry-run]
#   install.sh --uninstall [--dry-run]
#
#   --agent            the agent of a board (if neither is named)
#   --orchestrator     the orchestrator of a fleet
#   --wheels DIR       install from the wheels in DIR, made by scripts/wheels, and from nowhere else
#   --identity DIR     copy what `mas enroll` made to /etc/mas-edge; a configuration that was edited there stays
#   --python PROGRAM   Python 3.10 or newer (default: the first of python3.11, python3)
#   --uninstall        remove everything but data: /etc/mas-edge and /var/lib/mas-edge* stay
#   --dry-run          print what would be done, and do nothing
#
# What goes where: /opt/mas-edge the program, /etc/mas-edge configuration and identity, /var/lib/mas-edge state,
# /etc/systemd/system the units with a user each, /etc/udev/rules.d who may read RAPL. Needs root and systemd.
set -euo pipefail

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
OPT=/opt/mas-edge ETC=/etc/mas-edge UNITS=/etc/systemd/system
RULES=/etc/udev/rules.d/60-mas-edge-rapl.rules
TORCH_CPU=https://download.pytorch.org/whl/cpu

dry='' changed='' wheels='' identity='' python='' uninstall='' roles=()

fail() { echo "install.sh: $1" >&2; exit "${2:-2}"; }
say() { echo "install.sh: $*" >&2; }

# do_ CMD ARG...: does it, or says what it would do.
do_() {
  changed=yes
  if [[ $dry ]]; then echo "would run:$(printf ' %q' "$@")"; else "$@"; fi
}

# state_of ROLE: its directory below /var/lib.
state_of() { if [[ $1 == agent ]]; then echo mas-edge; else echo "mas-edge-$1"; fi; }

# board_in FILE: which board a device tree's "compatible" names; nothing for none of those that need a drop-in.
board_in() {
  local compatible=''
  [[ -r $1 ]] && compatible=$(tr '\0' ' ' <"$1")
  case $compatible in
    *nvidia,tegra*) echo jetson ;;
    *brcm,bcm2712*) echo raspberry-pi ;;
    *) if [[ -e /dev/nvidiactl ]]; then echo nvidia; fi ;;
  esac
}

read_arguments() {
  while (($#)); do
    case $1 in
      --agent | --orchestrator) roles+=("${1#--}") ;;
      --wheels | --identity | --python)
        [[ ${2-} ]] || fail "$1 needs a value: see the head of $0"
        printf -v "${1#--}" %s "$2"
        shift
        ;;
      --dry-run) dry=yes ;;
      --uninstall) uninstall=yes ;;
      --help | -h) sed -n '2,17s/^# \{0,1\}//p' "$0"; exit 0 ;;
      *) fail "unknown argument $1: see $0 --help" ;;
    esac
    shift
  done
  ((${#roles[@]})) || roles=(agent)
  [[ ! $wheels || -d $wheels ]] || fail "--wheels $wheels: no such directory; scripts/wheels DIR makes one"
  [[ ! $identity || -d $identity ]] || fail "--identity $identity: no such directory; mas enroll NAME makes one"
  if [[ -f $identity/orchestrator.key && " ${roles[*]} " != *" orchestrator "* ]]; then
    fail "--identity $identity is the orchestrator's: say --orchestrator"
  fi
}

check_machine() {
  [[ $dry ]] || ((EUID == 0)) || fail "needs root: sudo $0, or look with --dry-run"
  [[ -d /run/systemd/system ]] || fail "systemd does not run here: on other systems run mas-agent under what does"
  case $(uname -m) in
    x86_64 | aarch64) ;;
    *) fail "$(uname -m): there is torch for x86_64 and aarch64; on a Raspberry Pi install the 64-bit system" ;;
  esac
}

choose_python() {
  local candidate where candidates=(python3.11 python3)
  [[ ! $python ]] || candidates=("$python")
  for candidate in "${candidates[@]}"; do
    "$candidate" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || continue
    where=$(readlink -f "$("$candidate" -c 'import sys; print(sys.executable)')")
    case $where in # the units' ProtectHome hides it
      /root/* | /home/*) fail "$where: the service sees no home directories; put this Python below /opt" ;;
    esac
    python=$candidate
    return
  done
  fail "no Python >= 3.10 with its venv module: apt-get install python3-venv, or --python (see docs/install.md)"
}

# put FILE TARGET [MODE [OWNER]]: a copy, unless it is there and equal.
put() {
  local mode=${3:-644} owner=${4:-root}
  if [[ -f $2 && $(stat -c %a:%U "$2") == "$mode:$owner" ]] && cmp -s "$1" "$2"; then return; fi
  do_ install -D -m "$mode" -o "$owner" -g "$owner" "$1" "$2"
}

# put_once FILE TARGET: a copy that is the operator's from then on.
put_once() { [[ -e $2 ]] || put "$1" "$2"; }

put_link() { [[ $(readlink "$2" || true) == "$1" ]] || do_ ln -sfn "$1" "$2"; }

make_user() {
  local state
  state=/var/lib/$(state_of "$1")
  if ! getent passwd "mas-$1" >/dev/null; then
    do_ useradd --system --user-group --no-create-home --home-dir "$state" --shell /usr/sbin/nologin "mas-$1"
    if [[ -d $state ]]; then do_ chown -R "mas-$1:" "$state"; fi # an earlier installation's
  fi
  [[ -d $state ]] || do_ install -d -m 700 -o "mas-$1" -g "mas-$1" "$state"
}

# The wheels of this machine's mas-edge: given, or made of the checkout that this script stands in.
find_wheel() {
  local found
  if [[ ! $wheels ]]; then
    if [[ $dry ]]; then wheel=MAS_EDGE.whl; return; fi
    built=$(mktemp -d)
    trap 'rm -rf "$built"' EXIT
    mkdir "$built/source" # pip builds in the tree, and would leave its traces in yours
    tar -C "$HERE/.." --exclude='./.*' --exclude=./build --exclude=./runs -c . | tar -C "$built/source" -x
    "$python" -m venv "$built/venv"
    # The same sources make the same wheel, so that a second run finds nothing to do.
    SOURCE_DATE_EPOCH=315532800 "$built/venv/bin/pip" wheel --quiet --no-deps --wheel-dir "$built" "$built/source"
    found=("$built"/mas_edge-*.whl)
  else
    found=("$wheels"/mas_edge-*.whl)
  fi
  [[ -f ${found[0]} ]] || fail "$wheels holds no mas_edge-*.whl: scripts/wheels DIR makes a whole set"
  ((${#found[@]} == 1)) || fail "$wheels holds ${#found[@]} versions of mas_edge: leave one"
  wheel=${found[0]}
}

install_program() {
  local extra='[train,infer]' stamp=$OPT/installed want options=(--quiet --disable-pip-version-check)
  [[ " ${roles[*]} " != *" orchestrator "* && ! -e $UNITS/mas-orchestrator.service ]] || extra='[infer,orchestrator]'
  find_wheel
  want="$(sha256sum "$wheel" 2>/dev/null | cut -d' ' -f1)$extra"
  if [[ -f $stamp && $(<"$stamp") == "$want" && -x $OPT/venv/bin/mas-agent ]]; then return; fi
  if [[ $wheels ]]; then
    options+=(--no-index --find-links "$wheels")
  else
    export PIP_EXTRA_INDEX_URL=${PIP_EXTRA_INDEX_URL-$TORCH_CPU} # PyPI's torch comes with GBs of CUDA
    options+=(-c "$HERE/../constraints.txt")
  fi
  say "installing mas-edge$extra into $OPT/venv (minutes on a small board)"
  if [[ -e $stamp ]]; then # another build of the same version is the same to pip
    do_ rm "$stamp"
    do_ "$OPT/venv/bin/pip" uninstall --quiet --yes mas-edge
  fi
  [[ -x $OPT/venv/bin/python ]] || do_ "$python" -m venv "$OPT/venv"
  do_ "$OPT/venv/bin/pip" install "${options[@]}" "$wheel$extra"
  do_ install -m 644 /dev/stdin "$stamp" <<<"$want"
}

install_role() {
  local role=$1 unit=mas-$1.service board
  put "$HERE/$unit" "$UNITS/$unit"
  put_once "$HERE/$role.toml" "$ETC/$role.toml"
  if [[ $role == agent ]]; then
    put_once "$HERE/$unit.d/limits.conf" "$UNITS/$unit.d/limits.conf"
    board=$(board_in /proc/device-tree/compatible)
    if [[ $board ]]; then put "$HERE/$unit.d/$board.conf" "$UNITS/$unit.d/board.conf"; fi
    put "$HERE/${RULES##*/}" "$RULES"
    put_link "$OPT/venv/bin/mas-agent" /usr/local/bin/mas-agent
    put_link "$OPT/venv/bin/mas-profile" /usr/local/bin/mas-profile
  else
    put_link "$OPT/venv/bin/mas" /usr/local/bin/mas
  fi
}

install_identity() {
  local file target
  [[ $identity ]] || return 0
  for file in "$identity"/*; do
    target=$ETC/${file##*/}
    case $file in
      *.toml) if cmp -s "$HERE/${file##*/}" "$target"; then put "$file" "$target"; else put_once "$file" "$target"; fi ;;
      *.key) put "$file" "$target" 600 "$(owner_of "$file")" ;;
      *) put "$file" "$target" ;;
    esac
  done
}

owner_of() { if [[ ${1##*/} == orchestrator.key ]]; then echo mas-orchestrator; else echo mas-agent; fi; }

# Keys that were copied by hand, or that an earlier installation left.
own_keys() {
  local key owner
  for key in "$ETC"/*.key; do
    owner=$(owner_of "$key")
    if [[ ! -f $key ]] || ! getent passwd "$owner" >/dev/null; then continue; fi
    [[ $(stat -c %a:%U "$key") == "600:$owner" ]] || { do_ chown "$owner:" "$key" && do_ chmod 600 "$key"; }
  done
}

install_all() {
  local role
  choose_python
  install_program
  put "$HERE/../docs/install.md" "$OPT/doc/install.md"
  for role in "${roles[@]}"; do make_user "$role"; done
  install_identity # before the example configurations
  for role in "${roles[@]}"; do install_role "$role"; done
  own_keys
  if [[ ! $changed ]]; then say "nothing to do"; return; fi
  do_ systemctl daemon-reload
  if [[ -e /run/udev/control ]]; then # not in containers
    do_ udevadm control --reload
    do_ udevadm trigger --subsystem-match=powercap
  fi
  for role in "${roles[@]}"; do
    do_ systemctl --quiet enable "mas-$role.service"
    do_ systemctl try-restart "mas-$role.service"
    say "next: edit $ETC/$role.toml or bring an identity (--identity), then: systemctl start mas-$role"
  done
}

uninstall_all() {
  local role
  for role in agent orchestrator; do
    if [[ -e $UNITS/mas-$role.service ]]; then do_ systemctl --quiet disable --now "mas-$role.service"; fi
    remove "$UNITS/mas-$role.service" "$UNITS/mas-$role.service.d"
  done
  remove "$OPT" "$RULES" /usr/local/bin/mas-agent /usr/local/bin/mas-profile /usr/local/bin/mas
  for role in agent orchestrator; do
    getent passwd "mas-$role" >/dev/null || continue
    hand_to_root "mas-$role" # the next user with this number must not inherit it
    do_ userdel "mas-$role"
  done
  if [[ ! $changed ]]; then say "nothing to do"; return; fi
  do_ systemctl daemon-reload
  say "left: $ETC (configuration, identity) and /var/lib/mas-edge* (state); remove them with rm -r"
}

remove() {
  local path
  for path; do if [[ -e $path || -L $path ]]; then do_ rm -rf "$path"; fi; done
}

hand_to_root() {
  local place
  for place in "$ETC" /var/lib/mas-edge*; do
    if [[ -d $place ]]; then do_ find "$place" -user "$1" -exec chown -h root:root {} +; fi
  done
}

main() {
  read_arguments "$@"
  check_machine
  if [[ $uninstall ]]; then uninstall_all; else install_all; fi
}

# Sourced, it only defines.
if [[ ${BASH_SOURCE[0]} == "$0" ]]; then main "$@"; fi
