# Sourced by the scripts beside it: an apt of their own with an empty package database. What the host has installed, and for
# which architecture, changes nothing, and its package database is not touched.

# missing TEXT: ends the script with 3, a tool or the network is missing.
missing() {
  echo "$(basename "$0"): $1" >&2
  exit 3
}

# check_tools COMMAND:PACKAGE…
check_tools() {
  local tool
  for tool in "$@"; do
    command -v "${tool%%:*}" >/dev/null || missing "${tool%%:*} is missing: apt-get install ${tool##*:}"
  done
}

# use_private_apt FOLDER ARCHITECTURE: from now on apt works in FOLDER, which may be kept and used again.
use_private_apt() {
  local folder=$1 architecture=$2
  mkdir -p "$folder"/lists/partial "$folder"/archives/partial
  : >"$folder/status"
  cat >"$folder/apt.conf" <<CONF
APT::Architecture "$architecture";
APT::Architectures { "$architecture"; };
APT::Sandbox::User "root";
APT::Install-Recommends "false";
Acquire::Retries "2";
Dir::State "$folder";
Dir::State::status "$folder/status";
Dir::State::lists "$folder/lists";
Dir::Cache "$folder";
Dir::Cache::archives "$folder/archives";
Dir::Log "$folder";
CONF
  export APT_CONFIG=$folder/apt.conf
}

# update_private_apt LOG
update_private_apt() {
  timeout 120 apt-get -qq update >"$1" 2>&1 || true # one stale index of several is harmless
}
