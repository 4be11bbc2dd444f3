#!/bin/sh
# Install the native servers and the browser that tests start for themselves; nothing is left running.
#   scripts/install-services.sh core   PostgreSQL, what `make test` uses
#   scripts/install-services.sh all    and Redis, RabbitMQ, OpenStack Swift, Chromium, docker-compose, which checks our
#                                      file, and other programs that read the pictures and archives we do
# Debian and Ubuntu only; quick when everything is there; without root or passwordless sudo it says so and exits 1.
set -eu

core="postgresql"
readers="libimage-exiftool-perl imagemagick libtiff-tools libavif-bin webp zip unzip 7zip libarchive-tools exfatprogs exfat-fuse"
more="redis-server rabbitmq-server swift-proxy swift-account swift-container swift-object docker-compose chromium $readers"
case "${1:-core}" in
  core) wanted="$core" ;;
  all) wanted="$core $more" ;;
  *) echo "usage: $0 [core|all], got: $1" >&2; exit 1 ;;
esac

missing=""
for package in $wanted; do
  dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

if ! command -v apt-get >/dev/null; then
  echo "cannot install$missing: this system has no apt-get; install them by hand" >&2
  exit 1
elif [ "$(id -u)" = 0 ]; then
  as_root=""
elif sudo -n true 2>/dev/null; then
  as_root="sudo -n"
else
  echo "cannot install$missing: needs root or passwordless sudo; run: sudo $0 ${1:-core}" >&2
  exit 1
fi

# Packages must not start daemons on the host's ports: 101 from policy-rc.d means "not allowed". Whatever was there
# before comes back afterwards.
policy=/usr/sbin/policy-rc.d
restore() {
  if $as_root test -e "$policy.fpga-saved"; then
    $as_root mv -f "$policy.fpga-saved" "$policy"
  else
    $as_root rm -f "$policy"
  fi
}
if $as_root test -e "$policy" && ! $as_root test -e "$policy.fpga-saved"; then
  $as_root mv "$policy" "$policy.fpga-saved"
fi
trap restore EXIT
trap 'exit 130' INT TERM
printf '#!/bin/sh\nexit 101\n' | $as_root tee "$policy" >/dev/null
$as_root chmod 755 "$policy"

$as_root apt-get update -qq
# shellcheck disable=SC2086  # a list of words is meant
$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
  -o Dpkg::Options::=--force-confold $missing >/dev/null
echo "installed:$missing"
