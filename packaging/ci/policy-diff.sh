#!/bin/sh
# Tell the reviewers of a change which requests it answers differently. For any CI that has a git checkout.
#
#   policy-diff.sh BASE POLICIES [MESH]
#
#   BASE      the revision that the change is for: origin/main, or a commit
#   POLICIES  the directory of policies, as in the repository
#   MESH      the mesh description, if there is one; where BASE has another, requests are compared under both
#
# The comment goes to stdout, or to the command in COMMENT:
#
#   COMMENT='gh pr comment 7 --body-file -' policy-diff.sh origin/main policies mesh.yaml
#
# Ends with 0 whether or not answers change: a person judges that. With GATE=1 it ends with 3 where they do. It ends with 1
# where it is not decided, or something is wrong.
set -u
[ $# -ge 2 ] || { echo "usage: policy-diff.sh BASE POLICIES [MESH]" >&2; exit 2; }
base=$1 policies=$2 mesh=${3:-}
comment=$(mktemp) || exit 1
trap 'rm -f "$comment"' EXIT
old_mesh=$mesh
if [ -n "$mesh" ] && git cat-file -e "$base:./$mesh" 2> /dev/null; then old_mesh=$base:$mesh; fi
${AUTHZ:-authz} diff "$base:$policies" "$policies" ${mesh:+--mesh "$old_mesh" --new-mesh "$mesh"} -o markdown > "$comment"
code=$?
if [ -s "$comment" ]; then
    if [ -n "${COMMENT:-}" ]; then sh -c "$COMMENT" < "$comment" || exit 1; else cat "$comment"; fi
fi
case $code in
    0) exit 0 ;;
    3) [ "${GATE:-}" = 1 ] && exit 3; exit 0 ;;
    *) exit 1 ;;
esac
