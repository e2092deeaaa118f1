#!/bin/sh
# Generates code from the .proto files, the frames of gRPC workers and the service of back ends:
#
#     proto/generate.sh python PYTHON VENV    python/snakepit_bridge/{grpc,launch}/*_pb2.py and *_pb2_grpc.py
#     proto/generate.sh go PYTHON VENV        adapters/grpc/snakepitpb/*.go and adapters/remote/launchpb/*.go
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
sources="proto/snakepit_bridge/grpc/snakepit.proto proto/snakepit_bridge/launch/launch.proto"
in_python="python/snakepit_bridge/grpc/snakepit_pb2.py python/snakepit_bridge/grpc/snakepit_pb2_grpc.py
    python/snakepit_bridge/launch/launch_pb2.py python/snakepit_bridge/launch/launch_pb2_grpc.py"
in_go="adapters/grpc/snakepitpb/snakepit.pb.go adapters/grpc/snakepitpb/snakepit_grpc.pb.go
    adapters/remote/launchpb/launch.pb.go adapters/remote/launchpb/launch_grpc.pb.go"
sums=proto/checksums.txt

sha256() {
    if command -v sha256sum >/dev/null; then sha256sum "$@"; else shasum -a 256 "$@"; fi
}

check() {
    ok=yes
    sha256 -c "$sums" || ok=no
    for file in $sources $in_python $in_go; do
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
    # shellcheck disable=SC2086 # a list of names without blanks
    "$venv/bin/python" -m grpc_tools.protoc -I proto --python_out=python --grpc_python_out=python $sources
else
    GOBIN="$venv/go" go install "google.golang.org/protobuf/cmd/protoc-gen-go@$protoc_gen_go"
    GOBIN="$venv/go" go install "google.golang.org/grpc/cmd/protoc-gen-go-grpc@$protoc_gen_go_grpc"
    mkdir -p adapters/grpc/snakepitpb adapters/remote/launchpb
    # shellcheck disable=SC2086 # a list of names without blanks
    "$venv/bin/python" -m grpc_tools.protoc -I proto \
        --plugin="protoc-gen-go=$venv/go/protoc-gen-go" --plugin="protoc-gen-go-grpc=$venv/go/protoc-gen-go-grpc" \
        --go_out=. --go_opt=module=github.com/snakepit-go/snakepit \
        --go-grpc_out=. --go-grpc_opt=module=github.com/snakepit-go/snakepit $sources
fi
# Each language has a run of its own. The other language's files stay listed only while the .proto files are the same.
present=$in_python
if [ "$what" = go ]; then present=$in_go; fi
same=yes
for file in $sources; do
    sha256 "$file" | grep -qxF -f - "$sums" 2>/dev/null || same=no
done
if [ $same = yes ]; then
    present=
    for file in $in_python $in_go; do
        if [ -f "$file" ]; then present="$present $file"; fi
    done
fi
# shellcheck disable=SC2086 # a list of names without blanks
sha256 $sources $present >"$sums.new"
mv "$sums.new" "$sums"
