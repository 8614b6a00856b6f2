#!/bin/bash
# Format, clang-tidy, and clang's warnings with the thread-safety analysis; all must be silent. Debian 12's clang tools.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/install-packages.sh lint
git ls-files '*.cc' '*.h' '*.c' | xargs clang-format --dry-run -Werror
cmake --preset clang
cmake --build --preset clang --parallel "$(nproc)"
run-clang-tidy -p build-clang -quiet "$PWD/(base|bench|cli|config|ext|sql|uploader|vfs)/.*\.cc$" 2>/dev/null
