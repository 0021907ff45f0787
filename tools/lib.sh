# shellcheck shell=bash
# Shared by tools/quickstart and tools/test: messages, packages, build. Sourced, never run.
# The caller has `set -euo pipefail` on.

tool_name="$(basename "$0")"

# Debian's own tools first: a pyenv, conda or npm in front of PATH would hand us a python3 or a meson that does not
# see Debian's packages.
export PATH="/usr/sbin:/usr/bin:/sbin:/bin:$PATH"

# HOME is unset in a bare chroot or in some service managers.
HOME="${HOME:-$(getent passwd "$(id -u)" | cut -d: -f6)}"
export HOME

root_dir="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)"

# docs/dependencies.md says what each of these is for.
# shellcheck disable=SC2034 # used by the scripts that source this file
build_packages=(gcc libc6-dev meson ninja-build pkgconf libfuse3-dev libsqlite3-dev libxxhash-dev libssl-dev libseccomp-dev
	uthash-dev scdoc fuse3 python3)
# shellcheck disable=SC2034
test_packages=(libcmocka-dev python3-pytest python3-pytest-timeout python3-hypothesis attr sqlite3 procps
	acl binutils bsdutils busybox bzip2 clang cpio dbench e2fsprogs fio git inotify-tools libcap2-bin libclang-rt-dev logrotate
	make mount mypy nano parallel patch perl python3-numpy python3-pip python3-venv rsync strace stress-ng unzip util-linux
	vim-tiny xz-utils zip zstd)
# shellcheck disable=SC2034
language_packages=(default-jdk-headless golang-go lua5.4 nodejs r-base-core rustc tcl)

say() {
	printf '%s: %s\n' "$tool_name" "$*"
}

die() {
	printf '%s: %s\n' "$tool_name" "$*" >&2
	exit 1
}

# run_quietly LABEL COMMAND...: runs it with its output in a log file. On failure says in one line what went wrong and
# keeps the log (in CI, where nobody can look at files afterwards, prints it).
run_quietly() {
	local label="$1" log reason
	shift
	log="$(mktemp "${TMPDIR:-/tmp}/promisefs-XXXXXX.log")"
	if "$@" >"$log" 2>&1 </dev/null; then
		rm -f "$log"
		return 0
	fi
	[[ "${CI:-}" != true ]] || cat "$log" >&2
	reason="$(grep -m 1 -E '^E: |[Ee]rror: |ERROR: ' "$log" || tail -n 1 "$log")"
	die "$label failed: $reason (all of its output: $log)"
}

missing_packages() {
	local package
	for package in "$@"; do
		[[ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" == installed ]] || printf '%s\n' "$package"
	done
}

# install_packages PACKAGE...: installs what is missing; touches neither network nor package lists when nothing is.
# Sets `installed_something` to 1 if it changed the system.
installed_something=0
install_packages() {
	local -a missing as_root=()
	if ! command -v dpkg-query >/dev/null; then
		say "no dpkg here: taking it that these packages, or their like, are installed: $*"
		return 0
	fi
	mapfile -t missing < <(missing_packages "$@")
	((${#missing[@]})) || return 0
	if ((EUID != 0)); then
		command -v sudo >/dev/null ||
			die "not root and no sudo: have an administrator run: apt-get install ${missing[*]}"
		as_root=(sudo)
	fi
	say "installing ${missing[*]}"
	as_root+=(env DEBIAN_FRONTEND=noninteractive)
	run_quietly "apt-get update" "${as_root[@]}" apt-get -o DPkg::Lock::Timeout=300 update
	run_quietly "apt-get install" "${as_root[@]}" apt-get -o DPkg::Lock::Timeout=300 install -y \
		--no-install-recommends "${missing[@]}"
	# shellcheck disable=SC2034
	installed_something=1
}

# fusermount3 does not unmount for ordinary users without /etc/mtab, which every system that has booted has, but a bare
# chroot has not.
ensure_mtab() {
	local -a as_root=()
	[[ ! -e /etc/mtab ]] || return 0
	((EUID == 0)) || as_root=(sudo)
	say "making /etc/mtab, a link to /proc/self/mounts, for fusermount3"
	"${as_root[@]}" ln -sf ../proc/self/mounts /etc/mtab || say "no /etc/mtab: only root will be able to unmount"
}

# build_tree DIR [MESON OPTION...]: configures (once, or anew when the options or the place changed) and compiles.
build_tree() {
	local dir="$1" wanted marker
	shift
	wanted="$root_dir $(id -u) $*"
	marker="$dir/.configured-for"
	if [[ -d "$dir" && ! -w "$dir" ]]; then
		die "$dir belongs to somebody else (built as another user?); remove it and run this again"
	fi
	if [[ ! -f "$dir/build.ninja" ]]; then
		say "configuring ${dir#"$root_dir"/}"
		run_quietly "meson setup" meson setup "$dir" "$root_dir" "$@"
	elif [[ "$(cat "$marker" 2>/dev/null || true)" != "$wanted" ]]; then
		say "configuring ${dir#"$root_dir"/} anew"
		run_quietly "meson setup" meson setup --wipe "$dir" "$root_dir" "$@"
	elif ((installed_something)); then
		run_quietly "meson setup" meson setup --reconfigure "$dir" "$root_dir" "$@"
	fi
	printf '%s' "$wanted" >"$marker"
	say "building ${dir#"$root_dir"/}"
	run_quietly "ninja" ninja -C "$dir"
}

# check_fuse: can this process mount a FUSE file system at all? One clear line if not.
check_fuse() {
	local cap_sys_admin=21 effective
	[[ -r /proc/self/status ]] || die "/proc is not mounted here; mount it (mount -t proc proc /proc) and run this again"
	if [[ ! -c /dev/fuse ]] && ((EUID == 0)) && command -v modprobe >/dev/null; then
		modprobe fuse 2>/dev/null || true
	fi
	[[ -c /dev/fuse ]] ||
		die "/dev/fuse is missing; load the fuse module, or give it to the container (--device /dev/fuse --cap-add SYS_ADMIN)"
	# The test flags -r and -w ask the mode bits; only open(2) also hears a container's device rules.
	(: <>/dev/fuse) 2>/dev/null ||
		die "/dev/fuse cannot be opened by this user; as root: chmod 666 /dev/fuse (as distributions ship it)"
	if ((EUID == 0)); then
		effective="$(sed -n 's/^CapEff:[[:space:]]*//p' /proc/self/status)"
		((16#$effective >> cap_sys_admin & 1)) ||
			die "root here may not mount (CAP_SYS_ADMIN is missing); start the container with --cap-add SYS_ADMIN"
	fi
}
