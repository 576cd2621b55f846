#!/bin/sh
# certificate.sh FOLDER NAME: make FOLDER/tls.crt and tls.key, self-signed for NAME (a host name or an address),
# unless they are there. NAME, localhost and 127.0.0.1 are in it; it is good for 825 days.
set -eu
folder=$1
name=$2

if [ -s "$folder/tls.crt" ] && [ -s "$folder/tls.key" ]; then
    echo "$folder has a certificate: nothing to do."
    exit 0
fi
if [ -e "$folder/tls.crt" ] || [ -e "$folder/tls.key" ]; then
    echo "$folder has only one of tls.crt and tls.key, or an empty one: put both there, or remove what is there." >&2
    exit 1
fi
if [ ! -w "$folder" ]; then
    echo "$folder has no tls.crt and tls.key, and user $(id -u) may not write there: put both there." >&2
    exit 1
fi

case $name in
    *[!0-9.]*) [ "${name#*:}" = "$name" ] && named=DNS:$name || named=IP:$name ;;
    *) named=IP:$name ;;
esac
umask 077
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 825 \
    -subj "/CN=$name" -addext "subjectAltName=$named,DNS:localhost,IP:127.0.0.1" \
    -keyout "$folder/tls.key.new" -out "$folder/tls.crt.new" 2> "$folder/openssl.log" || {
    cat "$folder/openssl.log" >&2
    exit 1
}
rm "$folder/openssl.log"
chmod 644 "$folder/tls.crt.new"
mv "$folder/tls.key.new" "$folder/tls.key"
mv "$folder/tls.crt.new" "$folder/tls.crt"
echo "Made a self-signed certificate for $name in $folder."
