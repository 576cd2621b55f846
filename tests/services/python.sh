# Print the first Python of 3.13, 3.12, 3.11 and python3 that is 3.11 or newer and can make a virtual environment.
# INSTALL=1: as root on Debian install what is missing. Otherwise say on standard error what to do, and end with 1.

usable() {
    # Run it: a launcher of pyenv has the name but no interpreter behind it. ensurepip is what Debian packs separately.
    command -v "$1" > /dev/null && "$1" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2> /dev/null
}

first_usable() {
    for name in python3.13 python3.12 python3.11 python3; do
        if usable "$name"; then
            echo "$name"
            return 0
        fi
    done
    return 1
}

first_usable && exit 0

if [ "${INSTALL:-}" = 1 ] && [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null; then
    echo "  installing python3-venv from Debian's packages" >&2
    export DEBIAN_FRONTEND=noninteractive
    apt-get -qq update > /dev/null && apt-get -qq install -y --no-install-recommends python3-venv > /dev/null
    first_usable && exit 0
fi

found=$(command -v python3 > /dev/null && python3 --version 2>&1 || echo "no python3")
{
    echo "logweir needs Python 3.11 or newer with venv; here is: $found."
    echo "On Debian or Ubuntu, as root: apt-get install python3 python3-venv"
} >&2
exit 1
