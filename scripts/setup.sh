#!/usr/bin/env bash
# Makes .venv with everything that the demo and the tests need. Safe to repeat: each step is skipped while its inputs stay as they are.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() { echo "setup: $1" >&2; exit 1; }

need_system_packages() {
    local missing=()
    command -v gfortran >/dev/null || missing+=(gfortran)
    command -v g++ >/dev/null || missing+=(g++)
    command -v cmake >/dev/null || missing+=(cmake)
    command -v make >/dev/null || missing+=(make)
    command -v python3 >/dev/null || missing+=(python3)
    python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
    python3 -c 'import os, sysconfig; raise SystemExit(not os.path.exists(sysconfig.get_paths()["include"] + "/Python.h"))' \
        2>/dev/null || missing+=(python3-dev)
    [ ${#missing[@]} -eq 0 ] && return
    local sudo=""
    if [ "$(id -u)" -ne 0 ]; then
        sudo -n true 2>/dev/null || fail "missing system packages: ${missing[*]}; run: sudo apt-get install ${missing[*]}"
        sudo="sudo"
    fi
    command -v apt-get >/dev/null || fail "missing: ${missing[*]}; install them with your system's package manager"
    echo "setup: installing ${missing[*]}"
    $sudo apt-get update -qq && $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${missing[@]}" >/dev/null \
        || fail "apt-get could not install: ${missing[*]}"
}

stamp_of() { cat "$@" | sha256sum | cut -d' ' -f1; }

# done_already NAME HASH: whether the step ran with these inputs.
done_already() { [ "$(cat ".venv/.stamp_$1" 2>/dev/null)" = "$2" ]; }
remember() { echo "$2" > ".venv/.stamp_$1"; }

need_system_packages
# A variable that a Python of another environment leaves behind keeps this one from finding its own ROS libraries.
unset _ROS_WHEELS_BOOTSTRAP_COMPLETE

python3 -c 'import sys; raise SystemExit(not (3, 10) <= sys.version_info < (3, 13))' \
    || fail "Python $(python3 -V 2>&1 | cut -d' ' -f2) is not supported; 3.10, 3.11 and 3.12 are"

requirements=requirements/python$(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])').lock
options=()
ros=wheels
if python3 -c 'import rclpy' 2>/dev/null; then
    # An installed, sourced ROS 2 serves; its wheels must not shadow it.
    echo "setup: using the installed ROS 2 ${ROS_DISTRO:-}"
    options+=(--system-site-packages)
    ros=${ROS_DISTRO:-installed}
fi
made_for=$(cat .venv/.stamp_ros 2>/dev/null || echo "$ros")
[ "$made_for" = "$ros" ] || fail ".venv was made for ROS 2 '$made_for', and this shell offers '$ros': source that one, or run 'make clean'"
[ -x .venv/bin/pip ] || python3 -m venv "${options[@]}" .venv || fail "python3 -m venv failed"
remember ros "$ros"

hash=$(stamp_of "$requirements")
if ! done_already requirements "$hash"; then
    echo "setup: installing Python packages (minutes)"
    list=$(mktemp)
    if [ ${#options[@]} -gt 0 ]; then
        grep -viE '^ros[-_]' "$requirements" > "$list"
    else
        cp "$requirements" "$list"
    fi
    .venv/bin/pip install --quiet --disable-pip-version-check --progress-bar off -r "$list" \
        || fail "pip could not install $requirements; see the lines above"
    rm -f "$list"
    remember requirements "$hash"
fi

hash=$(stamp_of msg/* srv/* action/* package.xml CMakeLists.txt scripts/* \
    sphere_reg_ros/__init__.py sphere_reg_ros/_version.py "$requirements")
if ! done_already messages "$hash"; then
    echo "setup: building the messages"
    .venv/bin/python scripts/build_messages.py || fail "the messages could not be built"
    remember messages "$hash"
fi

# ros2 launch reads these from the prefix; it follows links to files, not to folders.
for folder in launch config; do
    share=.venv/share/sphere_reg_ros/$folder
    rm -rf "$share" && mkdir -p "$share" && ln -s "$PWD/$folder"/* "$share/"
done

hash=$(stamp_of setup.cfg setup.py)
if ! done_already package "$hash"; then
    .venv/bin/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation \
        --config-settings editable_mode=compat --editable . \
        || fail "the package could not be installed into .venv"
    remember package "$hash"
fi
