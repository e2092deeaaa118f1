#!/bin/sh
# Generates code from snakepit.proto:
#
#     proto/generate.sh python PYTHON VENV    python/snakepit_bridge/grpc/snakepit_pb2.py and snakepit_pb2_grpc.py
#     proto/generate.sh go PYTHON VENV        adapters/grpc/snakepitpb/*.go
#     proto/generate.sh check                 verifies that the checked-in code is the last generated
#
# PYTHON is an interpreter. VENV is a directory that may be made and filled with the generators. The Python code has to
# work with every protobuf from 3.20 on, so its generator stays at 1.59.5, the newest whose code does. It has wheels for
# CPython 3.8 to 3.12. On other Pythons nothing is generated, but the checksums are verified.
set -eu

tools=1.59.5
protoc_gen_go=v1.36.12
protoc_gen_go_grpc=v1.6.2

root=$(CDPATH= cd -- "$(dirname -- "$0")/.." && pwd)
cd "$root"
source=proto/snakepit_bridge/grpc/snakepit.proto
in_python="python/snakepit_bridge/grpc/snakepit_pb2.py python/snakepit_bridge/grpc/snakepit_pb2_grpc.py"
in_go="adapters/grpc/snakepitpb/snakepit.pb.go adapters/grpc/snakepitpb/snakepit_grpc.pb.go"
sums=proto/checksums.txt

sha256() {
    if command -v sha256sum >/dev/null; then sha256sum "$@"; else shasum -a 256 "$@"; fi
}

check() {
    ok=yes
    sha256 -c "$sums" || ok=no
    for file in "$source" $in_python $in_go; do
        grep -q " $file\$" "$sums" || { echo "$file: not listed"; ok=no; }
    done
    if [ $ok = no ]; then
        echo "generate.sh: the files above differ from $sums; run make proto-python and make proto-go with Python 3.8 to 3.12" >&2
        exit 1
    fi
}

what=${1:-}
case "$what" in
check)
    check
    exit 0
    ;;
python | go) ;;
*)
    sed -n '2,10s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac

python=${2:?"usage: generate.sh $what PYTHON VENV"}
venv=${3:?"usage: generate.sh $what PYTHON VENV"}
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
case "$version" in
3.8 | 3.9 | 3.10 | 3.11 | 3.12) ;;
*)
    echo "grpcio-tools $tools has no wheel for Python $version: nothing is generated, only the checksums are verified"
    check
    exit 0
    ;;
esac

if ! "$venv/bin/python" -c "import sys, importlib.metadata as m; sys.exit(m.version('grpcio-tools') != '$tools')" 2>/dev/null; then
    "$python" -m venv --clear "$venv"
    # The generator imports pkg_resources, which newer setuptools lack.
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "grpcio-tools==$tools" "setuptools<81"
fi

if [ "$what" = python ]; then
    "$venv/bin/python" -m grpc_tools.protoc -I proto --python_out=python --grpc_python_out=python "$source"
else
    GOBIN="$venv/go" go install "google.golang.org/protobuf/cmd/protoc-gen-go@$protoc_gen_go"
    GOBIN="$venv/go" go install "google.golang.org/grpc/cmd/protoc-gen-go-grpc@$protoc_gen_go_grpc"
    mkdir -p adapters/grpc/snakepitpb
    "$venv/bin/python" -m grpc_tools.protoc -I proto \
        --plugin="protoc-gen-go=$venv/go/protoc-gen-go" --plugin="protoc-gen-go-grpc=$venv/go/protoc-gen-go-grpc" \
        --go_out=. --go_opt=module=github.com/snakepit-go/snakepit \
        --go-grpc_out=. --go-grpc_opt=module=github.com/snakepit-go/snakepit "$source"
fi
# Each language has a run of its own. The other language's files stay listed only while the .proto is the same.
present=$in_python
if [ "$what" = go ]; then present=$in_go; fi
if [ -f "$sums" ] && sha256 "$source" | grep -qxF -f - "$sums"; then
    present=
    for file in $in_python $in_go; do
        if [ -f "$file" ]; then present="$present $file"; fi
    done
fi
# shellcheck disable=SC2086 # a list of names without blanks
sha256 "$source" $present >"$sums"
