#!/bin/sh
# Write requirements.lock, for Python 3.11 and newer on every platform, with hashes and no addresses; and
# requirements-cpu.lock, the same without torch and CUDA, for machines without a GPU. Needs uv.
set -eu
cd "$(dirname "$0")/.."
compile="uv pip compile --universal --python-version 3.11 --generate-hashes --no-annotate --no-header
    --no-emit-index-url --no-emit-find-links --quiet"
$compile pyproject.toml --extra dev -o requirements.lock
# setuptools builds our own package without another download.
grep -q '^setuptools==' requirements.lock
# Each requirement is a line that begins with its name, and indented lines of hashes.
awk '/^[a-z0-9]/ { keep = !($0 ~ /^(torch|torchvision|torchcodec|triton|nvidia-|cuda-)/) } keep' requirements.lock \
    > requirements-cpu.lock
